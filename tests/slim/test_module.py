# SPDX-License-Identifier: MIT
"""An ordinary torch network becomes small, and its bytes bring it back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hbae.errors import ConfigError, ModelMismatchError
from hbae.models.trained import one_thread
from hbae.slim import SlimConfig, decode_weights
from hbae.slim.module import SlimModule, load_slim, slim_module


class Task:
    """A convolutional autoencoder of random waves, with a stream of batches that repeats."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        t = torch.linspace(0, 6.3, 32)
        self.x = torch.stack([torch.sin(a * t + p) for a in (1.0, 2.0, 3.0) for p in torch.linspace(0, 6, 64)])[:, None]
        self.batches = torch.Generator().manual_seed(1)
        self.net = self.network()
        adam = torch.optim.Adam(self.net.parameters(), lr=3e-3)
        with one_thread():
            for _ in range(200):
                adam.zero_grad()
                self.training(self.net).backward()
                adam.step()

    @staticmethod
    def network() -> nn.Module:
        return nn.Sequential(
            nn.Conv1d(1, 8, 4, stride=4), nn.BatchNorm1d(8), nn.ReLU(), nn.Flatten(), nn.Linear(64, 6),
            nn.Linear(6, 64), nn.ReLU(), nn.Linear(64, 32),
        )  # fmt: skip

    def training(self, net: nn.Module) -> Tensor:
        x = self.x[torch.randint(0, len(self.x), (48,), generator=self.batches)]
        return (net(x) - x[:, 0]).square().mean()

    def validation(self, net: nn.Module) -> Tensor:
        return (net(self.x) - self.x[:, 0]).square().mean()

    def slim(self, **kw: object) -> SlimModule:
        config = SlimConfig(rounds=20)
        with one_thread():
            return slim_module(self.net, self.training, self.validation, steps=240, config=config, **{"lr": 2e-3, **kw})


@pytest.fixture(scope="module")
def slimmed() -> tuple[Task, float, SlimModule]:
    task = Task()
    with torch.no_grad():
        before = float(task.validation(task.net.eval()))
    return task, before, task.slim()


def test_the_loss_holds_and_the_bytes_are_counted(slimmed: tuple[Task, float, SlimModule]) -> None:
    task, before, made = slimmed
    with torch.no_grad():
        after = float(task.validation(task.net.eval()))
    assert after == made.report.loss_after <= 1.01 * before
    as_floats = 4 * sum(t.numel() for t in task.net.state_dict().values())
    assert len(made.data) < as_floats / 3
    layers, rest = decode_weights(made.data)
    assert {*layers, *rest} == set(task.net.state_dict())
    assert made.report.bytes_after == sum(r.nbytes for r in made.report.layers.values()) < len(made.data)


def test_bytes_bring_the_network_back(slimmed: tuple[Task, float, SlimModule]) -> None:
    task, _, made = slimmed
    other = task.network()
    load_slim(other, made.data)
    for a, b in zip(other.state_dict().values(), task.net.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    with pytest.raises(ModelMismatchError, match="another network"):
        load_slim(nn.Linear(3, 3), made.data)


def test_the_same_run_gives_the_same_bytes(slimmed: tuple[Task, float, SlimModule]) -> None:
    assert Task().slim().data == slimmed[2].data


def test_what_is_no_network_is_refused() -> None:
    task = Task()
    with pytest.raises(ConfigError, match="no layer"):
        slim_module(nn.BatchNorm1d(8), task.training, lambda n: torch.ones(()), steps=1)
    with torch.no_grad():
        task.net[4].weight[0, 0] = np.nan  # type: ignore[index,operator]
    with pytest.raises(ConfigError, match="not finite"):
        task.slim()
    with pytest.raises(ConfigError, match="steps"):
        task.slim(lr=0.0)
