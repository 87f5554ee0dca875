# SPDX-License-Identifier: MIT
"""The encoder of hyper-blocks: embeddings, self-attention over the blocks, one latent vector (arXiv 2409.05357)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from hbae.models.config import ModelConfig


class BlockEmbedding(nn.Module):
    """Normalised blocks (R, P, V) to embeddings (R, E): pointwise squeeze of the variables, then the block's points."""

    def __init__(self, cfg: ModelConfig, *, channels: int, hidden: int, embed: int) -> None:
        super().__init__()
        self.squeeze: nn.Module = nn.Identity()
        width = cfg.num_variables
        if not cfg.direct:
            self.squeeze = nn.Linear(width, 2 * channels)
            width = 2 * channels
        self.mix = nn.Sequential(nn.Linear(cfg.points * width, hidden), nn.LeakyReLU(0.125), nn.Linear(hidden, embed))

    def forward(self, x: Tensor) -> Tensor:
        """Give (R, E)."""
        out: Tensor = self.mix(self.squeeze(x).flatten(1))
        return out


class BlockAttention(nn.Module):
    """Self-attention over the K blocks with LayerNorm, added to the embeddings: (N, K, E) -> (N, K, E)."""

    def __init__(self, embed: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(embed)
        self.qkv = nn.Linear(embed, 3 * embed)
        self.out = nn.Linear(embed, embed)

    def forward(self, e: Tensor) -> Tensor:
        """Give the embeddings plus what each block learns from the others."""
        n, k, width = e.shape
        q, key, v = self.qkv(self.norm(e)).reshape(n, k, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        weights = torch.softmax(q @ key.transpose(-1, -2) / math.sqrt(width // self.heads), -1)
        out: Tensor = e + self.out((weights @ v).transpose(1, 2).reshape(n, k, width))
        return out


class HyperEncoder(nn.Module):
    """Hyper-blocks (N, K, P, V) to latents (N, L) in integer units, not yet rounded."""

    def __init__(self, cfg: ModelConfig) -> None:
        super().__init__()
        self.embed = BlockEmbedding(cfg, channels=cfg.channels, hidden=cfg.hidden, embed=cfg.embed)
        self.place = nn.Parameter(torch.randn(cfg.num_blocks, cfg.embed) * 0.02)
        self.attention = BlockAttention(cfg.embed, cfg.heads) if cfg.attention else nn.Identity()
        self.latent = nn.Linear(cfg.num_blocks * cfg.embed, cfg.latents)
        self.log_gain = nn.Parameter(torch.full((cfg.latents,), math.log(32.0)))

    def forward(self, x: Tensor) -> Tensor:
        """Give z, (N, L)."""
        n, k = x.shape[:2]
        e = self.embed(x.flatten(0, 1)).reshape(n, k, -1) + self.place
        z: Tensor = self.latent(self.attention(e).flatten(1)) * self.log_gain.exp()
        return z
