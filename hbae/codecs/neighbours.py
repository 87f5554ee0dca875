# SPDX-License-Identifier: MIT
"""Phases of a band of integers: one parity of its indices after the other, with contexts from known neighbours.

Even sums of parities come first, then odd ones, whose nearest neighbours are then all known. NumPy is the reference;
where ``_neighbours.c`` is built, it does the same faster.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from copy import copy
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
# Limits of a point's expected size, in 16ths: half octaves below 64.
_EXPECTED = np.array([1, 2, 3, 4, 6, 8, 11, 16, 23, 32, 45, 64, 91, 128, 181, 256, 362, 512, 724, *_LIMITS[15:]])
# Of 16 parts of what is expected, those that known neighbours give, by kind; with more than _FEW_AXES there are so many
# of them that their mean says it all. All parts where nothing else is known.
_PARTS, _PARTS_MANY, _FEW_AXES, _ALL = (0, 11, 14), (0, 15, 16), 3, 16
# Classes of the guide, the lowest bits of hints.
_GUIDE_LIMITS, GUIDE_BITS = np.array([2, 8, 24, 64]), 3
GUIDES = len(_GUIDE_LIMITS) + 1
GUIDE_CLASS = np.searchsorted(_GUIDE_LIMITS, np.arange(16 * CLIP + 1), side="right").astype(np.uint16)
# Phases double with each axis.
MOST_LONG_AXES = 7
_KINDS, _SIZES = 3, len(_EXPECTED) + 1
PHASE_CONTEXTS = _KINDS * _SIZES * GUIDES + 1
# Parities, places of known neighbours, parts (16ths) of their mean size for each sum, parts of hints, first context.
FixedPhase = tuple[tuple[int, ...], tuple[int, ...], Array, int, int]
_NOTHING, _NO_TOLD, _NO_VALUES = np.zeros(0, np.uint16), np.zeros(0, np.uint8), np.zeros(0, np.int16)


@dataclass(frozen=True)
class Phase:
    """One parity: which points of a band it holds, and its known neighbours.

    ``near``: as steps by axis. ``places``: as steps in the flat sizes of a band with their border. ``many``: whether
    the band has more long axes than a few. ``shape``: of the band. ``counts``: how many of its points are of this
    parity, by axis.
    """

    parity: tuple[int, ...]
    near: tuple[tuple[int, ...], ...]
    places: tuple[int, ...]
    many: bool
    shape: tuple[int, ...]
    counts: tuple[int, ...]

    @property
    def target(self) -> tuple[slice, ...]:
        """The points of a band (V, *shape)."""
        return (slice(None), *(slice(a, None, 2) for a in self.parity))

    @cached_property
    def kind(self) -> int:
        """0 where nothing is known, 1 for even sums of parities, 2 for odd ones."""
        return 1 + sum(self.parity) % 2 if self.near else 0

    def contexts(self, known: Array, hints: Array | None, classes: int = 0, told: Array | None = None) -> Array:
        """Join known neighbours with what other bands and variables tell; flat uint16.

        ``known``: sizes (V, *shape + 2), with a border of zeros. ``hints``: uint16 (V, *shape), the size that is
        expected from elsewhere in 16ths, and below it the class of the guide in ``GUIDE_BITS`` bits. ``classes``: not 0
        where the other coordinate of a context is, in place of the guide, one of so many classes of what is ``told``
        (uint8, flat, twice the class; class 0 where it is None).
        """
        counts = (len(known), *self.counts)
        fixed = self.fixed(hints is not None, classes)
        if _neighbours is not None:
            rest, more = _NOTHING if hints is None else hints, _NO_TOLD if told is None else told
            out = np.empty(counts, np.uint16)
            _, places, table, parts, base = fixed
            call = (known, self.shape, self.parity, places, table, rest, parts, classes_of(classes), base)
            _neighbours.phase_contexts(*call, more, classes > 0, out)
            return out.ravel()
        _, _, table, parts, base = fixed
        total = np.zeros(counts, np.uint16)
        for d in self.near:
            starts = [1 + a + k for a, k in zip(self.parity, d, strict=True)]
            place = (slice(s, s + 2 * c - 1, 2) for s, c in zip(starts, counts[1:], strict=True))
            total += known[(slice(None), *place)]
        expected, other = table[total], np.zeros((), np.uint16)
        if hints is not None:
            rest = hints[self.target]
            expected = expected + (rest >> GUIDE_BITS) * np.uint32(parts)
            other = rest & np.uint16((1 << GUIDE_BITS) - 1)
        if classes:
            other = np.zeros((), np.uint16) if told is None else (told >> 1).reshape(counts)
        out = classes_of(classes)[expected >> 4] + other + np.uint16(base)
        return out.ravel()

    def fixed(self, hinted: bool, classes: int) -> FixedPhase:
        """Give what :meth:`contexts` needs of a phase, with or without hints."""
        alone = not hinted and not self.near
        parts = (_PARTS_MANY if self.many else _PARTS)[self.kind] if hinted else _ALL
        base = (_KINDS if alone else self.kind) * _SIZES * (classes or GUIDES)
        return self.parity, self.places, _mean_parts(len(self.near), parts), _ALL - parts, base

    def load(self, spot: Spot, known: Array, expected: Array | None = None) -> Array:
        """Give this parity's values of a band (int64, flat), and note their sizes in ``known``.

        ``expected`` (int16, flat): what is expected of them; sizes are those of the rest.
        """
        out = np.empty((len(known), *self.counts), np.int64)
        self._move(spot, known, out, expected, store=False)
        return out.ravel()

    def store(self, spot: Spot, known: Array, values: Array, expected: Array | None = None) -> None:
        """Put this parity's values (int64 or int16) into the band, and note their sizes in ``known``, as :meth:`load`.

        Both hold zeros before.
        """
        self._move(spot, known, values.reshape(len(known), *self.counts), expected, store=True)

    def _move(self, spot: Spot, known: Array, values: Array, expected: Array | None, *, store: bool) -> None:
        if _neighbours is not None:
            off, where = _NO_VALUES if expected is None else expected, (spot.grid, spot.firsts, spot.steps)
            _neighbours.move(known, self.shape, self.parity, values, off, *where, store, values.itemsize == 2)
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
        known[inner] = sizes_of(
            values if expected is None else values - expected.reshape(values.shape).astype(np.int64)
        )


class Spot:
    """A band of some variables in a contiguous grid (V, ...) of integers, held in float64.

    ``grid``; ``place``: slices with start and step, without stop; ``rows``: the variables. ``shape``: of one variable's
    band. ``steps``: places in the flat grid from one index of the band to the next, by axis. ``firsts``: place of
    each variable's band in it (int64).
    """

    def __init__(self, grid: Array, place: tuple[slice, ...], rows: Array) -> None:
        self.grid, self.place, self.rows = grid, place, rows
        self.shape, self.steps, first = lattice_of(grid.shape[1:], place)
        self.firsts: Array = rows * math.prod(grid.shape[1:]) + first

    def of(self, part: slice) -> Spot:
        """Give the band of some of the variables."""
        some = copy(self)
        some.rows, some.firsts = self.rows[part], self.firsts[part]
        return some


def lattice_of(grid: tuple[int, ...], place: tuple[slice, ...]) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """Give shape, steps in the flat grid by axis, and first place of what lies at ``place`` in a contiguous grid."""
    return _lattice(grid, tuple(p.start for p in place), tuple(p.step for p in place))


@lru_cache(maxsize=4096)
def _lattice(
    grid: tuple[int, ...], starts: tuple[int, ...], steps: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """Many chunks have one shape."""
    flat = [math.prod(grid[a + 1 :]) for a in range(len(grid))]
    return (
        tuple(len(range(a, n, k)) for n, a, k in zip(grid, starts, steps, strict=True)),
        tuple(s * k for s, k in zip(flat, steps, strict=True)),
        sum(s * a for s, a in zip(flat, starts, strict=True)),
    )


def sizes_of(values: Array) -> Array:
    """Give the sizes (uint16) of int64: linear, then by the logarithm, so that contexts tell large ones apart."""
    if _neighbours is not None:
        out = np.empty(values.shape, np.uint16)
        _neighbours.sizes(np.ascontiguousarray(values, np.int64), out)
        return out
    magnitudes = np.abs(values)
    far = _LINEAR + np.searchsorted(_FAR, magnitudes, side="right")
    return np.where(magnitudes > _LINEAR, far, magnitudes).astype(np.uint16)


def hints_around(guide: Array, shape: tuple[int, ...], box: tuple[int, ...]) -> Array:
    """Give the mean of a guide around each point of a box, most of it its own, and the class of the guide there.

    ``guide``: 16ths, uint16 (V, *shape + 2), with a border of zeros. uint16 (V, *box) as :meth:`Phase.contexts` wants.
    """
    axes = [a for a, n in enumerate(shape, 1) if n > 1]
    weight, count = 4 + 2 * len(axes), len(guide)
    if _neighbours is not None:
        strides = [s // guide.itemsize for s in guide.strides]
        places = tuple(sign * strides[a] for a in axes for sign in (-1, 1))
        out = np.empty((count, *box), np.uint16)
        _neighbours.hints(guide, (count, *shape), out.shape, places, weight, GUIDE_CLASS, out)
        return out
    own = guide[(slice(None), *(slice(1, n + 1) for n in box))]
    total = own * np.uint32(weight)
    for axis in axes:
        for sign in (-1, 1):
            near = (slice(1 + sign * (a == axis), n + 1 + sign * (a == axis)) for a, n in enumerate(box, 1))
            total += guide[(slice(None), *near)]
    mean = (total // np.uint32(weight + 2 * len(axes))).astype(np.uint16)
    hints: Array = (mean << GUIDE_BITS) + GUIDE_CLASS[own]
    return hints


@lru_cache(maxsize=1024)
def fixed_phases(shape: tuple[int, ...], hinted: bool, classes: int) -> tuple[FixedPhase, ...]:
    """Give what kernels need of each phase of a band: many bands have one shape."""
    return tuple(p.fixed(hinted, classes) for p in phases_of(shape))


def sets_of(count: int, few: int | None = None) -> Iterator[slice]:
    """Split variables into sets of 1, 2, 4, ...: each is coded with those before it known.

    The last one may be shorter. Behind the first ``few`` variables, all others are one set.
    """
    size, begin = 1, 0
    while begin < count:
        end = count if few is not None and begin >= few else min(begin + size, count)
        yield slice(begin, end)
        begin, size = end, 2 * size


def next_guide(guide: Array | None, sizes: Array) -> Array:
    """Give the guide (16ths, by place) after a set of variables from that before it and the set's sizes (V, ...)."""
    mean: Array = 16 * sizes.sum(axis=0, dtype=np.uint32) // len(sizes)
    return mean if guide is None else (3 * mean + guide) >> 2


def guide_classes(guide: Array) -> Array:
    """Class (uint16) of a guide in 16ths."""
    classes: Array = GUIDE_CLASS[guide]
    return classes


@lru_cache(maxsize=256)
def class_of(total: int) -> Array:
    """Class of the mean for every weighted sum of sizes; ``total``: the weights' sum."""
    sums = np.arange(CLIP * total + 1)
    classes = np.searchsorted(_LIMITS, sums * 16 // max(total, 1), side="right").astype(np.uint16)
    classes.setflags(write=False)
    return classes


@lru_cache(maxsize=256)
def _mean_parts(count: int, parts: int) -> Array:
    """So many parts of the mean of ``count`` sizes, in 16ths, for every sum of them; uint32."""
    means = 16 * np.arange(CLIP * count + 1) // max(count, 1)
    table: Array = (parts * means).astype(np.uint32)
    table.setflags(write=False)
    return table


@lru_cache(maxsize=8)
def classes_of(classes: int) -> Array:
    """Contexts of every expected size in 16ths, each with so many classes (0: those of the guide) beside it; uint16."""
    sizes = np.searchsorted(_EXPECTED, np.arange(16 * CLIP + 1), side="right")
    out = (sizes * (classes or GUIDES)).astype(np.uint16)
    out.setflags(write=False)
    return out


@lru_cache(maxsize=4096)
def phases_of(shape: tuple[int, ...]) -> tuple[Phase, ...]:
    """Parities of a band in coding order; axes of length 1 have one parity.

    Neighbours of even sums of parities are one step away along two axes, those of odd ones along one.
    """
    parities = list(itertools.product(*((0, 1) if n > 1 else (0,) for n in shape)))
    parities.sort(key=lambda p: (sum(p) % 2, p))
    steps = [d for d in itertools.product((-1, 0, 1), repeat=len(shape)) if 1 <= sum(map(abs, d)) <= 2]
    steps = [d for d in steps if all(n > 1 or not k for n, k in zip(shape, d, strict=True))]
    # From one point of the sizes with their borders to the next, by axis.
    strides = [math.prod(n + 2 for n in shape[a + 1 :]) for a in range(len(shape))]
    many = sum(n > 1 for n in shape) > _FEW_AXES
    known: set[tuple[int, ...]] = set()
    out = []
    for p in parities:
        far = 2 - sum(p) % 2
        near = [d for d in steps if sum(map(abs, d)) == far]
        near = [d for d in near if tuple((a + k) % 2 for a, k in zip(p, d, strict=True)) in known]
        places = tuple(sum(k * n for k, n in zip(d, strides, strict=True)) for d in near)
        counts = tuple((n + 1 - a) // 2 for n, a in zip(shape, p, strict=True))
        out.append(Phase(p, tuple(near), places, many, shape, counts))
        known.add(p)
    return tuple(out)
