# SPDX-License-Identifier: MIT
"""HBAE decoder plus BAE decoder: latents of hyper-blocks and blocks to integer block values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from hbae.arrays import Array
from hbae.errors import FormatError
from hbae.exact.backend import Backend, exact_flags
from hbae.exact.net import ExactNet, Linear, Split


@dataclass(frozen=True, kw_only=True)
class BlockDecoder:
    """Turns integer latents into block values: ``value = offset[v] + scale[v] * y`` with y an integer, in float64.

    K blocks per hyper-block, P points per block, V variables; ``hyper``: (N, L) -> K * P * V values per row;
    ``block``: (N * K, L_b) -> P * V values per row, added to the former, or None. Values are ordered (K, P, V).
    """

    num_blocks: int
    points: int
    num_variables: int
    hyper: ExactNet
    block: ExactNet | None
    offset: Array
    scale: Array

    def __post_init__(self) -> None:
        k, d = self.num_blocks, self.points * self.num_variables
        if min(k, self.points, self.num_variables) < 1 or self.hyper.row_values != k * d:
            raise FormatError("block decoder: the hyper-block net does not give K * P * V values")
        if self.block is not None and self.block.row_values != d:
            raise FormatError("block decoder: the block net does not give P * V values")
        for name, a in (("offset", self.offset), ("scale", self.scale)):
            if a.shape != (self.num_variables,) or not np.isfinite(a).all():
                raise FormatError(f"block decoder: bad {name}")

    def decode(self, z_NL: Array, zb_NKL: Array | None, backend: Backend) -> Array:
        """Give integers y, shape (N, K, P, V), as float32 (magnitudes below 2**24).

        ``zb_NKL`` has shape (N, K, L_b); None stands for no block stage.
        """
        with exact_flags(backend):
            y = self.hyper.run(z_NL, backend)
            if self.block is not None and zb_NKL is not None:
                y = y + self.block.run(zb_NKL.reshape(-1, zb_NKL.shape[-1]), backend).reshape(y.shape)
        return y.reshape(-1, self.num_blocks, self.points, self.num_variables)

    def check_crcs(self, backend: Backend | None = None) -> list[int]:
        """CRCs of the nets' answers to their fixed test vectors."""
        return [n.check_crc(backend) for n in (self.hyper, self.block) if n is not None]

    def to_parts(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """Give a JSON description and the integer arrays, for storing."""
        doc: dict[str, Any] = {
            "K": self.num_blocks,
            "P": self.points,
            "V": self.num_variables,
            "offset": [float(v).hex() for v in self.offset],
            "scale": [float(v).hex() for v in self.scale],
            "check": self.check_crcs(),
        }
        arrays: dict[str, Array] = {}
        for name, net in (("hyper", self.hyper), ("block", self.block)):
            doc[name] = None if net is None else _net_doc(net, name, arrays)
        return doc, arrays

    def array_names(self) -> set[str]:
        """Names of the arrays in :meth:`to_parts`."""
        nets = {"hyper": self.hyper, "block": self.block}
        layers = [(f"{n}.{i}", x) for n, net in nets.items() if net is not None for i, x in enumerate(net.layers)]
        return {f"{at}.{part}" for at, x in layers if isinstance(x, Linear) for part in ("weight", "bias", "shift")}

    @staticmethod
    def from_parts(doc: Mapping[str, Any], arrays: Mapping[str, Array]) -> BlockDecoder:
        """Undo :meth:`to_parts`; runs the overflow proof and the stored test vectors.

        Raises
        ------
        FormatError
            When anything does not fit.
        """
        try:
            decoder = BlockDecoder(
                num_blocks=int(doc["K"]),
                points=int(doc["P"]),
                num_variables=int(doc["V"]),
                hyper=_net_from(doc["hyper"], "hyper", arrays),
                block=None if doc["block"] is None else _net_from(doc["block"], "block", arrays),
                offset=np.array([float.fromhex(v) for v in doc["offset"]]),
                scale=np.array([float.fromhex(v) for v in doc["scale"]]),
            )
        except (KeyError, TypeError, AttributeError, IndexError, ValueError, OverflowError) as e:
            if isinstance(e, FormatError):
                raise
            raise FormatError(f"block decoder is malformed: {e!r}") from e
        if decoder.check_crcs() != doc.get("check"):
            raise FormatError("block decoder: the stored test vector decodes differently")
        return decoder


def _net_doc(net: ExactNet, prefix: str, arrays: dict[str, Array]) -> dict[str, Any]:
    layers: list[Any] = []
    for i, layer in enumerate(net.layers):
        if isinstance(layer, Split):
            layers.append(["split", layer.parts])
            continue
        arrays[f"{prefix}.{i}.weight"] = layer.weight.astype(np.int64)
        arrays[f"{prefix}.{i}.bias"] = layer.bias.astype(np.int64)
        arrays[f"{prefix}.{i}.shift"] = layer.shift.astype(np.int64)
        layers.append(["linear", layer.act, layer.lo, layer.hi, layer.groups])
    return {"lo": net.in_lo, "hi": net.in_hi, "layers": layers}


def _net_from(doc: Mapping[str, Any], prefix: str, arrays: Mapping[str, Array]) -> ExactNet:
    layers: list[Linear | Split] = []
    for i, item in enumerate(doc["layers"][:65]):
        if item[0] == "split":
            layers.append(Split(int(item[1])))
            continue
        w, b, s = (arrays[f"{prefix}.{i}.{part}"] for part in ("weight", "bias", "shift"))
        if w.ndim != 2 or np.abs(w).max(initial=0) > 32767:
            raise FormatError("exact layer: weights must be a matrix of 16-bit integers")
        act, lo, hi, groups = str(item[1]), int(item[2]), int(item[3]), int(item[4])
        layers.append(Linear(weight=w, bias=b, shift=s, act=act, lo=lo, hi=hi, groups=groups))
    return ExactNet(tuple(layers), int(doc["lo"]), int(doc["hi"]))
