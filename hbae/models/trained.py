# SPDX-License-Identifier: MIT
"""A trained model at compression time: a float encoder in front of the exact decoder."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from hbae.arrays import Array
from hbae.errors import ModelMismatchError
from hbae.exact.backend import Backend, get_backend
from hbae.exact.block_decoder import BlockDecoder
from hbae.models.autoencoder import Autoencoder
from hbae.models.quant import LATENT_MAX, OUT_EXP

BATCH = 256
BATCH_VALUES = 1 << 24


class EncodingModel:
    """A :class:`hbae.models.base.BlockModel` over a trained :class:`Autoencoder`.

    Encoding runs in fixed batches on one thread, so that on one machine the same values give the same latents.
    """

    def __init__(self, net: Autoencoder, names: tuple[str, ...], decoder: BlockDecoder | None = None) -> None:
        cfg = net.cfg
        self.net = net.eval()
        self.decoder = net.export() if decoder is None else decoder
        self.names = names
        d = self.decoder
        if (d.num_blocks, d.points, d.num_variables) != (cfg.num_blocks, cfg.points, cfg.num_variables):
            raise ModelMismatchError("model: encoder and decoder are for different blocks")
        block_latents = 0 if d.block is None else d.block.num_latents
        if d.hyper.num_latents != cfg.latents or block_latents != cfg.block_latents:
            raise ModelMismatchError("model: encoder and decoder have different latents")
        if len(names) != cfg.num_variables:
            raise ModelMismatchError(f"model: {len(names)} names for {cfg.num_variables} variables")

    def encode(self, x_NKPV: Array) -> tuple[Array, Array | None]:
        """Give int32 latents z (N, L) and z_b (N, K, L_b) or None; never fails on values, whatever they are.

        The caller fills invalid points smoothly; non-finite values count as the offset.

        Raises
        ------
        ModelMismatchError
            When the shape is not (N, K, P, V).
        """
        cfg = self.net.cfg
        want = (cfg.num_blocks, cfg.points, cfg.num_variables)
        if x_NKPV.ndim != 4 or x_NKPV.shape[1:] != want:
            raise ModelMismatchError(f"model: blocks of shape {x_NKPV.shape[1:]} given, {want} expected")
        device = self.net.offset.device
        batch = max(1, min(BATCH, BATCH_VALUES // math.prod(want)))
        backend = get_backend("cuda" if device.type == "cuda" else "cpu")
        z = np.zeros((len(x_NKPV), cfg.latents), np.int32)
        zb = np.zeros((len(x_NKPV), cfg.num_blocks, cfg.block_latents), np.int32) if cfg.block_latents else None
        with one_thread(), torch.no_grad():
            for i in range(0, len(x_NKPV), batch):
                part = torch.from_numpy(np.array(x_NKPV[i : i + batch], np.float64)).to(device)
                x = self.net.normalise(part)
                z[i : i + batch] = _latents(self.net.hyper_encoder(x))
                if zb is not None and self.net.block_encoder is not None:
                    r = x - self._hyper(z[i : i + batch], backend).to(device)
                    zb[i : i + batch] = _latents(self.net.block_encoder(r))
        return z, zb

    def _hyper(self, z: Array, backend: Backend) -> torch.Tensor:
        cfg = self.net.cfg
        y = self.decoder.hyper.run(z, backend).astype(np.float32) * np.float32(2.0**-OUT_EXP)
        return torch.from_numpy(y.reshape(-1, cfg.num_blocks, cfg.points, cfg.num_variables))


def _latents(z: torch.Tensor) -> Array:
    z = torch.nan_to_num(z, nan=0.0, posinf=0.0, neginf=0.0)
    out: Array = z.round().clamp(-LATENT_MAX, LATENT_MAX).cpu().numpy().astype(np.int32)
    return out


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch on one thread, and give the threads back."""
    old = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(old)
