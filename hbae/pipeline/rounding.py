# SPDX-License-Identifier: MIT
"""Rounds coefficients where the bits that it saves are worth the error: the encoder's business only.

NumPy is the reference; where ``_rounding.c`` is built, it chooses the same faster.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from hbae.arrays import Array
from hbae.codecs.related import Relation

try:
    from hbae.pipeline import _rounding
except ImportError:
    _rounding = None  # type: ignore[assignment]

# Squared steps that a bit is worth. Measured on three fields from 1e-2 to 1e-4: 0.06 to 0.14 differ by less than 1 %.
WORTH = 0.1
# The same where relations of variables are close: what they tell of costs fewer bits than its neighbours make believe.
_CLOSE_WORTH = 0.06
# What the first rounding adds before it cuts.
FIRST = 0.4
SYMBOLS = 40
TOP = 60
# Limits of the mean magnitude of the nearest neighbours in the band.
_LIMITS = np.array([0.01, 0.2, 0.35, 0.55, 0.8, 1.2, 2, 3, 5, 9, 16, 30])
CLASSES = len(_LIMITS) + 1
# First indices and steps of a band, by axis.
Place = tuple[tuple[int, ...], tuple[int, ...]]


def worth_of(related: Relation, *, nearest: bool) -> float:
    """Squared steps that a bit of a wavelet's coefficients is worth; none where single points have limits."""
    return 0.0 if nearest else _CLOSE_WORTH if related == "rests" else WORTH


def round_by_worth(c: Array, places: Sequence[tuple[slice, ...]], axes: Sequence[int], worth: float = WORTH) -> Array:
    """Round coefficients c (V, ...), in steps, to the nearest integer or the next one towards zero; in place, float64.

    A first rounding tells what magnitudes cost, by the mean magnitude of their neighbours along ``axes`` of one of the
    ``places`` (bands), which together hold every coefficient of a variable. The smaller one is taken where the bits
    that it saves are worth more than the squared error that it adds: so many squared steps are a bit's ``worth``, and
    with none of it every coefficient becomes the nearest integer.
    """
    if not worth:
        return np.rint(c, out=c)
    classes: Array = np.empty(c.shape, np.uint16)
    counts = np.zeros(CLASSES * SYMBOLS, np.int64)
    # One variable at a time fits the cache.
    fixed = tuple(_fixed(p, c.ndim - 1) for p in places)
    for v, values in enumerate(c):
        _classify(values, fixed, axes, classes[v], counts)
    lowest = lowest_of(counts.reshape(CLASSES, SYMBOLS), worth).ravel()
    for v, values in enumerate(c):
        _settle(values, classes[v], lowest)
    return c


def _fixed(place: tuple[slice, ...], rank: int) -> Place:
    full = (*place, *(slice(None),) * (rank - len(place)))
    return tuple(p.start or 0 for p in full), tuple(p.step or 1 for p in full)


def _classify(values: Array, places: tuple[Place, ...], axes: Sequence[int], classes: Array, counts: Array) -> None:
    """Note 40 times the class of each coefficient of some bands, and count first roundings by class."""
    if _rounding is not None:
        counted = tuple(int(a in axes) for a in range(values.ndim))
        _rounding.classify(values, values.shape, places, counted, class_of(2 * len(axes)), classes, counts)
        return
    for starts, steps in places:
        place = tuple(slice(a, None, k) for a, k in zip(starts, steps, strict=True))
        first = np.minimum(np.floor(np.abs(values[place]) + FIRST), TOP).astype(np.uint16)
        found = _classes(first, axes) * np.uint16(SYMBOLS)
        classes[place] = found
        counts += np.bincount((found + np.minimum(first, SYMBOLS - 1)).ravel(), minlength=len(counts))


def _settle(values: Array, classes: Array, lowest: Array) -> None:
    if _rounding is not None:
        _rounding.settle(values, classes, lowest)
        return
    size = np.abs(values)
    near = np.rint(size)
    if near.any():
        limit = lowest[classes + np.minimum(near, SYMBOLS - 1).astype(np.uint16)]
        near -= size - near < limit
    np.copysign(near, values, out=values)
    # No zeros with a sign.
    values += 0.0


def _classes(first: Array, axes: Sequence[int]) -> Array:
    """Class of the mean magnitude of the two neighbours along each axis; beyond the edges there is nothing."""
    total = np.zeros(first.shape, np.uint16)
    for axis in axes:
        here, there = np.moveaxis(first, axis, 0), np.moveaxis(total, axis, 0)
        there[1:] += here[:-1]
        there[:-1] += here[1:]
    out: Array = class_of(2 * len(axes))[total]
    return out


@lru_cache(maxsize=16)
def class_of(neighbours: int) -> Array:
    """Class of the mean for every sum over so many neighbours, uint16."""
    sums = np.arange(TOP * neighbours + 1)
    return np.searchsorted(_LIMITS, sums / max(neighbours, 1), side="right").astype(np.uint16)


def lowest_of(counts: Array, worth: float) -> Array:
    """For a class and a magnitude n: how far below n a coefficient may lie and still become n."""
    seen = counts + 0.02
    bits = -np.log2(seen / seen.sum(axis=1, keepdims=True))
    # The sign.
    bits[:, 1:] += 1
    saved = np.diff(bits, axis=1, prepend=0.0)
    # (s - n + 1)^2 + worth * bits(n - 1) < (s - n)^2 + worth * bits(n); a tail without counts must not decide.
    limit: Array = np.clip((worth * saved - 1) / 2, -0.5, 0.0)
    limit[:, [0, SYMBOLS - 1]] = -1.0
    return limit
