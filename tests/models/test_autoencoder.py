# SPDX-License-Identifier: MIT
"""Autoencoder and encoding model: shapes, determinism, hostile values."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hbae.errors import ConfigError, ModelMismatchError
from hbae.exact.backend import NumpyBackend
from hbae.models.autoencoder import Autoencoder, LaplacePrior
from hbae.models.config import ModelConfig
from hbae.models.trained import EncodingModel

SMALL = {"latents": 12, "embed": 16, "hidden": 24, "channels": 4, "head": 16, "block_hidden": 12}


def build(num_variables: int = 6, **change: object) -> EncodingModel:
    cfg = ModelConfig(num_blocks=3, points=10, num_variables=num_variables, **{**SMALL, **change})  # type: ignore[arg-type]
    torch.manual_seed(0)
    net = Autoencoder(cfg, np.zeros(num_variables), np.ones(num_variables))
    net.calibrate(torch.randn(20, 3, 10, num_variables) * 0.2)
    return EncodingModel(net, tuple(f"v{i}" for i in range(num_variables)))


@pytest.mark.parametrize("num_variables", [1, 6])
@pytest.mark.parametrize("block_latents", [0, 5])
@pytest.mark.parametrize("attention", [True, False])
def test_decoder_gives_what_training_saw(num_variables: int, block_latents: int, attention: bool) -> None:
    model = build(num_variables, block_latents=block_latents, attention=attention)
    x = (np.random.default_rng(1).standard_normal((9, 3, 10, num_variables)) * 0.2).astype(np.float32)
    z, zb = model.encode(x)
    assert z.shape == (9, 12)
    assert z.dtype == np.int32
    assert (zb is None) == (block_latents == 0)
    assert zb is None or (zb.shape == (9, 3, 5) and zb.dtype == np.int32)
    y = model.decoder.decode(z, zb, NumpyBackend()) * model.decoder.scale + model.decoder.offset
    with torch.no_grad():
        trained = model.net(torch.from_numpy(x), None).x.numpy()
    assert np.array_equal(y.astype(np.float32), trained)


def test_encoding_does_not_depend_on_threads() -> None:
    model = build(block_latents=4)
    x = np.random.default_rng(1).standard_normal((300, 3, 10, 6)).astype(np.float32)
    old = torch.get_num_threads()
    answers = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        answers.append(model.encode(x))
        assert torch.get_num_threads() == threads
    torch.set_num_threads(old)
    assert all(np.array_equal(a, b) for a, b in zip(*answers, strict=True))


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38, 0.0])
def test_encoding_takes_any_values(value: float) -> None:
    model = build(block_latents=4)
    z, zb = model.encode(np.full((2, 3, 10, 6), value, np.float32))
    assert zb is not None
    assert max(np.abs(z).max(), np.abs(zb).max()) <= 2047


def test_nan_weights_give_zero_latents() -> None:
    model = build()
    with torch.no_grad():
        model.net.hyper_encoder.latent.weight.fill_(float("nan"))
    z, _ = model.encode(np.ones((2, 3, 10, 6), np.float32))
    assert not z.any()


def test_no_data_and_wrong_shapes() -> None:
    model = build(block_latents=4)
    z, zb = model.encode(np.zeros((0, 3, 10, 6), np.float32))
    assert z.shape == (0, 12)
    assert zb is not None
    assert model.decoder.decode(z, zb, NumpyBackend()).shape == (0, 3, 10, 6)
    with pytest.raises(ModelMismatchError, match="expected"):
        model.encode(np.zeros((1, 2, 10, 6), np.float32))
    with pytest.raises(ModelMismatchError, match="names"):
        EncodingModel(model.net, ("a",))


def test_prior_is_a_law_over_integers() -> None:
    prior = LaplacePrior(3)
    with torch.no_grad():
        prior.log_scale.copy_(torch.tensor([-2.0, 0.5, 3.0]))
        prior.centre.copy_(torch.tensor([0.0, 0.3, -4.2]))
        p = torch.exp2(-prior.bits(torch.arange(-600, 601).float()[:, None]))
    assert torch.allclose(p.sum(0), torch.ones(3), atol=1e-3)


@pytest.mark.parametrize(
    "change",
    [
        {"latents": 0},
        {"embed": 10},
        {"act": "tanh"},
        {"weight_bits": 2},
        {"hidden": 1 << 19, "points": 4096},
        {"head": 1.5},
    ],
)
def test_config_rejects_nonsense(change: dict[str, object]) -> None:
    doc = ModelConfig(num_blocks=3, points=10, num_variables=6).to_json() | change
    with pytest.raises(ConfigError, match="model"):
        ModelConfig.from_json(doc)


def test_config_counts_the_stored_weights() -> None:
    for v in (1, 6):
        model = build(v, block_latents=5)
        stored = [a for d in (model.decoder.hyper, model.decoder.block) if d for a in d.layers if hasattr(a, "weight")]
        assert model.net.cfg.decoder_weights == sum(a.weight.size + a.bias.size for a in stored)
        assert ModelConfig.from_json(model.net.cfg.to_json()) == model.net.cfg
