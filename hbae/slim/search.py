# SPDX-License-Identifier: MIT
"""One option for every layer: a population of vectors of options, each trained on for a short while and scored."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from hbae.slim.trial import Aim, Retrain, Rule, Rules, Score, Trial, keep_rules

log = logging.getLogger("hbae.slim")

# Retraining takes back a part of the rises, so first vectors are also those for smaller prices of loss (multiples of
# the aim's), or for rises of so many times the limit.
_PART = (1.0, 0.3, 0.1, 3.0, 0.03, 10.0, 0.01)
_OVER = (1.0, 0.01, 10.0, 0.1, 100.0, 0.001, 1000.0)
_PRICES = np.geomspace(1e-6, 1e6, 120)


@dataclass(frozen=True, eq=False)
class Option:
    """One thing that a layer may become: ``nbytes`` it takes then, ``rise`` of the loss without any retraining."""

    kind: str
    number: float
    rule: Rule
    unit: float
    nbytes: int
    rise: float = 0.0


Tables = Mapping[str, list[Option]]
Picks = dict[str, Option]


@dataclass(frozen=True, eq=False)
class Found:
    """The best member of the population: its options, loss, bytes, cost, and how many were tried.

    ``trial``: the network after its short retraining; its weights do not keep the rules before :func:`keep_rules`.
    """

    picks: Picks
    trial: Trial
    loss: float
    nbytes: float
    cost: float
    tried: int


@dataclass(frozen=True, kw_only=True)
class Search:
    """What a search may spend: ``first`` vectors, ``children``, retraining ``effort`` for each; ``going`` ends it."""

    first: int
    children: int
    effort: float
    going: Callable[[], bool] = lambda: True


def rules_of(picks: Picks) -> dict[str, Rule]:
    """Give the rules of picked options."""
    return {n: o.rule for n, o in picks.items()}


def with_rises(trial: Trial, tables: Tables, score: Score, loss: float) -> dict[str, list[Option]]:
    """Measure what each option alone does to the loss; each layer's options come back with the most bytes first."""
    out = {}
    for name, options in tables.items():
        measured = []
        for o in options:
            changed = Trial({**trial.weights, name: o.rule.apply(trial.weights[name])}, trial.state)
            measured.append(Option(o.kind, o.number, o.rule, o.unit, o.nbytes, score(changed) - loss))
        out[name] = sorted(measured, key=lambda o: -o.nbytes)
    return out


def search(
    trial: Trial,
    tables: Tables,
    callables: tuple[Score, Retrain],
    aim: Aim,
    nbytes: Callable[[Trial, Picks], float],
    plan: Search,
    rng: np.random.Generator,
) -> Found:
    """Give the vector of options with the least cost: first those on the tables' lower hull, then changes of the best.

    All start from ``trial`` and are retrained for the same effort.
    """
    score, retrain = callables
    seen: set[tuple[int, ...]] = set()
    best: tuple[float, tuple[int, ...], Found] | None = None
    tried = 0

    def weigh(vector: tuple[int, ...]) -> None:
        nonlocal best, tried
        seen.add(vector)
        tried += 1
        picks = {n: tables[n][k] for n, k in zip(tables, vector, strict=True)}
        rules: Rules = rules_of(picks)
        free = retrain(trial, rules, plan.effort)
        there = keep_rules(free, rules)
        loss, size = score(there), nbytes(there, picks)
        cost = aim.cost(loss, size)
        log.debug("slim: %s: loss %.6g, %d bytes", [f"{o.kind} {o.number:g}" for o in picks.values()], loss, size)
        if best is None or cost < best[0]:
            best = cost, vector, Found(picks, free, loss, size, cost, tried)

    for vector in _hull(tables, plan.first, aim):
        if best is None or plan.going():
            weigh(vector)
    for _ in range(plan.children):
        if best is not None and plan.going():
            child = _changed(best[1], [len(t) for t in tables.values()], rng)
            if child not in seen:
                weigh(child)
    if best is None:
        raise AssertionError("a search has at least one vector")
    f = best[2]
    return Found(f.picks, f.trial, f.loss, f.nbytes, f.cost, tried)


def _hull(tables: Tables, count: int, aim: Aim) -> list[tuple[int, ...]]:
    """Vectors that would be best at some price of loss if layers added up."""
    size = [np.array([o.nbytes for o in t], float) for t in tables.values()]
    rise = [np.array([o.rise if np.isfinite(o.rise) else 1e300 for o in t]) for t in tables.values()]
    usual = [float(x) for r in rise for x in r if 0 < x < 1e300]
    ladder = _PRICES * sum(float(s.max()) for s in size) / (float(np.median(usual)) if usual else 1.0)
    vectors = []
    with np.errstate(over="ignore"):
        for price in [aim.price * part for part in _PART] if aim.price > 0 else ladder:
            vectors.append(tuple(int(np.argmin(s + price * r)) for s, r in zip(size, rise, strict=True)))
    if aim.price == 0:
        total = [sum(float(r[k]) for r, k in zip(rise, v, strict=True)) for v in vectors]
        within = [[v for v, t in zip(vectors, total, strict=True) if t <= over * aim.limit] for over in _OVER]
        # The ladder climbs: the first vector within has the fewest bytes.
        vectors = [w[0] if w else vectors[-1] for w in within]
    return list(dict.fromkeys(vectors))[:count]


def _changed(vector: tuple[int, ...], lengths: list[int], rng: np.random.Generator) -> tuple[int, ...]:
    """Move one or two layers to a neighbouring option."""
    out = list(vector)
    for i in rng.permutation(len(out))[: int(rng.integers(1, 3))]:
        out[i] = int(np.clip(out[i] + rng.choice([-1, 1]), 0, lengths[i] - 1))
    return tuple(out)
