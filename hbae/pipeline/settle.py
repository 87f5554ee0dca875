# SPDX-License-Identifier: MIT
"""Steps set right before chunks are coded: their errors are looked at until every variable's is just under its limit.

Looking takes a part of the time of coding, so that a plan is coded once it is known to hold. Large groups are looked at
on their sample first.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from hbae.arrays import Array
from hbae.bound import Target
from hbae.bound.targets import MARGIN
from hbae.errors import FormatError
from hbae.exact import get_backend
from hbae.pipeline.encode import BlockEncoder, look_at_chunk, quiet
from hbae.pipeline.plan import GroupPlan
from hbae.pipeline.replan import finer_plan

# Squared errors and numbers of points by variable.
Errors = tuple[list[float], list[int]]
# Bytes of the chunks that are looked at, at most.
_MOST_BYTES = 1 << 30
# Looks at a sample; looks at chunks; how many of these move all variables, after a sample and without. Later ones move
# those that miss.
_TURNS_SAMPLE, _TURNS, _APART = 4, 7, (1, 4)
# Errors aimed at, over the limits: of variables on their own, and where a basis ties them.
_AIM, _AIM_TIED = 0.998, 0.995
# The part of the limits that counts as one where only a part of what is to be coded is seen.
_ROOM = 0.985
# What every later turn takes off the aim. More turns do not pay where steps would grow by less than that in the mean,
# or errors are over by less than that; plans whose errors are over by more than the last can be met only by looking on.
_LESS, _ENOUGH, _LITTLE, _SOME = 0.004, 0.004, 0.003, 0.03
# A plan that was seen to hold is worth that part of the steps of one that was not.
_RISK = 0.01
# Errors grow slower than steps, with a basis far slower; it makes them depend on each other, so that steps grow with
# care. The power of the factor asked for, at first: without a basis; with one all alike, apart growing, apart
# shrinking; and the range of powers that errors tell.
_ALONE, _ALIKE, _GROWING, _SHRINKING, _STUBBORN = 1.2, 1.2, 0.7, 3.0, (1.0, 5.0)
# The same at last, where nothing is looked at any more.
_SURELY = 1.7
# Factors of one turn: least and most, and the most under a basis.
_LEAST, _MOST, _MOST_TIED = 0.25, 4.0, 1.4
# Steps that moved by less tell nothing about how errors follow.
_MOVED = 0.01


def can_settle(plan: GroupPlan, targets: list[Target], *, lossless: bool) -> bool:
    """Tell whether global limits are all that steps are set by."""
    by_rmse = not any(t.by_point or t.by_block or t.regions for t in targets)
    return by_rmse and not lossless and plan.domain != "log" and bool(plan.unit.any() or plan.point_unit.any())


@dataclass(frozen=True)
class _Seen:
    """A plan, its worst error over its limit, and how near the errors are to the limits once that one is met."""

    plan: GroupPlan
    worst: float
    near: float
    power: float

    def met(self) -> GroupPlan:
        """Give the plan with steps that are finer alike where one error is over its limit."""
        if self.worst <= 1:
            return self.plan
        return finer_plan(self.plan, np.full(self.plan.num_variables, (_AIM / self.worst) ** self.power))


@dataclass(frozen=True)
class Look:
    """What does not change from box to box where errors are looked at; goes to workers."""

    plan: GroupPlan
    targets: list[Target]
    model: BlockEncoder | None
    backend: str

    def errors(self, raw: Array, invalid: Array, _: object = None) -> Errors:
        """Squared errors and numbers of points of a box by variable; none where it is to be kept without loss."""
        with quiet():
            try:
                own = get_backend(self.backend)
                found = look_at_chunk(raw, invalid, self.plan, self.targets, model=self.model, backend=own)
            except FormatError:
                # Integers too large for exact arithmetic.
                return [0.0] * len(raw), [int(n) for n in (~invalid).reshape(len(raw), -1).sum(1)]
        return [e.sse for e in found.variables], [e.count for e in found.variables]


class Settler:
    """Moves the steps of a plan from look to look: ``plan`` is the one to look at, or, without ``more``, the result.

    ``turns``: most looks. ``apart``: how many of them move all variables. ``whole``: they are at every chunk.
    ``keeps_best``: the result is the best of what was seen, not what the last move gives.
    """

    def __init__(
        self, plan: GroupPlan, targets: list[Target], *, turns: int, apart: int, whole: bool, keeps_best: bool
    ) -> None:
        self.plan, self.more = plan, True
        # Bases are carried from the first plan on: each time they lose some precision.
        self._given, self._moved = plan, np.ones(len(targets))
        self._keeps_best = keeps_best
        self._limit = np.array([t.rmse for t in targets]) * (1.0 if whole else _ROOM)
        self._turns, self._apart = turns, apart
        self._turn = 0
        self._best: _Seen | None = None
        self._last: tuple[Array, Array] | None = None
        self._power = np.full(len(targets), _SHRINKING if plan.ties_variables else _ALONE)

    @classmethod
    def on_sample(cls, plan: GroupPlan, targets: list[Target]) -> Settler:
        """Give one for looks at a sample, which others at chunks may follow."""
        return cls(plan, targets, turns=_TURNS_SAMPLE, apart=_TURNS_SAMPLE, whole=False, keeps_best=False)

    @classmethod
    def for_stream(cls, plan: GroupPlan, targets: list[Target]) -> Settler:
        """Give one for looks at the first steps of a stream, whose others are not known."""
        return cls(plan, targets, turns=_TURNS, apart=_APART[True], whole=False, keeps_best=True)

    @classmethod
    def on_chunks(cls, plan: GroupPlan, targets: list[Target], *, sampled: bool, whole: bool) -> Settler:
        """Give one for looks at chunks, after such at a sample or without; ``whole``: at all of them.

        Where it is not, steps grow no more: what is not seen may be where something happens.
        """
        apart = _APART[not sampled] if whole else 0
        return cls(plan, targets, turns=_TURNS, apart=apart, whole=whole, keeps_best=True)

    def step(self, found: Iterable[Errors]) -> None:
        """Take the errors of the boxes, in an order that is always the same; move steps, or end."""
        sse, count = (np.array(e, np.float64).sum(0) for e in zip(*found, strict=True))
        self.follow(np.sqrt(sse / np.maximum(count, 1) / MARGIN) / self._limit)

    def follow(self, ratio: Array) -> None:
        """Take errors over their limits (V,), 0 where nothing is known; move steps, or end."""
        late = max(0, self._turn - self._apart + 1)
        aim = (_AIM_TIED if self.plan.ties_variables else _AIM) - _LESS * late
        seen = ratio > 0
        if not seen.any() or not np.isfinite(ratio).all():
            self._end()
            return
        self._learn(ratio)
        worst = float(ratio.max())
        gain = float((np.maximum(aim / ratio[seen], 1) - 1).mean())
        self._note(ratio[seen])
        if (worst <= 1 and (late or gain < _ENOUGH)) or (late and worst <= 1 + _LITTLE):
            self._end()
            return
        factor = self._factors(ratio, aim)
        factor[~seen | (ratio <= 1 if late else False)] = 1.0
        self._moved = self._moved * factor
        self.plan = finer_plan(self._given, self._moved)
        self._turn += 1
        if self._turn == self._turns:
            self._end()

    def _learn(self, ratio: Array) -> None:
        """Note how errors followed the steps that moved."""
        if self._last is not None:
            units, before = self._last
            moved, grown = np.log(self.plan.steps / units), np.log(np.maximum(ratio, 1e-9) / np.maximum(before, 1e-9))
            told = (np.abs(moved) > _MOVED) & (before > 0)
            self._power[told] = 1 / np.clip(grown[told] / moved[told], 1 / _STUBBORN[1], 1 / _STUBBORN[0])
        self._last = (self.plan.steps, ratio)

    def _factors(self, ratio: Array, aim: float) -> Array:
        ask: Array = aim / np.maximum(ratio, 1e-9)
        if not self.plan.ties_variables:
            return np.asarray(ask**self._power).clip(_LEAST, _MOST)
        # All move alike where the mean is over; only what is apart from it is stubborn.
        alike = min(1.0, float(np.exp(np.log(np.clip(ask[ratio > 0], _LEAST, _MOST)).mean())))
        apart = ask / alike
        factor: Array = alike**_ALIKE * apart ** np.where(apart > 1, _GROWING, self._power)
        return factor.clip(_LEAST, _MOST_TIED)

    def _note(self, ratio: Array) -> None:
        """Keep the plan that will be the coarsest once it holds."""
        worst = float(ratio.max())
        if worst > 1 + _SOME:
            return
        near = float(np.log(ratio).mean()) - (math.log(worst) + _RISK if worst > 1 else 0.0)
        if self._best is None or near > self._best.near:
            power = _SURELY if self.plan.ties_variables else float(self._power.max())
            self._best = _Seen(self.plan, worst, near, power)

    def _end(self) -> None:
        self.more = False
        if self._best is not None and self._keeps_best:
            self.plan = self._best.met()


def chunks_to_look_at(plan: GroupPlan) -> list[int]:
    """Give the numbers of all chunks or, of very many bytes, of evenly spread ones."""
    count = plan.geometry.num_chunks
    whole = math.prod(plan.geometry.shape) * plan.num_variables * plan.dtype.itemsize
    kept = max(1, min(count, count * _MOST_BYTES // max(whole, 1)))
    return [(2 * i + 1) * count // (2 * kept) for i in range(kept)]
