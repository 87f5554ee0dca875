# SPDX-License-Identifier: MIT
"""Fine-tuning without gradients: small moves to neighbouring codes, kept when that costs less."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from hbae.arrays import Array
from hbae.slim.quantise import layer_bytes, quantise
from hbae.slim.search import Picks, rules_of
from hbae.slim.trial import Aim, Score, Trial, keep_rules

SHARE = 1 / 256


@dataclass(frozen=True, eq=False)
class Tuned:
    """The network after tuning, its loss, and how many of the tried moves were kept."""

    trial: Trial
    loss: float
    tried: int
    kept: int


def tune(
    trial: Trial,
    picks: Picks,
    score: Score,
    aim: Aim,
    rng: np.random.Generator,
    *,
    rounds: int,
    going: Callable[[], bool] = lambda: True,
) -> Tuned:
    """Move a 256th of a layer's weights to a neighbouring level, ``rounds`` times; keep what lowers the cost.

    Weights that the rules hold at 0 stay there. Half of the moves go to the side where the unquantised weight lies,
    the others anywhere. ``trial.weights`` may be unquantised; they come back on their levels.
    """
    wish = trial.weights
    now = keep_rules(trial, rules_of(picks))
    names = [n for n, o in picks.items() if o.rule.mask.any() and o.rule.levels is not None and len(o.rule.levels) > 1]
    sizes = {n: _size(now.weights[n], picks, n) for n in picks}
    loss = score(now)
    cost = aim.cost(loss, sum(sizes.values()))
    tried = kept = 0
    weight = np.array([now.weights[n].size for n in names], float)
    for _ in range(rounds if names else 0):
        if not going():
            break
        name = names[int(rng.choice(len(names), p=weight / weight.sum()))]
        moved = _moved(now.weights[name], wish[name] if rng.random() < 0.5 else None, picks, name, rng)
        then = Trial({**now.weights, name: moved}, now.state)
        there, size = score(then), _size(moved, picks, name)
        then_cost = aim.cost(there, sum(sizes.values()) - sizes[name] + size)
        tried += 1
        if then_cost < cost:
            now, loss, cost, kept = then, there, then_cost, kept + 1
            sizes[name] = size
    return Tuned(now, loss, tried, kept)


def _size(weights: Array, picks: Picks, name: str) -> int:
    return layer_bytes(quantise(weights, picks[name].rule, picks[name].unit).integers)


def _moved(weights: Array, wish: Array | None, picks: Picks, name: str, rng: np.random.Generator) -> Array:
    rule = picks[name].rule
    if rule.levels is None:
        return weights
    places = np.flatnonzero(rule.mask)
    places = rng.choice(places, max(1, int(SHARE * len(places))), replace=False)
    flat = weights.ravel().copy()
    way = rng.choice([-1, 1], len(places))
    if wish is not None:
        side = np.sign(wish.ravel()[places] - flat[places]).astype(int)
        way = np.where(side == 0, way, side)
    at = np.searchsorted(rule.levels, flat[places]) + way
    flat[places] = rule.levels[np.clip(at, 0, len(rule.levels) - 1)]
    return flat.reshape(weights.shape)
