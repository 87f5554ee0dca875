# SPDX-License-Identifier: MIT
"""Finds the setting at which a coder's loss, its error over its target, comes to just below 1."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Protocol

from hbae.arrays import Array
from hbae.compare.metrics import Errors

Point = tuple[float, float]  # log(setting), log(loss)

NEAR = 0.99  # a result of at least this part of its target is near enough
STEP = math.log(2)
FAR = 0.85  # a result below this part of its target earns more runs
LEAST = 1e-9
_AROUND = [0.7 * (1.8 / 0.7) ** (i / 19) for i in range(20)]


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run of a coder on one or more variables; ``loss`` is the worst error over its target.

    ``runs``: how many it took to find this one.
    """

    setting: float
    nbytes: int
    loss: float
    errors: tuple[Errors, ...]
    encode_seconds: float
    decode_seconds: float
    runs: int = 1
    decoded: tuple[Array, ...] = field(default=(), repr=False, compare=False)

    @property
    def reached(self) -> bool:
        """Tell whether every variable is within its target."""
        return self.loss <= 1


class Trial(Protocol):
    """A coder on given data, to be run at any setting up to ``top``, beyond which nothing is left to lose."""

    @property
    def steps(self) -> bool:
        """Tell whether the setting counts only to the power of two below it."""

    @property
    def top(self) -> float:
        """Largest setting."""

    def run(self, setting: float) -> Run:
        """Encode, decode and measure."""


def search(trial: Trial, x: float, slope: float, near: float, usual: int, more: int) -> Run:
    """Give the smallest result within the target (else the last), begun at log setting ``x``.

    ``usual`` runs, and ``more`` where none is within the target or near it.
    """
    aim = 0.0 if trial.steps else math.log((1 + near) / 2)
    near = 0.5 if trial.steps else near
    points: list[Point] = []
    best: Run | None = None
    while True:
        x = min(x, math.log(trial.top))
        if trial.steps:
            x = math.floor(x / STEP + 1e-6) * STEP
            if any(abs(x - p[0]) < STEP / 2 for p in points):
                if best is not None:
                    break
                x = min(p[0] for p in points) - STEP
        last = trial.run(2.0 ** round(x / STEP) if trial.steps else math.exp(x))
        points.append((x, _log(last.loss)))
        if last.reached and (best is None or last.nbytes < best.nbytes):
            best = last
        if last.reached and (last.loss >= near or x >= math.log(trial.top)):
            break
        far = best is None or (best.loss < FAR and not trial.steps)
        if len(points) >= usual + (more if far else 0):
            break
        slope = slope_at(points, aim, slope)
        x = following(points, aim, slope)
    return replace(best or last, runs=len(points))


def scan(trial: Trial, found: Run) -> Run:
    """Give the smallest result within the target among settings from 0.7 to 1.8 times the one found, and that one.

    Sizes and errors of small arrays jump with the setting, so that a search may end beside the best.
    """
    best, runs = found, found.runs
    for k in _AROUND:
        if found.setting * k > trial.top:
            break
        run = trial.run(found.setting * k)
        runs += 1
        if run.reached and (run.nbytes < best.nbytes or not best.reached):
            best = run
    return replace(best, runs=runs)


def scout(trial: Trial, x: float, aim: float, evaluations: int) -> list[Point]:
    """Give points of log setting and log loss, the last one within 5 % of the aim where the evaluations suffice."""
    points: list[Point] = []
    for _ in range(evaluations):
        x = min(x, math.log(trial.top))
        points.append((x, _log(trial.run(math.exp(x)).loss)))
        near = abs(points[-1][1] - aim) < (STEP / 2 if trial.steps else 0.05)
        if near or (x >= math.log(trial.top) and points[-1][1] < aim):
            break
        x = following(points, aim, slope_at(points, aim, 1.0))
    return points


def slope_at(points: list[Point], aim: float, default: float) -> float:
    """Give d log(loss) / d log(setting) of the two points nearest the aim; the default where there are no two."""
    (xa, ya), (xb, yb) = sorted(points, key=lambda p: abs(p[1] - aim))[:2] if len(points) > 1 else ((0.0, 0.0),) * 2
    if abs(xa - xb) < 1e-6:
        return default
    slope = (ya - yb) / (xa - xb)
    return min(slope, 2.0) if slope > 0.3 else default  # errors may jump up and down with the setting


def following(points: list[Point], aim: float, slope: float) -> float:
    """Give the next log setting: along the slope, at most a factor e^3, inside any bracket, and never one tried before.

    Errors need not grow with the setting: where all points are on one side of the aim, it moves on from the outermost.
    """
    below = max((p for p in points if p[1] <= aim), default=None)
    above = min((p for p in points if p[1] > aim), default=None)
    x, y = min(points, key=lambda p: abs(p[1] - aim)) if below and above else below or above or (0.0, aim)
    x += min(max((aim - y) / slope, -3.0), 3.0)
    if below and above and below[0] < above[0]:
        margin = 0.05 * (above[0] - below[0])
        return min(max(x, below[0] + margin), above[0] - margin)
    while any(abs(x - p[0]) < 0.01 for p in points):
        x += 0.02 if above is None else -0.02
    return x


def _log(loss: float) -> float:
    return math.log(min(max(loss, LEAST), 1 / LEAST))
