# SPDX-License-Identifier: MIT
"""Judges decoded values against targets, in float64, on the type that the reader gets."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from hbae.arrays import Array
from hbae.blocks import block_sums
from hbae.bound.norms import VariableErrors
from hbae.bound.targets import MARGIN, Target


@dataclass(frozen=True)
class ChunkErrors:
    """Result for one chunk: per variable its errors, and whether its block and point limits hold."""

    variables: list[VariableErrors]
    blocks_hold: list[bool]
    points_hold: list[bool]

    @property
    def hold(self) -> bool:
        """Tell whether every block and point limit holds (global limits are judged over all chunks)."""
        return all(self.blocks_hold) and all(self.points_hold)


def check_chunk(
    original: Array, decoded: Array, valid: Array, targets: list[Target], block: tuple[int, ...], *, margin: bool
) -> ChunkErrors:
    """Measure a chunk (V, *grid), both float64; with ``margin`` limits are a hair tighter (for the encoder)."""
    variables, blocks_hold, points_hold = [], [], []
    for v, t in enumerate(targets):
        error = decoded[v] - original[v]
        ok = valid[v]
        variables.append(VariableErrors.of(error, ok))
        points_hold.append(not failing_points(error, original[v], ok, t, margin=margin).any())
        if t.by_block:
            sums = block_sums(np.where(ok, error * error, 0.0)[None], block)[0]
            limits = block_limits(block_sums(ok.astype(np.float64)[None], block)[0], t, margin=margin)
            blocks_hold.append(bool((sums <= limits).all()))
        else:
            blocks_hold.append(True)
    return ChunkErrors(variables, blocks_hold, points_hold)


def block_limits(counts: Array, target: Target, *, margin: bool) -> Array:
    """Largest sum of squared errors of blocks with that many valid points."""
    limit = np.full(counts.shape, math.inf)
    if math.isfinite(target.block_rmse):
        limit = np.minimum(limit, counts * (target.block_rmse * target.block_rmse))
    if math.isfinite(target.block_l2):
        limit = np.minimum(limit, target.block_l2 * target.block_l2)
    return limit * MARGIN if margin else limit


def failing_points(error: Array, original: Array, valid: Array, target: Target, *, margin: bool) -> Array:
    """Tell which valid points miss a pointwise limit (NaN counts as a miss), those of regions at hand included."""
    bad = np.zeros(error.shape, bool)
    regions = [r for r in target.regions if r.inside is not None]
    if not target.by_point and not regions:
        return bad
    size, floor = np.abs(error), np.abs(original)
    scale = MARGIN if margin else 1.0
    _add_misses(bad, size, floor, target.point * scale, target.pw_rel * scale)
    for r in regions:
        over = np.zeros(error.shape, bool)
        _add_misses(over, size, floor, r.point * scale, r.pw_rel * scale)
        bad |= over & r.inside
    return bad & valid


def _add_misses(bad: Array, size: Array, floor: Array, point: float, pw_rel: float) -> None:
    """Mark the points whose error is over a limit, or over a part of their magnitude."""
    if math.isfinite(point):
        bad |= ~(size <= point)
    if math.isfinite(pw_rel):
        bad |= ~(size <= floor * pw_rel)
