# SPDX-License-Identifier: MIT
"""Bounds in the variable's own units, once its range is known."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from hbae.arrays import Array
from hbae.config import ErrorBound

# Inner margin, so that any reader's own summation agrees; the tests have none.
MARGIN = 1 - 1e-9


@dataclass(frozen=True, kw_only=True)
class Region:
    """Limits of the points of a region, as in :class:`Target`; ``inside``: those points of the box at hand, or None."""

    name: str
    point: float = math.inf
    pw_rel: float = math.inf
    inside: Array | None = None


@dataclass(frozen=True, kw_only=True)
class Target:
    """What one variable must meet; infinity where nothing was asked.

    ``point``: largest error of any point, units. ``rmse``: RMSE of the variable, units. ``block_rmse``: RMSE of any
    block over its valid points, units. ``block_l2``: 2-norm of the error of any block, units. ``pw_rel``: largest
    error of any point over its magnitude. ``span``: the range used. ``regions``: where points have tighter limits; they
    count in ``by_point`` and ``tolerance`` only once they are asked for everywhere (:meth:`everywhere`). ``reserved``:
    stored values that mean that a point is missing, so that no other may come back as one.
    """

    point: float = math.inf
    rmse: float = math.inf
    block_rmse: float = math.inf
    block_l2: float = math.inf
    pw_rel: float = math.inf
    span: float = 0.0
    regions: tuple[Region, ...] = ()
    reserved: tuple[Any, ...] = ()

    def everywhere(self) -> Target:
        """Give the target that asks of every point what its regions ask of theirs."""
        point = min(self.point, *(r.point for r in self.regions)) if self.regions else self.point
        pw_rel = min(self.pw_rel, *(r.pw_rel for r in self.regions)) if self.regions else self.pw_rel
        return replace(self, point=point, pw_rel=pw_rel, regions=())

    @property
    def by_block(self) -> bool:
        """Tell whether blocks have limits of their own."""
        return math.isfinite(self.block_rmse) or math.isfinite(self.block_l2)

    @property
    def by_point(self) -> bool:
        """Tell whether points have limits of their own."""
        return math.isfinite(self.point) or math.isfinite(self.pw_rel)

    def tolerance(self, points: int) -> float:
        """An RMSE, in units, at which most limits are met: the scale for steps (``points``: P)."""
        values = (self.point / math.sqrt(3), self.rmse, self.block_rmse, self.block_l2 / math.sqrt(points))
        return min(values)


def resolve_target(bounds: Iterable[ErrorBound], span: float) -> Target:
    """Give the target of a variable with that range (max - min over valid values, or the user's ``range=``)."""
    t: dict[str, Any] = {
        "point": math.inf,
        "rmse": math.inf,
        "block_rmse": math.inf,
        "block_l2": math.inf,
        "pw_rel": math.inf,
    }

    def tighten(key: str, value: float) -> None:
        t[key] = min(t[key], value)

    regions: dict[str, Region] = {}
    for b in bounds:
        if b.region is not None:
            regions[b.region] = _tightened(regions.get(b.region, Region(name=b.region)), b, span)
        elif b.kind == "abs":
            tighten("point", b.value)
        elif b.kind == "rel_range":
            tighten("point", b.value * span)
        elif b.kind == "pw_rel":
            tighten("pw_rel", b.value)
        elif b.kind == "nrmse":
            tighten("rmse", b.value * span)
        elif b.kind == "psnr":
            tighten("rmse", 10.0 ** (-b.value / 20.0) * span)
        elif b.kind == "block_nrmse":
            tighten("block_rmse", b.value * span)
        else:
            tighten("block_l2", b.value)
    return Target(span=span, regions=tuple(regions.values()), **t)


def _tightened(r: Region, b: ErrorBound, span: float) -> Region:
    if b.kind == "pw_rel":
        return replace(r, pw_rel=min(r.pw_rel, b.value))
    return replace(r, point=min(r.point, b.value if b.kind == "abs" else b.value * span))
