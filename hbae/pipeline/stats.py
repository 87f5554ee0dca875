# SPDX-License-Identifier: MIT
"""Pass 1: range, invalid points and undeclared sentinels of a variable, in one walk over its storage."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hbae.arrays import Array

KNOWN = (1e20, 1e30, 1e34, 1e35, 1e36, 9.96921e36, 9999.0, 99999.0, 999999.0, 32767.0, 32768.0)
_SHARE = 1e-4


@dataclass(frozen=True)
class Validity:
    """Tells which stored values count: finite ones that are no fill, missing or sentinel value.

    ``zeros``: zeros do not count either (pointwise relative bounds keep them exactly).
    """

    excluded: tuple[Any, ...] = ()
    zeros: bool = False

    def invalid(self, raw: Array) -> Array:
        """Give the invalid points of an array of stored values."""
        bad = ~np.isfinite(raw) if raw.dtype.kind == "f" else np.zeros(raw.shape, bool)
        for value in self.excluded:
            if value == value:
                bad |= raw == value
        if self.zeros:
            bad |= raw == 0
        return bad


@dataclass
class _End:
    """The two most extreme distinct values at one end, with the count of the first."""

    values: dict[float, int] = field(default_factory=dict)

    def take(self, a: Array, sign: int) -> None:
        pick = a.max if sign > 0 else a.min
        first = float(pick())
        same = a == first
        rest = a[~same]
        self.values[first] = self.values.get(first, 0) + int(same.sum())
        if rest.size:
            second = float(rest.max() if sign > 0 else rest.min())
            self.values[second] = self.values.get(second, 0) + int((rest == second).sum())
        self._keep(sign)

    def join(self, other: _End, sign: int) -> None:
        """Take in what was found in boxes that come later."""
        for v, count in other.values.items():
            self.values[v] = self.values.get(v, 0) + count
        self._keep(sign)

    def _keep(self, sign: int) -> None:
        keep = sorted(self.values, key=lambda v: -sign * v)[:2]
        self.values = {v: self.values[v] for v in keep}


@dataclass(frozen=True, kw_only=True)
class VariableStats:
    """What pass 1 found. ``low``, ``high``: range in physical units over valid values (NaN if there are none);
    ``valid``: their number; ``invalid``: number of the others; ``sentinels``: undeclared fill values found."""

    low: float
    high: float
    valid: int
    invalid: int
    validity: Validity
    sentinels: tuple[float, ...] = ()
    zeros: int = 0
    smallest: float = math.nan

    @property
    def span(self) -> float:
        """high - low in float64; 0 where there is nothing to bound."""
        span = self.high - self.low
        return span if math.isfinite(span) else math.inf if self.valid else 0.0


class StatsWalk:
    """Collects statistics box by box; sums and extremes do not depend on the order of boxes."""

    def __init__(self, validity: Validity) -> None:
        self._validity = validity
        self._top, self._bottom = _End(), _End()
        self._valid = self._invalid = self._zeros = 0
        self._smallest = math.inf

    def take(self, raw: Array) -> None:
        """Take in one box of stored values."""
        bad = self._validity.invalid(raw)
        count = int(bad.sum())
        self._invalid += count
        self._valid += raw.size - count
        good = raw[~bad] if count else raw.ravel()
        if not good.size:
            return
        self._top.take(good, 1)
        self._bottom.take(good, -1)
        if raw.dtype.kind == "f":
            nonzero = good[good != 0]
            self._zeros += good.size - nonzero.size
            if nonzero.size:
                self._smallest = min(self._smallest, float(np.abs(nonzero).min()))

    def join(self, other: StatsWalk) -> None:
        """Take in a walk over boxes that come later; the result is that of one walk over all."""
        self._top.join(other._top, 1)
        self._bottom.join(other._bottom, -1)
        self._valid += other._valid
        self._invalid += other._invalid
        self._zeros += other._zeros
        self._smallest = min(self._smallest, other._smallest)

    def result(self, packing: tuple[float, float] | None) -> VariableStats:
        """Judge sentinels and give the statistics in physical units."""
        validity, valid, invalid = self._validity, self._valid, self._invalid
        tops = sorted(self._top.values, reverse=True)
        bottoms = sorted(self._bottom.values)
        found: list[float] = []
        if packing is None and len(tops) > 1 and len(bottoms) > 1:
            inner_high, inner_low = tops[1], bottoms[1]
            high_odd = self._odd(tops[0], self._top.values[tops[0]], tops[0] - inner_high)
            low_odd = self._odd(bottoms[0], self._bottom.values[bottoms[0]], inner_low - bottoms[0])
            for both in ((high_odd, low_odd), (high_odd, False), (False, low_odd)):
                rest_high = inner_high if both[0] else tops[0]
                rest_low = inner_low if both[1] else bottoms[0]
                rest = rest_high - rest_low
                fits = rest > 0 and (not both[0] or tops[0] - rest_high > rest)
                fits = fits and (not both[1] or rest_low - bottoms[0] > rest)
                if any(both) and fits:
                    found = [v for v, odd in ((tops[0], both[0]), (bottoms[0], both[1])) if odd]
                    tops, bottoms = [rest_high], [rest_low]
                    break
            count = sum(self._top.values.get(v, self._bottom.values.get(v, 0)) for v in found)
            valid, invalid = valid - count, invalid + count
        low, high = (bottoms[0], tops[0]) if valid else (math.nan, math.nan)
        if packing is not None and valid:
            ends = sorted((low * packing[0] + packing[1], high * packing[0] + packing[1]))
            low, high = ends[0], ends[1]
        return VariableStats(
            low=low,
            high=high,
            valid=valid,
            invalid=invalid,
            validity=Validity((*validity.excluded, *found)),
            sentinels=tuple(found),
            zeros=self._zeros,
            smallest=self._smallest,
        )

    def _odd(self, value: float, count: int, gap: float) -> bool:
        """Repeated at an extreme: a known fill value at least twice, another one in more than 1 of 10,000 points."""
        if not gap > 0:
            return False
        known = any(math.isclose(abs(value), k, rel_tol=1e-5) for k in KNOWN)
        return count >= 2 if known else count >= max(16, _SHARE * self._valid)
