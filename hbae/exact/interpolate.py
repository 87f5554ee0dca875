# SPDX-License-Identifier: MIT
"""Multilevel interpolation on integers: coarse points first, finer ones predicted from them.

Positions are visited in passes. The first pass holds the points whose indices are all multiples of 2**L; then, for
strides s = 2**(L-1) .. 1 and for each axis in ``order``, the points at odd multiples of s along that axis (multiples
of s along the axes already done at this stride, of 2 s along the others). A point is predicted from known neighbours
along the axis, in integers with floor shifts, so that every machine predicts the same (the scheme of SZ3's
interpolation, on integers). NumPy is the reference; where ``_predicting.c`` is built, it predicts the same faster.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from hbae.arrays import Array

try:
    from hbae.exact import _predicting
except ImportError:
    _predicting = None  # type: ignore[assignment]

FRACTION = 6


@dataclass(frozen=True)
class Pass:
    """One pass over (V, *grid): ``target`` and ``known`` index the array; ``axis`` counts the variable axis."""

    level: int
    axis: int
    target: tuple[slice, ...]
    known: tuple[slice, ...]


def passes(shape: tuple[int, ...], order: tuple[int, ...]) -> Iterator[Pass]:
    """Walk over all passes but the first for an array (V, *grid); ``order`` holds grid axes, 0 for the first."""
    grid = shape[1:]
    stride = 1 << top_level(grid)
    level = top_level(grid)
    while stride > 1:
        s, level = stride // 2, level - 1
        for k, a in enumerate(order):
            if grid[a] <= s:
                continue
            base = [slice(None)] + [slice(0, None, stride)] * len(grid)
            for done in order[:k]:
                base[done + 1] = slice(0, None, s)
            target, known = list(base), list(base)
            target[a + 1] = slice(s, None, stride)
            known[a + 1] = slice(0, None, stride)
            yield Pass(level, a + 1, tuple(target), tuple(known))
        stride = s


def top_level(grid: tuple[int, ...]) -> int:
    """L: the smallest number with 2**L at least the longest axis."""
    return max(0, (max(grid, default=1) - 1).bit_length())


def first_points(shape: tuple[int, ...]) -> tuple[slice, ...]:
    """Index of the points of the first pass (one per variable)."""
    stride = 1 << top_level(shape[1:])
    return (slice(None), *(slice(0, None, stride) for _ in shape[1:]))


def predict(known: Array, count: int, axis: int, *, cubic: bool) -> tuple[Array, Array]:
    """Give predictions (int64) of ``count`` points that lie between the known ones along an axis, and the local slope.

    ``b`` and ``c`` are the known values before and after a point, ``a`` and ``d`` the next ones out. Cubic: (-a + 9 b
    + 9 c - d + 8) >> 4; without a: (3 b + 6 c - d + 4) >> 3; without d: (-a + 6 b + 3 c + 4) >> 3. Linear, and where
    neither a nor d exists: (b + c + 1) >> 1. Without c: b + ((b - a) >> 1), or b where there is no a. The slope is |c
    - b| (|b - a| without c).
    """
    if _predicting is not None:
        shape = (*known.shape[:axis], count, *known.shape[axis + 1 :])
        guess, rise = np.empty(shape, np.int64), np.empty(shape, np.int64)
        _predicting.predict(known, axis, cubic, guess, rise)
        return guess, rise
    k = np.moveaxis(known, axis, 0)
    m = len(k)
    b = k[:count]
    out = np.empty_like(b)
    slope = np.zeros_like(b)
    both = min(count, m - 1)
    np.add(k[:both], k[1 : both + 1], out=out[:both])
    out[:both] += 1
    out[:both] >>= 1
    np.abs(k[1 : both + 1] - k[:both], out=slope[:both])
    if cubic and m >= 3:
        inner = slice(1, min(both, m - 2))
        if inner.stop > inner.start:
            i, j = inner.start, inner.stop
            out[inner] = (9 * (k[i:j] + k[i + 1 : j + 1]) - k[i - 1 : j - 1] - k[i + 2 : j + 2] + 8) >> 4
        out[0] = (3 * k[0] + 6 * k[1] - k[2] + 4) >> 3
        if both >= 2 and both == m - 1:
            out[both - 1] = (6 * k[both - 1] + 3 * k[both] - k[both - 2] + 4) >> 3
    if count > both:
        last = count - 1
        out[last] = k[last]
        if last >= 1:
            out[last] += (k[last] - k[last - 1]) >> 1
            slope[last] = np.abs(k[last] - k[last - 1])
    return np.moveaxis(out, 0, axis), np.moveaxis(slope, 0, axis)


def level_steps(levels: int, alpha: float, cap: float) -> list[int]:
    """Quantiser step of each level in units of 2**-6: 64 at level 0, 64 / min(alpha**level, cap) rounded, above."""
    return [max(1, round((1 << FRACTION) / min(alpha**n, cap))) for n in range(levels + 1)]
