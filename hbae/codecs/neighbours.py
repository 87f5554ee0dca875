# SPDX-License-Identifier: MIT
"""Phases of a band of integers: one parity of its indices after the other, with contexts from known neighbours.

Even sums of parities come first, then odd ones, whose nearest neighbours are then all known. NumPy is the reference;
where ``_neighbours.c`` is built, it does the same faster.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from hbae.arrays import Array

try:
    from hbae.codecs import _neighbours
except ImportError:
    _neighbours = None  # type: ignore[assignment]

# Sizes: magnitudes up to _LINEAR, from there on _OCTAVE more for each doubling, at most CLIP.
_LINEAR, _OCTAVE, CLIP = 64, 48, 511
_FAR = np.array(
    [(_LINEAR << k) + ((_LINEAR << k) * i + _OCTAVE - 1) // _OCTAVE for k in range(10) for i in range(_OCTAVE)]
)[1 : CLIP - _LINEAR + 1]
# Limits of the mean size of neighbours, in 16ths.
_LIMITS = np.array([1, 2, 3, 5, 8, 12, 18, 28, 44, 68, 108, 172, 270, 424, 664, *range(1024, 16 * CLIP, 496)])
NEAR = len(_LIMITS) + 1
_NOTHING = np.zeros(0, np.uint16)


@dataclass(frozen=True)
class Phase:
    """One parity: which points of a band it holds, and its known neighbours, as steps by axis with weights."""

    parity: tuple[int, ...]
    near: tuple[tuple[tuple[int, ...], int], ...]

    @property
    def target(self) -> tuple[slice, ...]:
        """The points of a band (V, *shape)."""
        return (slice(None), *(slice(a, None, 2) for a in self.parity))

    @property
    def kind(self) -> int:
        """0 where nothing is known, 1 for even sums of parities, 2 for odd ones."""
        return 1 + sum(self.parity) % 2 if self.near else 0

    def contexts(self, known: Array, parent: Array | None, stride: int, base: int) -> Array:
        """Class of the mean size of known neighbours times ``stride``, the parent's part, and ``base``; flat uint16.

        ``known``: sizes (V, *shape + 2), with a border of zeros. ``parent``: uint16 (V, *shape).
        """
        counts = self._counts(known)
        weights = tuple(w for _, w in self.near)
        table = class_of(sum(weights), stride)
        if _neighbours is not None:
            steps = [s // known.itemsize for s in known.strides[1:]]
            places = tuple(sum(k * s for k, s in zip(d, steps, strict=True)) for d, _ in self.near)
            shape = (len(known), *(n - 2 for n in known.shape[1:]))
            out = np.empty(counts, np.uint16)
            up = _NOTHING if parent is None else parent
            _neighbours.phase_contexts(known, shape, self.parity, places, weights, table, up, base, out)
            return out.ravel()
        level = np.zeros(counts, np.uint16)
        for d, weight in self.near:
            starts = [1 + a + k for a, k in zip(self.parity, d, strict=True)]
            place = (slice(s, s + 2 * c - 1, 2) for s, c in zip(starts, counts[1:], strict=True))
            level += known[(slice(None), *place)] * np.uint16(weight)
        level = table[level]
        if parent is not None:
            level += parent[self.target]
        level += np.uint16(base)
        return level.ravel()

    def load(self, spot: Spot, known: Array) -> Array:
        """Give this parity's values of a band (int64, flat), and note their sizes in ``known``."""
        out = np.empty(self._counts(known), np.int64)
        self._move(spot, known, out, store=False)
        return out.ravel()

    def store(self, spot: Spot, known: Array, values: Array) -> None:
        """Put this parity's values into the band, and note their sizes in ``known``."""
        self._move(spot, known, values.reshape(self._counts(known)), store=True)

    def _counts(self, known: Array) -> tuple[int, ...]:
        return (len(known), *((n - 1 - a) // 2 for n, a in zip(known.shape[1:], self.parity, strict=True)))

    def _move(self, spot: Spot, known: Array, values: Array, *, store: bool) -> None:
        if _neighbours is not None:
            shape = tuple(n - 2 for n in known.shape[1:])
            _neighbours.move(known, shape, self.parity, values, spot.grid, spot.firsts, spot.steps, store)
            return
        target = (
            spot.rows,
            *(slice(p.start + a * p.step, None, 2 * p.step) for p, a in zip(spot.place, self.parity, strict=True)),
        )
        if store:
            spot.grid[target] = values
        else:
            values[...] = spot.grid[target]
        inner = (slice(None), *(slice(1 + a, -1, 2) for a in self.parity))
        known[inner] = sizes_of(values)


@dataclass(frozen=True, eq=False)
class Spot:
    """A band of some variables in a grid (V, ...) of integers, held in float64.

    ``place``: slices with start and step, without stop.
    """

    grid: Array
    place: tuple[slice, ...]
    rows: Array

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the band of one variable."""
        return tuple(len(range(*p.indices(n))) for p, n in zip(self.place, self.grid.shape[1:], strict=True))

    @cached_property
    def steps(self) -> tuple[int, ...]:
        """Places in the flat grid from one index of the band to the next, by axis."""
        strides = (s // self.grid.itemsize for s in self.grid.strides[1:])
        return tuple(s * p.step for s, p in zip(strides, self.place, strict=True))

    @cached_property
    def firsts(self) -> Array:
        """Place of each variable's band in the flat grid (int64)."""
        strides = [s // self.grid.itemsize for s in self.grid.strides]
        out: Array = self.rows * strides[0] + sum(s * p.start for s, p in zip(strides[1:], self.place, strict=True))
        return out


def sizes_of(values: Array) -> Array:
    """Give the sizes (int64) of integers: linear, then by the logarithm, so that contexts tell large ones apart."""
    magnitudes: Array = np.abs(values)
    big = magnitudes > _LINEAR
    if not big.any():
        return magnitudes
    return np.where(big, _LINEAR + np.searchsorted(_FAR, magnitudes, side="right"), magnitudes)


@lru_cache(maxsize=256)
def class_of(total: int, stride: int = 1) -> Array:
    """Class of the mean, times ``stride``, for every weighted sum of sizes; ``total``: the weights' sum."""
    sums = np.arange(CLIP * total + 1)
    classes = (np.searchsorted(_LIMITS, sums * 16 // max(total, 1), side="right") * stride).astype(np.uint16)
    classes.setflags(write=False)
    return classes


@lru_cache(maxsize=4096)
def phases_of(shape: tuple[int, ...]) -> tuple[Phase, ...]:
    """Parities of a band in coding order; axes of length 1 have one parity.

    Neighbours are one step away along one axis (weight 2) or two (weight 1).
    """
    parities = list(itertools.product(*((0, 1) if n > 1 else (0,) for n in shape)))
    parities.sort(key=lambda p: (sum(p) % 2, p))
    steps = [d for d in itertools.product((-1, 0, 1), repeat=len(shape)) if 1 <= sum(map(abs, d)) <= 2]
    steps = [d for d in steps if all(n > 1 or not k for n, k in zip(shape, d, strict=True))]
    known: set[tuple[int, ...]] = set()
    out = []
    for p in parities:
        near = [
            (d, 3 - sum(map(abs, d))) for d in steps if tuple((a + k) % 2 for a, k in zip(p, d, strict=True)) in known
        ]
        out.append(Phase(p, tuple(near)))
        known.add(p)
    return tuple(out)
