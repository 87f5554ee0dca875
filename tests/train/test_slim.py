# SPDX-License-Identifier: MIT
"""Training with slimming: the decoder is exact and small, masks hold, and the same seed gives the same bytes."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from hbae.arrays import Array
from hbae.config import Budget
from hbae.container import decode_decoder, encode_decoder
from hbae.errors import ConfigError
from hbae.exact import Linear
from hbae.exact.backend import NumpyBackend, get_backend
from hbae.models.autoencoder import Autoencoder
from hbae.models.trained import one_thread
from hbae.pipeline.training import train as train_file
from hbae.slim import Aim, Rule, Trial, magnitude_mask
from hbae.train import slim as module
from hbae.train.batches import Batches, normalisation
from hbae.train.blocks import TrainedModel, train_blocks
from hbae.train.config import TrainConfig
from hbae.train.loop import RunOptions, Trainer
from hbae.train.model_file import load_model, save_model
from hbae.train.rate import RateEquation
from hbae.train.slim import slim_decoder

from .conftest import NAMES, make_blocks, make_config
from .test_blocks import train


@pytest.fixture(scope="module")
def slimmed() -> tuple[Array, TrainedModel, TrainedModel]:
    """The same training without and with slimming, for so few hyper-blocks that bytes of weights count."""
    blocks = make_blocks()
    return blocks, train(blocks, make_config(), 25), _small(blocks)


def _small(blocks: Array) -> TrainedModel:
    return train(blocks, replace(make_config(), slim_share=0.3), 25, stored_hyper=6)


def test_the_sum_of_the_rate_equation_falls(slimmed: tuple[Array, TrainedModel, TrainedModel]) -> None:
    _, plain, small = slimmed
    report = small.report.slim
    assert plain.report.slim is None
    assert report.kept
    assert report.bytes_after + report.loss_after < report.bytes_before + report.loss_before
    assert len(encode_decoder(small.decoder)) < 0.8 * len(encode_decoder(plain.decoder))
    assert small.report.steps <= plain.report.steps


def test_reported_bytes_are_those_of_the_section(slimmed: tuple[Array, TrainedModel, TrainedModel]) -> None:
    small = slimmed[2]
    report = small.report.slim
    without = replace(small.decoder, hyper=_empty(small.decoder.hyper), block=_empty(small.decoder.block))
    counted = len(encode_decoder(small.decoder)) - len(encode_decoder(without))
    layers = len(report.layers)
    assert sum(r.nbytes for r in report.layers.values()) == report.bytes_after
    assert abs(counted - report.bytes_after) <= 16 * layers


def _empty(net: object) -> object:
    layers = [replace(x, weight=np.zeros_like(x.weight)) if isinstance(x, Linear) else x for x in net.layers]
    return replace(net, layers=tuple(layers))


def test_the_slimmed_decoder_is_exact(slimmed: tuple[Array, TrainedModel, TrainedModel], tmp_path: Path) -> None:
    """NumPy and torch, in batches of any size, before and after the bytes of a file, give the same bits."""
    blocks, _, small = slimmed
    z, zb = small.encode(blocks)
    whole = small.decoder.decode(z, zb, NumpyBackend())
    assert np.array_equal(whole, np.rint(whole))
    save_model(tmp_path / "m.hbm", small)
    again = load_model(tmp_path / "m.hbm")
    assert encode_decoder(again.decoder) == encode_decoder(small.decoder)
    for decoder in (small.decoder, again.decoder, decode_decoder(encode_decoder(small.decoder))):
        for backend in (NumpyBackend(), get_backend("cpu")):
            for size in (1, 7, 48):
                parts = [decoder.decode(z[i : i + size], zb[i : i + size], backend) for i in range(0, 48, size)]
                assert np.concatenate(parts).tobytes() == whole.tobytes()
    with torch.no_grad():
        trained = small.encoder.net.hyper_decoder.forward_integer(torch.from_numpy(z).float())
    assert np.array_equal(trained.numpy(), small.decoder.hyper.run(z, NumpyBackend()))


def test_the_same_seed_gives_the_same_bytes(slimmed: tuple[Array, TrainedModel, TrainedModel]) -> None:
    blocks, _, small = slimmed
    again = _small(blocks)
    assert encode_decoder(again.decoder) == encode_decoder(small.decoder)
    assert again.report.slim == small.report.slim


def _trainer(config: TrainConfig, budget: Budget) -> Trainer:
    x = make_blocks()
    torch.manual_seed(0)
    net = Autoencoder(config.model, *normalisation(x, None))
    trainer = Trainer(net, config, Batches(net, x, None, batch=8, seed=0, device="cpu"), seed=0, budget=budget)
    trainer.run(None)
    return trainer


def test_masks_survive_retraining_and_the_encoder_learns_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """With half of every layer pruned by force, the exported weights are 0 where the masks say so."""
    trainer = _trainer(replace(make_config(), slim_share=0.4), Budget(epochs=20))
    made = []
    real = module.slim

    def forced(*args: object, **kw: object) -> object:
        args = (*args[:4], replace(args[4], levels=(0.5,), bits=(6,)))
        made.append(real(*args, **kw))
        return made[-1]

    monkeypatch.setattr(module, "slim", forced)
    before = {k: v.clone() for k, v in trainer.net.hyper_encoder.state_dict().items()}
    report = slim_decoder(trainer, RateEquation(trainer, 48, None, {}), Aim(limit=1e30))
    assert report.kept
    linears = [x for x in trainer.net.export().hyper.layers if isinstance(x, Linear)]
    for i, layer in enumerate(linears):
        mask = made[0].rules[f"hyper.{i}"].mask
        assert (~mask).sum() >= int(0.5 * mask.size)
        assert not layer.weight[~mask].any()
        assert layer.weight[mask].any()
    assert any(not torch.equal(v, before[k]) for k, v in trainer.net.hyper_encoder.state_dict().items())


def test_retraining_keeps_masks_by_itself() -> None:
    trainer = _trainer(replace(make_config(), slim_share=0.4), Budget(epochs=10))
    work = module._Decoders(trainer, lambda: 0.0)
    masks = {n: magnitude_mask(w, 0.5) for n, w in work.start.weights.items()}
    start = Trial({n: w * masks[n] for n, w in work.start.weights.items()}, work.start.state)
    after = work.retrain(start, {n: Rule(m) for n, m in masks.items()}, 1.0)
    for name, mask in masks.items():
        assert not after.weights[name][~mask].any()
        assert not np.array_equal(after.weights[name][mask], start.weights[name][mask])


def test_a_budget_in_seconds_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    # By a clock that other work on the machine does not move, and one thread: several spend it on waiting.
    monkeypatch.setattr(time, "monotonic", time.process_time)
    config = replace(make_config(), slim_share=0.5)
    with one_thread():
        model = train_blocks(make_blocks(), None, names=NAMES, geometry={}, config=config, budget=Budget(seconds=2.0))
    assert model.report.slim is not None
    assert 0.9 < model.report.seconds < 5


def test_weights_that_are_no_numbers_are_refused() -> None:
    trainer = _trainer(replace(make_config(), slim_share=0.5), Budget(epochs=2))
    score = RateEquation(trainer, 48, None, {})
    with torch.no_grad():
        trainer.net.hyper_decoder.layers[1].weight[0, 0] = float("nan")
    with pytest.raises(ConfigError, match=r"hyper\.1 .*not finite"):
        slim_decoder(trainer, score)


def test_the_correction_is_counted_as_it_is_coded() -> None:
    """Tighter bounds and more hyper-blocks cost more; a variable without a range costs nothing; bits are real ones."""
    trainer = _trainer(make_config(), Budget(epochs=5))
    allowed = np.array([10.0 ** (v - 2) for v in range(6)])
    geometry = {"block": [3, 2, 2], "hyper": [1, 4]}

    def nbytes(factor: float, stored: int = 48) -> float:
        return RateEquation(trainer, stored, allowed * factor, geometry)()

    loose, tight = nbytes(1e-1), nbytes(1e-3)
    assert 0 < loose < tight
    assert nbytes(1e-3, 96) == pytest.approx(2 * tight)
    # Ten times tighter costs log2 10 bits for each of the values, all of which matter there.
    each = (nbytes(1e-5) - nbytes(1e-4)) * 8 / (48 * 4 * 12 * 6)
    assert each == pytest.approx(np.log2(10), rel=0.05)
    rate = RateEquation(trainer, 48, allowed * 1e-3, geometry)
    assert rate() == rate()
    with pytest.raises(ConfigError, match="allowed"):
        RateEquation(trainer, 48, allowed * 0, geometry)


def test_masked_points_cost_nothing_in_the_rate_equation() -> None:
    trainer = _trainer(make_config(), Budget(epochs=2))
    x, _ = trainer.batches.sample(48)
    weight = torch.ones_like(x)
    whole, valid, none = (RateEquation(trainer, 48, None, {}, (x, w))() for w in (None, weight, weight * 0))
    with torch.no_grad():
        latents = 48 * float(trainer.net(x, None).bits.mean()) / 8
    assert valid == whole > none == latents


def test_a_share_above_most_is_refused() -> None:
    with pytest.raises(ConfigError, match="slim_share"):
        replace(make_config(), slim_share=0.95)


def test_several_ranks_do_not_slim(tmp_path: Path) -> None:
    ranks: Any = SimpleNamespace(size=2, rank=1)
    with pytest.raises(ConfigError, match="slim"):
        train_file(tmp_path / "none.nc", tmp_path / "m.hbm", slim=True, run=RunOptions(ranks=ranks))
