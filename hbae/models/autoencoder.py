# SPDX-License-Identifier: MIT
"""HBAE and BAE together, as they train: normalised hyper-blocks in, reconstruction and latents out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from hbae.arrays import Array
from hbae.exact.block_decoder import BlockDecoder
from hbae.models.bae import BlockEncoder
from hbae.models.config import ModelConfig
from hbae.models.hbae import HyperEncoder
from hbae.models.quant import LATENT_MAX, OUT_EXP, DecoderNet, round_through


class LaplacePrior(nn.Module):
    """An independent Laplace law per latent over the integers; its cost in bits is the rate that training pays."""

    def __init__(self, latents: int) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.full((latents,), 2.0))
        self.centre = nn.Parameter(torch.zeros(latents))

    def bits(self, z: Tensor) -> Tensor:
        """Give bits per latent for (..., L), of the law integrated over steps of 1."""
        b = self.log_scale.clamp(-4.0, 8.0).exp()
        d, h = (z - self.centre).abs(), 0.5 / b
        log_sinh = h + torch.log1p(-torch.exp(-2 * h)) - 0.6931471805599453
        tail = d / b - log_sinh
        inner = -torch.log1p(-torch.exp(-h) * torch.cosh(d.clamp(max=0.5) / b))
        return torch.where(d > 0.5, tail, inner) * 1.4426950408889634


class Noise:
    """Uniform noise of one step for a global batch, of which this process draws all and takes its own rows."""

    def __init__(self, generator: torch.Generator, batch: int, rows: slice) -> None:
        self.generator, self.batch, self.rows = generator, batch, rows

    def like(self, z: Tensor) -> Tensor:
        """Give noise in -1/2 to 1/2 for latents (b, ...)."""
        shape = (self.batch, *z.shape[1:])
        return torch.rand(shape, generator=self.generator, device=z.device)[self.rows] - 0.5


@dataclass(frozen=True)
class Output:
    """One forward pass: reconstruction (N, K, P, V) in normalised units and bits per hyper-block (N,)."""

    x: Tensor
    bits: Tensor


class Autoencoder(nn.Module):
    """The trainable whole. ``offset``, ``scale`` (V,), float64: normalised value = (x - offset) / scale."""

    offset: Tensor
    scale: Tensor

    def __init__(self, cfg: ModelConfig, offset: Array, scale: Array) -> None:
        super().__init__()
        self.cfg = cfg
        self.register_buffer("offset", torch.as_tensor(np.asarray(offset, np.float64)))
        self.register_buffer("scale", torch.as_tensor(np.asarray(scale, np.float64)))
        bits = {"weight_bits": cfg.weight_bits, "act_bits": cfg.act_bits}
        self.hyper_encoder = HyperEncoder(cfg)
        self.hyper_decoder = DecoderNet(cfg.latents, cfg.hyper_specs(), **bits)
        self.hyper_prior = LaplacePrior(cfg.latents)
        self.block_encoder: BlockEncoder | None = None
        self.block_decoder: DecoderNet | None = None
        self.block_prior: LaplacePrior | None = None
        if cfg.block_latents:
            self.block_encoder = BlockEncoder(cfg)
            self.block_decoder = DecoderNet(cfg.block_latents, cfg.block_specs(), **bits)
            self.block_prior = LaplacePrior(cfg.block_latents)
            last = self.block_decoder.layers[-1]
            with torch.no_grad():
                last.weight.mul_(0.05)  # type: ignore[operator]

    def normalise(self, x: Tensor) -> Tensor:
        """Give float32 normalised values, NaN and infinities as 0, clipped to +-8 ranges."""
        y = ((x.double() - self.offset) / self.scale).float()
        return torch.nan_to_num(y, nan=0.0, posinf=0.0, neginf=0.0).clamp(-8.0, 8.0)

    def forward(self, x: Tensor, noise: Noise | None) -> Output:
        """Code normalised values (N, K, P, V); latents get noise, or are rounded without it."""
        z = disturb(self.hyper_encoder(x), noise)
        bits = self.hyper_prior.bits(z).sum(-1)
        y = self.hyper_decoder(z).reshape(x.shape)
        if self.block_encoder is not None and self.block_decoder is not None and self.block_prior is not None:
            zb = disturb(self.block_encoder(x - y), noise)
            bits = bits + self.block_prior.bits(zb).sum((-1, -2))
            y = y + self.block_decoder(zb.flatten(0, 1)).reshape(x.shape)
        return Output(y, bits)

    def calibrate(self, x: Tensor) -> None:
        """Take the decoders over to integers; scales come from normalised sample values (N, K, P, V)."""
        with torch.no_grad():
            z = disturb(self.hyper_encoder(x), None)
            zb = None
            if self.block_encoder is not None:
                r = x - self.hyper_decoder(z).reshape(x.shape)
                zb = disturb(self.block_encoder(r), None).flatten(0, 1)
            self.hyper_decoder.calibrate(z)
            if self.block_decoder is not None and zb is not None:
                self.block_decoder.calibrate(zb)

    def sync(self) -> None:
        """Read the decoders' modes back after a state was loaded."""
        for net in (self.hyper_decoder, self.block_decoder):
            if net is not None:
                net.sync()

    def export(self) -> BlockDecoder:
        """Give the exact decoder.

        Raises
        ------
        ConfigError
            Before :meth:`calibrate`.
        """
        cfg = self.cfg
        return BlockDecoder(
            num_blocks=cfg.num_blocks,
            points=cfg.points,
            num_variables=cfg.num_variables,
            hyper=self.hyper_decoder.export(),
            block=None if self.block_decoder is None else self.block_decoder.export(),
            offset=self.offset.cpu().numpy().copy(),
            scale=self.scale.cpu().numpy() * 2.0**-OUT_EXP,
        )


def disturb(z: Tensor, noise: Noise | None) -> Tensor:
    """Give z with uniform noise of one step, or rounded, inside the range of latents."""
    if noise is None:
        return round_through(z).clamp(-LATENT_MAX, LATENT_MAX)
    return z + noise.like(z)
