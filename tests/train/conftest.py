# SPDX-License-Identifier: MIT
"""Small smooth data and a small config."""

from __future__ import annotations

import numpy as np
import pytest

from hbae.arrays import Array
from hbae.models.config import ModelConfig
from hbae.train.config import TrainConfig

NAMES = tuple(f"v{i}" for i in range(6))


def make_blocks() -> Array:
    """Travelling waves, (48, 4, 12, 6), in different units."""
    n, k, p, v = np.meshgrid(np.arange(48), np.arange(4), np.arange(12), np.arange(6), indexing="ij")
    wave = np.sin(0.4 * n + 0.3 * k + 0.2 * p + 0.5 * v) + 0.3 * np.cos(0.15 * n * (1 + v % 2))
    return (wave * 10.0 ** (v - 2) + 5 * v).astype(np.float32)


def make_config() -> TrainConfig:
    """Small nets for them, with a block stage."""
    model = ModelConfig(
        num_blocks=4, points=12, num_variables=6, latents=12, embed=16, hidden=24, channels=4, head=16,
        block_latents=3, block_hidden=8, block_channels=2, weight_bits=8,
    )  # fmt: skip
    return TrainConfig(model=model, batch=8, target_nrmse=0.02)


@pytest.fixture
def blocks() -> Array:
    """See :func:`make_blocks`."""
    return make_blocks()


@pytest.fixture
def config() -> TrainConfig:
    """See :func:`make_config`."""
    return make_config()
