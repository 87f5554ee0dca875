# SPDX-License-Identifier: MIT
"""The point stage by multilevel interpolation: closed loop, each pass quantised against what the reader will know."""

from __future__ import annotations

import numpy as np

from hbae.arrays import Array
from hbae.bound import ROUNDING
from hbae.codecs import ByteReader
from hbae.codecs.contexts import SymbolReader, SymbolWriter
from hbae.codecs.neighbours import CLIP, GUIDES, guide_classes, next_guide, sets_of, sizes_of
from hbae.errors import FormatError
from hbae.exact.interpolate import FRACTION, first_points, passes, predict, top_level
from hbae.pipeline.plan import Levels

# Limits of the two neighbours' sizes, summed.
_LIMITS = np.array([*(1 << np.arange(8)), *range(224, 900, 96)])
_LEVEL, _NEAR, _SLOPE = 8, len(_LIMITS) + 1, 16
CONTEXTS = _LEVEL * _NEAR * _SLOPE * GUIDES
_NEAR_PART = (np.searchsorted(_LIMITS, np.arange(2 * CLIP + 1), side="right") * _SLOPE * GUIDES).astype(np.uint16)
_SLOPE_PART = np.array([n.bit_length() * GUIDES for n in range(1 << (_SLOPE - 1))], np.uint16)


def encode_levels(x: Array, levels: Levels, rounding: float) -> tuple[bytes, Array]:
    """Quantise x (V, *grid), in point units; give bytes and a reader's integers."""
    symbols = SymbolWriter(CONTEXTS)
    known = quantise_levels(x, levels, rounding, symbols)
    return symbols.getvalue(), known


def quantise_levels(x: Array, levels: Levels, rounding: float = ROUNDING, symbols: SymbolWriter | None = None) -> Array:
    """Quantise pass by pass against what a reader knows.

    Integers in 2**-6 units. ``symbols`` collects what to store.
    """
    scaled = x * float(1 << FRACTION)
    t = np.zeros(x.shape, np.int64)
    q = np.zeros(x.shape, np.uint16)
    start = first_points(x.shape)
    step = levels.step(top_level(x.shape[1:]))
    first = np.rint(scaled[start] / step).astype(np.int64)
    t[start] = first * step
    if symbols is not None:
        q[start] = sizes_of(first)
        symbols.add(first.ravel(), np.full(first.size, CONTEXTS - 1, np.uint16))
    for p in passes(x.shape, levels.order):
        want = scaled[p.target]
        guess, slope = predict(t[p.known], want.shape[p.axis], p.axis, cubic=levels.cubic)
        step = levels.step(p.level)
        k = _steps_of(want - guess, step, rounding)
        t[p.target] = k * step + guess
        if symbols is not None:
            contexts = _contexts(q[p.known], slope, p.axis, p.level)
            q[p.target] = sizes = sizes_of(k)
            guide = None
            for part in sets_of(len(k)):
                symbols.add(k[part].ravel(), _guided(contexts[part], guide))
                guide = next_guide(guide, sizes[part])
    return t


def _steps_of(e: Array, step: int, rounding: float) -> Array:
    """Round errors, which are written over, to steps; int64."""
    e /= step
    size = np.abs(e)
    size += rounding
    np.floor(size, out=size)
    return np.copysign(size, e, out=size).astype(np.int64)


def decode_levels(reader: ByteReader, shape: tuple[int, ...], levels: Levels) -> Array:
    """Give the integers (V, *grid) in 2**-6 units.

    Raises
    ------
    FormatError
        When the bytes are damaged.
    """
    if sorted(levels.order) != list(range(len(shape) - 1)):
        raise FormatError("levels: the order of axes does not fit the grid")
    t = np.zeros(shape, np.int64)
    q = np.zeros(shape, np.uint16)
    symbols = SymbolReader(reader, CONTEXTS)
    start = first_points(shape)
    size = t[start].size
    first = symbols.take(np.full(size, CONTEXTS - 1, np.uint16)).reshape(t[start].shape)
    t[start] = first * levels.step(top_level(shape[1:]))
    q[start] = sizes_of(first)
    for p in passes(shape, levels.order):
        target = t[p.target]
        guess, slope = predict(t[p.known], target.shape[p.axis], p.axis, cubic=levels.cubic)
        step = levels.step(p.level)
        contexts = _contexts(q[p.known], slope, p.axis, p.level)
        k, sizes = np.empty(guess.shape, np.int64), np.empty(guess.shape, np.uint16)
        guide = None
        for part in sets_of(len(k)):
            k[part] = symbols.take(_guided(contexts[part], guide)).reshape(k[part].shape)
            sizes[part] = sizes_of(k[part])
            guide = next_guide(guide, sizes[part])
        t[p.target] = guess + k * step
        q[p.target] = sizes
    symbols.end()
    return t


def _guided(contexts: Array, guide: Array | None) -> Array:
    """Contexts of a set of variables, flat, with the class of what the sets before it tell."""
    out: Array = contexts if guide is None else contexts + guide_classes(guide)
    return out.ravel()


def _contexts(near: Array, slope: Array, axis: int, level: int) -> Array:
    """Context from the level, the quantised errors of the two neighbours, and the slope >> 6."""
    n = np.moveaxis(near, axis, 0)
    count = slope.shape[axis]
    both = min(count, len(n) - 1)
    m = n[:count].copy()
    m[:both] += n[1 : both + 1]
    base = min(level, _LEVEL - 1) * _NEAR * _SLOPE * GUIDES
    ctx = np.moveaxis(_NEAR_PART[m], 0, axis) + _SLOPE_PART[np.minimum(slope >> FRACTION, len(_SLOPE_PART) - 1)]
    out: Array = ctx + np.uint16(base)
    return out
