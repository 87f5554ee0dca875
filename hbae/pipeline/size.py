# SPDX-License-Identifier: MIT
"""A file of at most so many bytes: the tightest common bound whose archive fits, found in few whole passes."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from hbae.config import ErrorBound
from hbae.container import publish
from hbae.errors import SizeNotMetError
from hbae.pipeline.report import Report
from hbae.pipeline.stats import VariableStats
from hbae.ranks import Team, agreed

ANY_SIZE = "nrmse=1"
"""The bound that is scaled when only a size is asked for."""
_RELATIVE = ("nrmse", "block_nrmse", "rel_range", "pw_rel")
# Aimed at, and good enough, as parts of the size asked for.
_AIM, _ENOUGH = 0.985, 0.97
_FIRST, _TRY_LOSSLESS, _LEAST = 1e-3, 1e-6, 1e-17
_ESTIMATES, _PASSES = 6, 10
_CLOSE = 0.2
# Log bytes by log bound, until two sizes are known; where it is steeper than the second, as in noise, steps do not
# follow bounds and plans are chosen anew.
_SLOPE, _STEEP = -0.5, -1.5


class Attempt(Protocol):
    """One compression at one scale of the bounds."""

    def estimate(self) -> float:
        """Give the bytes to expect, from samples."""

    def write(self, out: str | os.PathLike[str]) -> Report:
        """Write the archive."""


Start = Callable[[float | None, bool], Attempt]
"""Starts an attempt at a scale, or without loss (None); True: plans of the attempt before may be used again."""


def scaled(bounds: Iterable[ErrorBound], scale: float) -> tuple[ErrorBound, ...]:
    """Give bounds that are looser by a factor: all values times it, decibels by as much."""
    return tuple(_scaled(b, scale) for b in bounds)


def _scaled(b: ErrorBound, scale: float) -> ErrorBound:
    if b.kind == "psnr":
        return replace(b, value=max(b.value - 20 * math.log10(scale), 1e-3))
    value = b.value * scale
    return replace(b, value=min(value, 0.999) if b.kind == "pw_rel" else value)


def loosest(bounds: Mapping[str, Iterable[ErrorBound]], stats: Mapping[str, VariableStats]) -> float:
    """Give the scale at which the last bound of any variable stops to ask for anything."""
    scales = [1e-300]
    for path, bs in bounds.items():
        span = stats[path].span if 0 < stats[path].span < math.inf else 1.0
        for b in bs:
            if b.kind == "psnr":
                scales.append(10.0 ** (b.value / 20))
            elif b.kind in _RELATIVE:
                scales.append(1 / b.value)
            else:
                scales.append(span / b.value * (math.sqrt(stats[path].valid) if b.kind == "l2" else 1))
    return min(max(scales), 1e300)


@dataclass(frozen=True, kw_only=True)
class Ask:
    """What is asked for: at most ``most`` bytes; ``top``: the loosest scale; in which order to try what."""

    most: int
    top: float
    overwrite: bool
    lossless_first: bool = False
    lossless_only: bool = False


@dataclass
class _Curve:
    """Known sizes by scale, and where the size asked for should lie."""

    most: int
    top: float
    points: list[tuple[float, float]] = field(default_factory=list)
    slope: float = _SLOPE

    def add(self, scale: float, size: float) -> None:
        """Take in a size; two near each other say how steep the curve is there."""
        self.points.append((math.log(scale), math.log(size)))
        if len(self.points) > 1:
            (a, m), (b, n) = self.points[-2:]
            if abs(a - b) > 1e-3:
                self.slope = min(-0.15, max(-30.0, (m - n) / (a - b)))

    @property
    def close(self) -> bool:
        """Tell whether the last size is near the one that is aimed at."""
        return abs(self.points[-1][1] - math.log(_AIM * self.most)) < _CLOSE

    def next(self) -> float:
        """Give the next scale to try, with six digits; the one before when nothing is left to try."""
        goal = math.log(_AIM * self.most)
        over = max((p for p in self.points if p[1] > math.log(self.most)), default=None)
        under = min((p for p in self.points if p[1] <= math.log(self.most)), default=None)
        at, size = self.points[-1]
        step = at + (goal - size) / self.slope
        step = min(max(step, at - 5), at + 5)
        if over is not None and under is not None:
            width = under[0] - over[0]
            if width < 1e-5:
                return math.exp(at)
            if not over[0] + 0.02 * width < step < under[0] - 0.02 * width:
                part = (over[1] - goal) / max(over[1] - under[1], 1e-9)
                step = over[0] + width * min(max(part, 0.1), 0.9)
        return self.clip(math.exp(step))

    def clip(self, scale: float) -> float:
        """Round, inside the ends."""
        return min(self.top, max(_LEAST * self.top, float(f"{scale:.6g}")))


def write_to_size(start: Start, out: str | os.PathLike[str], ask: Ask, team: Team) -> Report:
    """Write the archive of the tightest bound that was found to fit; larger than asked it never is.

    All ranks of a team search alike: what they go by is the same on all of them.

    Raises
    ------
    SizeNotMetError
        When no bound makes it so small; nothing is written.
    """
    path = Path(out)
    parent = path.absolute().parent
    folder = Path(agreed(team, lambda: tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".part", dir=parent)))
    try:
        search = _Search(start, ask, folder, team)
        best = search.run()
        agreed(team, lambda: publish(Path(best.path), path, ask.overwrite))
    finally:
        if team.rank == 0:
            shutil.rmtree(folder, ignore_errors=True)
    share = f"{best.size:,} of at most {ask.most:,} bytes ({best.size / ask.most:.1%}), {search.passes} whole passes"
    return replace(best, path=str(out), most_bytes=ask.most, notes=(f"size: {share}", *best.notes))


class _Search:
    """Estimates first, whole passes then; files that are not the best so far go at once."""

    def __init__(self, start: Start, ask: Ask, folder: Path, team: Team) -> None:
        self.start, self.ask, self.folder, self.team = start, ask, folder, team
        self.curve = _Curve(ask.most, ask.top)
        self.passes = 0
        self.plain = False

    def run(self) -> Report:
        """Give the report of the best file; its path lies inside the folder."""
        if self.ask.lossless_first and (plain := self._lossless()):
            return plain
        if self.ask.lossless_only:
            raise SizeNotMetError(f"size: the file without loss is larger than {self.ask.most:,} bytes")
        scale = self.curve.clip(_FIRST * self.ask.top)
        attempt = self.start(scale, False)
        guess = _Curve(self.ask.most, self.ask.top)
        for left in reversed(range(_ESTIMATES)):
            guess.add(scale, attempt.estimate())
            then = guess.next()
            if not left or guess.close or then == scale:
                break
            scale = then
            if scale < _TRY_LOSSLESS * self.ask.top and not self.plain and (plain := self._lossless()):
                return plain
            attempt = self.start(scale, False)
        self.curve.slope = guess.slope
        return self._narrowed(scale, attempt)

    def _narrowed(self, scale: float, attempt: Attempt) -> Report:
        """Write whole files until one fits and fills most of the size, or the tries are used up."""
        best: tuple[float, Report] | None = None
        while True:
            report = self._write(attempt)
            self.curve.add(scale, report.size)
            if report.size > self.ask.most:
                if scale >= self.ask.top:
                    raise SizeNotMetError(self._refusal(report))
                self._drop(report)
            elif best is None or scale < best[0]:
                if best is not None:
                    self._drop(best[1])
                best = scale, report
            else:
                self._drop(report)
            then = self.curve.next()
            if best is not None and (
                best[1].size >= _ENOUGH * self.ask.most or self.passes >= _PASSES or then == scale
            ):
                return best[1]
            if best is None and (then <= scale or self.passes >= _PASSES):
                then = self.curve.clip(max(then, scale * 2))
            scale = then
            attempt = self.start(scale, self.curve.slope > _STEEP)

    def _lossless(self) -> Report | None:
        """Give the archive without loss if it is small enough."""
        self.plain = True
        report = self._write(self.start(None, False))
        if report.size <= self.ask.most:
            return replace(report, notes=("no loss is needed for the size asked for", *report.notes))
        self._drop(report)
        return None

    def _write(self, attempt: Attempt) -> Report:
        self.passes += 1
        return self.team.share(attempt.write(self.folder / f"{self.passes}.hbae"))

    def _drop(self, report: Report) -> None:
        agreed(self.team, lambda: os.unlink(report.path))

    def _refusal(self, report: Report) -> str:
        bounds = ", ".join(sorted({b for v in report.variables for b in v.bounds})[:3])
        return (
            f"size: {self.ask.most:,} bytes cannot be met: even with {bounds} the file takes {report.size:,} bytes"
            f" ({report.size - report.sizes['chunks']:,} of them outside chunks)"
        )
