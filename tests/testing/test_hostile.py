# SPDX-License-Identifier: MIT
"""Hostile models give latents of the right shape that decode to finite values."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hbae.errors import ConfigError
from hbae.exact.backend import NumpyBackend
from hbae.models.autoencoder import Autoencoder
from hbae.models.config import ModelConfig
from hbae.models.trained import EncodingModel
from hbae.testing.hostile import KINDS, HostileModel


@pytest.fixture(scope="module")
def inner() -> EncodingModel:
    cfg = ModelConfig(num_blocks=2, points=6, num_variables=5, latents=8, embed=8, hidden=8, head=8, block_latents=2)
    torch.manual_seed(0)
    net = Autoencoder(cfg, np.zeros(5), np.ones(5))
    net.calibrate(torch.randn(8, 2, 6, 5))
    return EncodingModel(net, tuple("abcde"))


@pytest.mark.parametrize("kind", KINDS)
def test_answers_decode(inner: EncodingModel, kind: str) -> None:
    x = np.random.default_rng(0).standard_normal((7, 2, 6, 5)).astype(np.float32)
    model = HostileModel(inner, kind)
    z, zb = model.encode(x)
    good, _ = inner.encode(x)
    assert z.shape == good.shape
    assert not np.array_equal(z, good)
    y = model.decoder.decode(z, zb, NumpyBackend())
    assert np.isfinite(y).all()
    assert np.abs(y).max() < 2**22
    assert model.names == inner.names


def test_unknown_kind(inner: EncodingModel) -> None:
    with pytest.raises(ConfigError, match="unknown kind"):
        HostileModel(inner, "nice")
