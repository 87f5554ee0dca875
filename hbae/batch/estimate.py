# SPDX-License-Identifier: MIT
"""Time and size of a batch, predicted from a few of its inputs, compressed for real and thrown away."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hbae.batch.board import Board
from hbae.batch.items import Item, find_items
from hbae.batch.recipe import Campaign
from hbae.batch.replay import replay
from hbae.batch.run import Tell, set_up
from hbae.batch.serve import run_queue
from hbae.batch.work import Outcome, work
from hbae.errors import BatchError
from hbae.ranks import Team, agreed

# Sizes that differ by less say nothing about how time grows with size.
SPREAD = 2.0


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a batch will take: ``seconds`` by the clock on ``ranks``, ``archive_bytes`` between ``low`` and ``high``.

    ``how`` says in words what the numbers rest on.
    """

    items: int
    input_bytes: int
    ranks: int
    seconds: float
    item_seconds: float
    archive_bytes: int
    low: int
    high: int
    samples: tuple[dict[str, Any], ...]
    how: str

    def to_json(self) -> dict[str, Any]:
        """Give everything as JSON values."""
        return asdict(self)


def estimate_batch(team: Team, path: Path, *, sample: int, ranks: int | None, tell: Tell) -> Estimate | None:
    """Predict a batch from ``sample`` inputs spread evenly over their sizes; nothing is left behind.

    All ranks compress samples side by side, as they will in the batch. The root gives the estimate.

    Raises
    ------
    BatchError
        When a sample fails.
    HbaeError, OSError
        As for a batch, before any work.
    """
    setup = set_up(team, path)
    items = agreed(team, lambda: find_items(setup.campaign))
    board = Board(choose(items, sample), None, tell) if team.rank == 0 else None
    run_queue(team, board, lambda item: _try(item, setup.campaign, setup.seat.threads, setup.seat.device))
    return agreed(team, lambda: predict(items, board.outcomes, ranks or team.size) if board is not None else None)


def choose(items: Sequence[Item], count: int) -> list[Item]:
    """Give items spread evenly from the biggest to the smallest."""
    places = np.unique(np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int))
    return [items[i] for i in places]


def _try(item: Item, campaign: Campaign, threads: int, device: str) -> Outcome:
    from hbae.batch.machine import Seat

    scratch = campaign.resolve(campaign.recipe.scratch) if campaign.recipe.scratch else None
    with tempfile.TemporaryDirectory(prefix="hbae-estimate-", dir=scratch) as folder:
        trial = replace(item, archive=str(Path(folder) / item.name))
        return work(trial, campaign, Seat(device=device, threads=threads))


def predict(items: Sequence[Item], outcomes: Sequence[Outcome], ranks: int) -> Estimate:
    """Extend measured samples to all items.

    Raises
    ------
    BatchError
        When a sample failed.
    """
    for o in outcomes:
        if o.status == "failed":
            raise BatchError(f"the sample {o.item.identity.path} failed: {o.error}")
    sizes = np.array([o.item.identity.size for o in outcomes], float)
    spent = np.array([o.seconds for o in outcomes])
    ratios = np.array([o.size for o in outcomes]) / sizes
    fixed, rate = _line(sizes, spent)
    every = [fixed + rate * i.identity.size for i in items]
    total = sum(i.identity.size for i in items)
    mean = float(sum(o.size for o in outcomes) / sizes.sum())
    law = f"{fixed:.3g} s + {rate * 1e6:.3g} s per MB of input" if fixed else f"{rate * 1e6:.3g} s per MB of input"
    return Estimate(
        items=len(items),
        input_bytes=total,
        ranks=ranks,
        seconds=replay(every, ranks).duration,
        item_seconds=sum(every),
        archive_bytes=round(mean * total),
        low=round(float(ratios.min()) * total),
        high=round(float(ratios.max()) * total),
        samples=tuple(
            {"input": o.item.identity.path, "bytes": o.item.identity.size, "seconds": o.seconds, "size": o.size}
            for o in outcomes
        ),
        how=(
            f"{len(outcomes)} of {len(items)} inputs compressed: {law}, {100 * mean:.3g} % of its bytes; "
            f"queue of {ranks} ranks replayed, biggest first; a shared file system may be slower"
        ),
    )


def _line(sizes: np.ndarray, spent: np.ndarray) -> tuple[float, float]:
    """Fit seconds = fixed + rate * bytes; without spread, or where that would be negative, the rate alone."""
    if len(sizes) > 1 and sizes.max() > SPREAD * sizes.min():
        rate, fixed = (float(x) for x in np.polyfit(sizes, spent, 1))
        if rate > 0 and fixed > 0:
            return fixed, rate
    return 0.0, float(spent.sum() / sizes.sum())
