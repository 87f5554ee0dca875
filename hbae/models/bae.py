# SPDX-License-Identifier: MIT
"""The block autoencoder's encoder: what the hyper-block stage left in each block, into a few latents."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from hbae.models.config import ModelConfig
from hbae.models.hbae import BlockEmbedding


class BlockEncoder(nn.Module):
    """Residuals of blocks (N, K, P, V) to latents (N, K, L_b) in integer units, not yet rounded.

    Residuals are far smaller than the range, so the gain starts large and is learned.
    """

    def __init__(self, cfg: ModelConfig) -> None:
        super().__init__()
        hidden = 2 * cfg.block_hidden
        self.embed = BlockEmbedding(cfg, channels=cfg.block_channels, hidden=hidden, embed=cfg.block_latents)
        self.log_gain = nn.Parameter(torch.full((cfg.block_latents,), math.log(256.0)))

    def forward(self, r: Tensor) -> Tensor:
        """Give z_b, (N, K, L_b)."""
        z: Tensor = self.embed(r.flatten(0, 1)).reshape(r.shape[0], r.shape[1], -1) * self.log_gain.exp()
        return z
