# SPDX-License-Identifier: MIT
"""Run under mpirun by test_training.py: steps alone and in the group, and prints how far they are apart."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hbae.arrays import Array
from hbae.batch.training import Place, close_group, form_group, join_training
from hbae.config import Budget
from hbae.models.autoencoder import Autoencoder
from hbae.models.config import ModelConfig
from hbae.train.batches import Batches, normalisation
from hbae.train.config import TrainConfig
from hbae.train.loop import REPORT_EVERY, RunOptions, Trainer
from hbae.train.ranks import ALONE, Ranks
from hbae.train.shared import share_blocks

torch.set_num_threads(1)
team = join_training()
ranks = form_group(team, Place("cpu"))
rng = np.random.default_rng(0)
x = rng.normal(size=(32, 4, 12, 6)).cumsum(0).astype(np.float32)
valid = rng.random(x.shape) > 0.3 * (np.arange(32) % 5)[:, None, None, None] / 4
sizes = {"latents": 12, "embed": 16, "hidden": 24, "channels": 4, "head": 16}
blocks = {"block_latents": 3, "block_hidden": 8, "block_channels": 2}
model = ModelConfig(num_blocks=4, points=12, num_variables=6, **sizes, **blocks)
# A batch of 8 on 3 ranks: 2, 3 and 3 rows.
config = TrainConfig(model=model, batch=8, target_nrmse=0.1, norm_p=2.0)


def trainer(x: Array, ok: Array | None, group: Ranks) -> Trainer:
    offset, scale = normalisation(x, ok)
    torch.manual_seed(3)
    net = Autoencoder(model, offset, scale).train()
    batches = Batches(net, x, ok, batch=8, seed=3, device="cpu", ranks=group)
    return Trainer(net, config, batches, seed=3, budget=Budget(epochs=5), options=RunOptions(ranks=group))


def flat(tensors: Iterable[Tensor | None]) -> Tensor:
    return torch.cat([t.detach().double().flatten() for t in tensors if t is not None])


far = {}
for name, ok in (("whole", None), ("masked", valid)):
    # As on two hosts, of which the last two ranks share one.
    given = (x, ok) if team.rank == 0 else None
    mine, mask = share_blocks(ranks, ("h0", "h1", "h1"), given, Path(sys.argv[1]))
    assert np.array_equal(mine, x)
    assert (mask is None) == (ok is None)
    assert mask is None or np.array_equal(mask, ok)
    both = [trainer(x, ok, ALONE), trainer(mine, mask, ranks)]
    start = flat(both[0].net.parameters())
    for t in both:
        t.take_step()
    grads = [flat(p.grad for p in t.net.parameters()) for t in both]
    for t in both:
        for _ in range(REPORT_EVERY - 1):
            t.take_step()
    weights = [flat(t.net.parameters()) for t in both]
    losses = [t.flush_sums()[0] for t in both]
    far[f"{name}: gradient"] = float((grads[0] - grads[1]).norm() / grads[0].norm())
    far[f"{name}: weights"] = float((weights[0] - weights[1]).norm() / (weights[0] - start).norm())
    far[f"{name}: loss"] = abs(losses[1] / losses[0] - 1)
told = team.gather(far)
if told is not None:
    sys.stdout.write(json.dumps(told) + "\n")
close_group(team)
threads = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
# What still runs here would run into the end of the interpreter.
assert not [t for t in threads if "gloo" in t or "tcpstore" in t], threads
