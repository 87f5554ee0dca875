# SPDX-License-Identifier: MIT
"""Training repeats by seed, resumes to the same weights, learns, and says when it cannot."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hbae.arrays import Array
from hbae.config import Budget
from hbae.errors import FormatError, ModelMismatchError, TrainingError
from hbae.exact.backend import NumpyBackend
from hbae.models.trained import one_thread
from hbae.train.blocks import TrainedModel, train_blocks
from hbae.train.config import TrainConfig
from hbae.train.loop import RunOptions, square_sums

from .conftest import NAMES


def train(x: Array, config: TrainConfig, epochs: int = 12, **more: Any) -> TrainedModel:
    more = {"names": NAMES, "geometry": {"block": [3, 2, 2], "hyper": [4, 1, 1]}, "seed": 5, "valid": None, **more}
    valid = more.pop("valid")
    with one_thread():
        return train_blocks(x, valid, config=config, budget=Budget(epochs=epochs), **more)


def weights(model: TrainedModel) -> dict[str, torch.Tensor]:
    return dict(model.encoder.net.state_dict())


def same(a: TrainedModel, b: TrainedModel) -> bool:
    return all(torch.equal(v, weights(b)[k]) for k, v in weights(a).items())


def test_training_learns(blocks: Array, config: TrainConfig) -> None:
    seen: list[tuple[int, int, float, float]] = []
    model = train(blocks, config, 150, progress=lambda *a: seen.append(a))
    assert model.report is not None
    assert model.report.mean_nrmse < 0.05
    assert model.report.steps == 900 == seen[-1][0] == seen[-1][1]
    assert model.report.blocks_per_second > 0
    assert seen[-1][3] < seen[0][3]
    z, zb = model.encode(blocks)
    y = model.decoder.decode(z, zb, NumpyBackend()) * model.decoder.scale + model.decoder.offset
    span = blocks.max((0, 1, 2)) - blocks.min((0, 1, 2))
    error = np.sqrt(((y - blocks) ** 2).mean((0, 1, 2))) / span
    assert np.allclose(error, model.report.nrmse, rtol=1e-3, atol=0)


def test_same_seed_same_weights(blocks: Array, config: TrainConfig) -> None:
    first = train(blocks, config)
    torch.rand(7)
    assert same(first, train(blocks, config))
    assert not same(first, train(blocks, config, seed=6))


@pytest.mark.parametrize("stop_at", [0.4, 0.9])
@pytest.mark.parametrize("matrix_lr", [0.0, 0.01])
def test_resume_gives_the_uninterrupted_weights(
    blocks: Array,
    config: TrainConfig,
    tmp_path: Path,
    stop_at: float,
    matrix_lr: float,
) -> None:
    config = replace(config, matrix_lr=matrix_lr)
    whole = train(blocks, config, 20)

    def stop(step: int, total: int, loss: float, nrmse: float) -> None:
        if step >= stop_at * total:
            raise KeyboardInterrupt

    path = tmp_path / "run.ckpt"
    kept = RunOptions(checkpoint=path, save_seconds=0.0)
    with pytest.raises(KeyboardInterrupt):
        train(blocks, config, 20, options=kept, progress=stop)
    resumed = train(blocks, config, 20, options=kept)
    assert same(whole, resumed)
    with pytest.raises(TrainingError, match="another run"):
        train(blocks, config, 20, seed=9, options=kept)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(FormatError, match=r"run\.ckpt"):
        train(blocks, config, 20, options=kept)


def test_seconds_budget_ends(blocks: Array, config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    # By a clock that other work on the machine does not move, and one thread: several spend it on waiting.
    monkeypatch.setattr(time, "monotonic", time.process_time)
    with one_thread():
        model = train_blocks(blocks, None, names=NAMES, geometry={}, config=config, budget=Budget(seconds=1.0))
    assert model.report is not None
    assert 0.9 < model.report.seconds < 5


def test_masked_points_do_not_count(blocks: Array, config: TrainConfig) -> None:
    valid = np.ones(blocks.shape, bool)
    valid[:, :, :3] = False
    junk = blocks.copy()
    junk[:, :, :3] = np.nan
    model = train(junk, config, 60, valid=valid)
    assert model.report is not None
    assert model.report.mean_nrmse < 0.15
    flat = blocks.copy()
    flat[..., 2] = 7.0
    report = train(flat, config, 2).report
    assert report is not None
    assert np.isnan(report.nrmse).tolist() == [False, False, True, False, False, False]


def test_failures_are_named(blocks: Array, config: TrainConfig) -> None:
    with pytest.raises(TrainingError, match="not finite"):
        train(blocks, replace(config, lr=1e30, matrix_lr=1e30))
    with pytest.raises(TrainingError, match="shape"):
        train(blocks[:0], config)
    with pytest.raises(TrainingError, match="no valid value"):
        train(np.full_like(blocks, np.nan), config)
    with pytest.raises(ModelMismatchError, match="do not fit"):
        train(blocks[..., :5], config)


def test_gradients_of_the_square_sums() -> None:
    diff = torch.randn(3, 4, 5, 6, requires_grad=True)
    pull = torch.randn(6)
    square, count = square_sums(diff, None)
    want = torch.autograd.grad((diff.square().sum((0, 1, 2)) * pull).sum(), diff)
    assert torch.equal(torch.autograd.grad((square * pull).sum(), diff)[0], want[0])
    assert count.tolist() == [60.0] * 6
    weight = (torch.rand(diff.shape) > 0.3).float()
    square, count = square_sums(diff, weight)
    assert torch.equal(count, weight.sum((0, 1, 2)))
    assert torch.allclose(square, (diff**2 * weight).sum((0, 1, 2)))
