# SPDX-License-Identifier: MIT
"""A small network of exact layers: integer weights, integer activations, power-of-two scales.

One layer is ``clip(rint(act((a @ W.T + b) * 2**-shift)), lo, hi)`` with ``rint`` half to even. Since every partial
sum is an integer below 2**24 (float32) or 2**53 (float64), the sum has the same bits in any order, on any device;
scaling by a power of two, rounding and clipping are exact as well. The limit is proved from the weights at export and
again at load.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from hbae.arrays import Array
from hbae.errors import ConfigError, FormatError
from hbae.exact.backend import F32_LIMIT, F64_LIMIT, Backend, NumpyBackend

ACTS = ("none", "relu", "leaky")
MAX_LAYERS = 64
# Weights of a model, numbers of a transform, and values that one row of latents becomes on its way.
MAX_NUMBERS = 1 << 24


@dataclass(frozen=True, kw_only=True)
class Linear:
    """One exact linear layer, ``(R, I) -> (R, O)``.

    ``weight``: (O, I) integers, at most 16 bits. ``bias``: (O,) integers. ``shift``: (O,) integers, the scale is
    ``2**-shift``. ``act``: ``none``, ``relu`` or ``leaky`` (negative side times 1/8). ``lo``, ``hi``: the clip, inside
    +-2**23. ``groups``: 1 for one float32 product, g > 1 for g float32 products over equal parts of the inner
    dimension added in float64, 0 for one float64 product.
    """

    weight: Array
    bias: Array
    shift: Array
    act: str
    lo: int
    hi: int
    groups: int = 1

    def prove(self, amax: float) -> None:
        """Check that no partial sum can leave the exact range when inputs are at most ``amax`` in magnitude.

        Raises
        ------
        FormatError
            When the proof fails or a field is out of its range.
        """
        o, i = self.weight.shape
        if self.act not in ACTS or self.bias.shape != (o,) or self.shift.shape != (o,):
            raise FormatError("exact layer: bad shape or activation")
        if not (-(1 << 23) <= self.lo <= self.hi <= 1 << 23):
            raise FormatError("exact layer: clip outside +-2**23")
        if np.abs(self.shift).max(initial=0) > 60 or np.abs(self.bias).max(initial=0) > F64_LIMIT / 4:
            raise FormatError("exact layer: shift or bias out of range")
        w = np.abs(self.weight.astype(np.float64))
        b = np.abs(self.bias.astype(np.float64))
        if self.groups == 0:
            worst, limit = (amax * w.sum(1) + b).max(initial=0), F64_LIMIT
        elif self.groups == 1:
            worst, limit = (amax * w.sum(1) + b).max(initial=0), F32_LIMIT
        else:
            if self.groups < 0 or i % self.groups:
                raise FormatError("exact layer: groups do not divide the inner dimension")
            worst = (amax * w.reshape(o, self.groups, -1).sum(2)).max(initial=0)
            limit = F32_LIMIT
            if not (amax * w.sum(1) + b).max(initial=0) < F64_LIMIT:
                raise FormatError("exact layer: the sum over groups can overflow")
        if not worst < limit:
            raise FormatError(f"exact layer: a sum can reach {worst:.3g}, the exact limit is {limit:.3g}")

    def with_cheapest_groups(self, amax: float) -> Linear:
        """Give the same layer with the fastest product that passes the proof.

        Raises
        ------
        ConfigError
            When not even float64 is exact.
        """
        i = self.weight.shape[1]
        for groups in (1, 2, 4, 0):
            if groups and i % groups:
                continue
            layer = Linear(
                weight=self.weight,
                bias=self.bias,
                shift=self.shift,
                act=self.act,
                lo=self.lo,
                hi=self.hi,
                groups=groups,
            )
            try:
                layer.prove(amax)
            except FormatError:
                continue
            return layer
        raise ConfigError("exact layer: weights or activations are too large even for float64")

    @property
    def amax(self) -> float:
        """Largest magnitude of an output."""
        return float(max(abs(self.lo), abs(self.hi)))


@dataclass(frozen=True)
class Split:
    """Regroup rows, ``(R, C) -> (R * parts, C / parts)``: the next layers are shared over the parts."""

    parts: int


@dataclass(frozen=True)
class ExactNet:
    """A chain of exact layers with a clipped integer input, ``(N, L) -> (N * splits, O)``.

    Raises
    ------
    FormatError
        When shapes do not fit or the overflow proof fails.
    """

    layers: tuple[Linear | Split, ...]
    in_lo: int
    in_hi: int

    def __post_init__(self) -> None:
        if not 1 <= len(self.layers) <= MAX_LAYERS or not isinstance(self.layers[0], Linear):
            raise FormatError("exact net: needs 1 to 64 layers, the first one linear")
        if not (-(1 << 23) <= self.in_lo <= self.in_hi <= 1 << 23):
            raise FormatError("exact net: input range outside +-2**23")
        amax, width = float(max(abs(self.in_lo), abs(self.in_hi))), self.num_latents
        for layer in self.layers:
            if isinstance(layer, Split):
                if layer.parts < 1 or width % layer.parts:
                    raise FormatError("exact net: split does not divide the width")
                width //= layer.parts
                continue
            if layer.weight.shape[1] != width:
                raise FormatError("exact net: layer widths do not fit")
            layer.prove(amax)
            amax, width = layer.amax, layer.weight.shape[0]
        if not 1 <= self.num_latents <= self.widest <= MAX_NUMBERS:
            raise FormatError("exact net: a row becomes no values, or too many")

    @property
    def num_latents(self) -> int:
        """L, the input width."""
        first = self.layers[0]
        return int(first.weight.shape[1]) if isinstance(first, Linear) else 0

    @property
    def row_values(self) -> int:
        """Output values per input row (splits times the last width)."""
        width, rows = self.num_latents, 1
        for layer in self.layers:
            if isinstance(layer, Split):
                rows, width = rows * layer.parts, width // layer.parts
            else:
                width = int(layer.weight.shape[0])
        return rows * width

    @property
    def widest(self) -> int:
        """Largest number of values that one input row becomes between two layers."""
        width, rows, most = self.num_latents, 1, self.num_latents
        for layer in self.layers:
            if isinstance(layer, Split):
                rows, width = rows * layer.parts, width // layer.parts
            else:
                width = int(layer.weight.shape[0])
            most = max(most, rows * width)
        return most

    def run(self, z: Array, backend: Backend) -> Array:
        """Decode integer latents (N, L) to integers (N, row_values) held in float32 or float64."""
        z = np.clip(np.nan_to_num(np.asarray(z, np.float64)), self.in_lo, self.in_hi)
        batch = max(1, (1 << 23) // self.widest)
        prepared = [_prepare(layer, backend) for layer in self.layers]
        parts = [self._run_batch(z[i : i + batch], prepared, backend) for i in range(0, len(z), batch)]
        if not parts:
            return np.zeros((0, self.row_values), np.float32)
        return np.concatenate(parts) if len(parts) > 1 else parts[0]

    def _run_batch(self, z: Array, prepared: list[Any], backend: Backend) -> Array:
        a: Any = backend.asarray(z, False)
        for layer, ready in zip(self.layers, prepared, strict=True):
            if isinstance(layer, Split):
                a = a.reshape(a.shape[0] * layer.parts, a.shape[1] // layer.parts)
            else:
                a = _apply(layer, ready, a, backend)
        return backend.numpy(a).reshape(len(z), -1)

    def check_vector(self) -> Array:
        """A fixed input (4, L) that exercises the whole range; see :meth:`check_crc`."""
        span = self.in_hi - self.in_lo + 1
        i = np.arange(4 * self.num_latents, dtype=np.int64).reshape(4, -1)
        return self.in_lo + (i * 7919 + 104729 * (i // 3)) % span

    def check_crc(self, backend: Backend | None = None) -> int:
        """CRC-32 of the outputs (int32, little-endian) for :meth:`check_vector`.

        Stored in files, run before decoding.
        """
        out = self.run(self.check_vector(), backend or NumpyBackend())
        return zlib.crc32(out.astype("<i4").tobytes())


def _prepare(layer: Linear | Split, backend: Backend) -> Any:
    if isinstance(layer, Split):
        return None
    i = layer.weight.shape[1]
    double = layer.groups != 1
    g = max(layer.groups, 1)
    weights = [backend.asarray(layer.weight[:, k * i // g : (k + 1) * i // g].T, layer.groups == 0) for k in range(g)]
    scale = np.ldexp(1.0, -layer.shift.astype(np.int64))
    return weights, backend.asarray(layer.bias, double), backend.asarray(scale, double)


def _apply(layer: Linear, ready: Any, a: Any, backend: Backend) -> Any:
    weights, bias, scale = ready
    if layer.groups == 1:
        acc = backend.matmul(a, weights[0])
    elif layer.groups == 0:
        acc = backend.matmul(_as_double(a, backend), weights[0])
    else:
        step = a.shape[1] // layer.groups
        acc = _as_double(backend.matmul(a[:, :step], weights[0]), backend)
        for k in range(1, layer.groups):
            acc += _as_double(backend.matmul(a[:, k * step : (k + 1) * step], weights[k]), backend)
    acc += bias
    out = backend.finish(acc, scale, layer.act, layer.lo, layer.hi)
    return out if layer.groups == 1 else _as_single(out, backend)


def _as_double(a: Any, backend: Backend) -> Any:
    return a.astype(np.float64) if isinstance(backend, NumpyBackend) else a.double()


def _as_single(a: Any, backend: Backend) -> Any:
    return a.astype(np.float32) if isinstance(backend, NumpyBackend) else a.float()
