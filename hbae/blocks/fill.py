# SPDX-License-Identifier: MIT
"""Smooth, deterministic values for points that are masked out, so that transforms see no cliffs."""

from __future__ import annotations

import numpy as np

from hbae.arrays import Array


def fill_invalid(x: Array, valid: Array) -> Array:
    """Give (V, *grid) float64 with invalid points replaced by means of ever larger cells around them.

    Valid points stay as they are; a variable without valid points becomes zero. (Pull-push over a pyramid of factor 2.)
    """
    if valid.all():
        return x
    out = np.where(valid, x, 0.0)
    for v in range(len(out)):
        if not valid[v].all():
            out[v] = _fill(out[v], valid[v])
    return out


def _fill(x: Array, valid: Array) -> Array:
    if valid.all():
        return x
    if not valid.any() or max(x.shape, default=1) == 1:
        mean = x[valid].mean() if valid.any() else 0.0
        return np.where(valid, x, mean)
    total, count = np.where(valid, x, 0.0), valid.astype(np.float64)
    for axis in range(x.ndim):
        total, count = _pair_sums(total, axis), _pair_sums(count, axis)
    coarse = _fill(total / np.maximum(count, 1), count > 0)
    for axis, n in enumerate(x.shape):
        coarse = np.repeat(coarse, 2, axis=axis)[
            tuple(slice(0, n) if a == axis else slice(None) for a in range(x.ndim))
        ]
    return np.where(valid, x, coarse)


def _pair_sums(x: Array, axis: int) -> Array:
    """Sums of two neighbours each along an axis; a last one without a neighbour stays."""
    along = np.moveaxis(x, axis, 0)
    out = along[::2].copy()
    out[: len(along) // 2] += along[1::2]
    return np.moveaxis(out, 0, axis)
