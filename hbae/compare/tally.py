# SPDX-License-Identifier: MIT
"""Pairs of original and decoded values box by box, and what is counted of a quantity derived from them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field

import numpy as np

from hbae.arrays import Array, Box, Field, Source, Variable, boxes_of
from hbae.compare.load import invalid
from hbae.io import packing
from hbae.pipeline.archive import Archive

MOST_POINTS = 1 << 22


@dataclass(frozen=True, kw_only=True)
class QuantityRow:
    """One derived quantity before and after: mean of both, RMS, relative (RMS over ``scale``) and largest error.

    ``scale`` is the range of the quantity before, or what the quantity itself names; units as the quantity's.
    """

    name: str
    before: float
    after: float
    rmse: float
    relative: float
    max_error: float
    count: int

    def to_json(self) -> dict[str, float | int | str]:
        """Give everything as JSON values."""
        return asdict(self)


@dataclass
class Tally:
    """Collects a quantity box by box; points where it is not finite before do not count, after they are infinitely
    wrong."""

    name: str
    count: int = 0
    sums: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    low: float = math.inf
    high: float = -math.inf
    worst: float = 0.0

    def add(self, before: Array, after: Array) -> None:
        """Take in values of equal shape, float64."""
        ok = np.isfinite(before)
        x, y = before[ok], after[ok]
        if not x.size:
            return
        e = np.where(np.isfinite(y), y - x, math.inf)
        self.count += x.size
        for i, part in enumerate((x, y, e * e)):
            self.sums[i] += float(part.sum())
        self.low, self.high = min(self.low, float(x.min())), max(self.high, float(x.max()))
        self.worst = max(self.worst, float(np.abs(e).max()))

    def row(self) -> QuantityRow:
        """Give what was found; NaN without a point."""
        n = self.count or math.nan
        rmse = math.sqrt(self.sums[2] / n)
        return QuantityRow(
            name=self.name,
            before=self.sums[0] / n,
            after=self.sums[1] / n,
            rmse=rmse,
            relative=relative(rmse, self.high - self.low),
            max_error=self.worst,
            count=self.count,
        )


def relative(error: float, scale: float) -> float:
    """Give error over scale; 0 without error, infinite where only the scale is 0."""
    if error == 0:
        return 0.0
    return error / scale if scale > 0 else math.inf if error > 0 else math.nan


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Decoded values beside their original.

    Attributes
    ----------
    paths : set of str
        Variables whose quantities are asked for.
    decoded : mapping of path to source
        Decoded values; a variable without any is as it was.
    steps : mapping of path to shape
        Boxes to walk over, where they are known.
    limits : mapping of path to (low, high)
        Stored values outside do not count.
    lost : set of str
        Variables that nobody knows decoded values of: no quantity may use them.
    """

    original: Field
    paths: frozenset[str]
    decoded: Mapping[str, Source]
    steps: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    limits: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    lost: frozenset[str] = frozenset()

    @staticmethod
    def of_archive(archive: Archive, original: Field) -> Pairs:
        """Give the pairs of an archive, whose quantities are those of its lossy variables."""
        return Pairs(
            original=original,
            paths=frozenset(p for part in archive.parts if part.group is not None for p in part.paths),
            decoded={v.path: v.source for v in archive.field.variables()},
            steps={p: tuple(part.boxes.step) for part in archive.parts for p in part.paths},
        )

    def chosen(self) -> list[Variable]:
        """Variables of the original whose quantities are asked for, in order."""
        return [v for v in self.original.variables() if v.path in self.paths]

    def read(self, v: Variable, box: Box) -> tuple[Array, Array]:
        """Give a box before and after, float64, unpacked; NaN where the original is missing."""
        raw = np.asarray(v.source.read(box), v.dtype)
        after = np.asarray(self.decoded[v.path].read(box)) if v.path in self.decoded else raw
        scale, shift = packing(v) or (1.0, 0.0)
        x, y = (a.astype(np.float64) * scale + shift for a in (raw, after))
        x[invalid(raw, v, self.limits.get(v.path))] = math.nan
        return x, y

    def boxes(self, v: Variable, whole: tuple[int, ...] = ()) -> Iterator[Box]:
        """Walk over boxes of whole or cut chunks, about ``MOST_POINTS`` at most; axes in ``whole`` are not cut."""
        step = [min(s, n) for s, n in zip(self.steps.get(v.path, v.shape), v.shape, strict=True)]
        for a in whole:
            step[a] = v.shape[a]
        while math.prod(step) > MOST_POINTS:
            free = [a for a in range(len(step)) if a not in whole and step[a] > 1]
            if not free:
                break
            longest = max(free, key=lambda a: step[a])
            step[longest] = -(-step[longest] // 2)
        return boxes_of(v.shape, tuple(max(1, s) for s in step))

    def small(self, v: Variable) -> Array:
        """Give a whole variable of the original, float64, unpacked."""
        scale, shift = packing(v) or (1.0, 0.0)
        raw = v.source.read(tuple(slice(0, n) for n in v.shape))
        return np.asarray(raw, v.dtype).astype(np.float64) * scale + shift

    def sibling(self, v: Variable, name: str) -> Variable | None:
        """Find a variable of that name in the same group or at the root."""
        paths = (f"{v.group}/{name}" if v.group else name, name)
        return next((o for p in paths for o in self.original.variables() if o.path == p), None)
