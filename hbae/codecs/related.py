# SPDX-License-Identifier: MIT
"""Expects a variable's integers from the variables before it: at a place they go together as they do around it.

At fronts all variables change together, each by its own factor, and the factors are those of the neighbourhood. So the
integer of a variable at a place is expected by local least squares: of the variables known at the place (the
*leaders*), the combination that gave this one at the known places around. What is expected chooses the context of the
entropy coder, its sign tells which sign is likely, and where relations are close, the nearest integer is taken off.

float32, one IEEE operation at a time in a fixed order: the same bits on any machine. NumPy is the reference; where
``_related.c`` is built, it does the same faster.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np

from hbae.arrays import Array
from hbae.codecs.neighbours import GUIDES, PHASE_CONTEXTS, Phase, phases_of

try:
    from hbae.codecs import _related
except ImportError:
    _related = None  # type: ignore[assignment]

# Measured on two runs of 54 variables: more leaders or places around gain less than 0.3 % and cost time.
MOST_LEADERS, MOST_PLACES = 15, 24
# Larger integers count as that.
LARGEST = (1 << 15) - 1
# What is added to the diagonal of the normal equations, and the part of it that is added as well.
RIDGE, RIDGE_PART = np.float32(4), np.float32(2.0**-12)
# Limits of classes of what is expected, in 64ths.
_LIMITS = np.array([1, 4, 8, 13, 22, 32, 48, 64, 96, 160, 256, 512, 1024, 2048, 4096])
CLASS_LIMITS = (_LIMITS / 64).astype(np.float32)
CLASSES = len(_LIMITS) + 1
# What variables tell of each other: nothing, contexts and signs, or these and what is taken off.
Relation = Literal["", "contexts", "rests"]
# From there on what is expected is taken off.
_OFF_FROM, _NEVER = 1.0, math.inf
# Contexts of phases without the guide, each with the class of what is expected.
RELATED_CONTEXTS = ((PHASE_CONTEXTS - 1) // GUIDES + 1) * CLASSES
# Weights beyond that come from integers that no field has, and count as 0.
_BOUND = np.float32(2.0**64)
# What kernels need for a set, as :meth:`Around.fixed` says.
Fixed = tuple[Array, tuple[Array, ...], tuple[Array, ...], int, int, Array, float]
# Columns of the block that can lead, where there are that many: a point's lie in one line of the cache.
_LEADING = 16
_PIECE = 1 << 13


@dataclass(frozen=True, eq=False)
class View:
    """Another band as it is seen from a band: at each point the same place there.

    ``band``: None where no variable has anything there. ``ratios``: by axis, how many of the band's indices see one of
    the other's; the last one from beyond it, too.
    """

    band: Around | None
    ratios: tuple[int, ...]

    def seen(self, like: Around) -> tuple[Array, ...]:
        """Give the integers of those variables that are seen, in blocks as those of a band."""
        band = self.band
        same = band is not None and np.array_equal(band.rows, like.rows)
        if band is not None and same and band.shape == like.shape and set(self.ratios) == {1}:
            return band.blocks
        out = tuple(np.zeros(b.shape, np.int16) for b in like.blocks)
        if band is not None and same:
            for source, to in zip(band.blocks, out, strict=True):
                self._put(source, np.arange(to.shape[-1]), like.shape, to)
        elif band is not None:
            there = np.minimum(np.searchsorted(band.rows, like.rows), len(band.rows) - 1)
            there = np.where(band.rows[there] == like.rows, there, -1)
            for to, mine in zip(out, (there[:MOST_LEADERS], there[MOST_LEADERS:]), strict=False):
                for k, source in enumerate(band.blocks):
                    self._put(source, _in_block(mine, k, to.shape[-1]), like.shape, to)
        return out

    def _put(self, source: Array, there: Array, shape: tuple[int, ...], out: Array) -> None:
        """Write some columns of a block; ``there``: which one each column sees in the other, or -1."""
        if not (there >= 0).any():
            return
        lasts = tuple(n - 3 for n in source.shape[:-1])
        if _related is not None:
            steps = tuple(s // source.itemsize for s in source.strides[:-1])
            _related.see(source, sum(steps), there, steps, self.ratios, lasts, shape, out)
            return
        seen = source[(slice(1, -1),) * len(shape)]
        for axis, (n, ratio, last) in enumerate(zip(shape, self.ratios, lasts, strict=True)):
            seen = np.take(seen, np.minimum(np.arange(n) // ratio, last), axis=axis)
        live = np.flatnonzero(there >= 0)
        out[(*(slice(1, -1),) * len(shape), live)] = seen[..., there[live]]


@dataclass(frozen=True, eq=False)
class Expected:
    """What is expected of integers, flat.

    ``codes``: class (times 2) and sign (1: negative), uint8. ``values``: the nearest integers, int16, 0 for small ones.
    """

    codes: Array
    values: Array


@dataclass(frozen=True, eq=False)
class Around:
    """What is known at and around the points of a band of that ``shape``, of the variables ``rows`` (ascending).

    ``blocks``: int16 (*shape + 2, columns) with a border of zeros: all that can lead, and, where there are more
    variables, the others: most sets read the first one only. Zero where the band is not known yet. ``others``: the same
    for what each other band has at the points. ``spread``: which of these are looked at one step to each side, too.
    ``rests``: whether what is expected is taken off.
    """

    rows: Array
    shape: tuple[int, ...]
    blocks: tuple[Array, ...]
    others: tuple[tuple[Array, ...], ...]
    spread: range
    rests: bool
    _places: dict[tuple[int, ...], tuple[tuple[int, int], ...]] = field(default_factory=dict)

    @staticmethod
    def of(rows: Array, shape: tuple[int, ...], views: Sequence[View], spread: range, *, rests: bool) -> Around:
        """Start with nothing known of the band itself; ``spread``: numbers of views. Only what gives places counts."""
        views, spread = views[:MOST_PLACES], range(spread.start, min(spread.stop, MOST_PLACES))
        widths = [len(rows)] if len(rows) < MOST_LEADERS else [_LEADING, len(rows) - MOST_LEADERS]
        wide = tuple(n + 2 for n in shape)
        own = Around(rows, shape, tuple(np.zeros((*wide, n), np.int16) for n in widths if n), (), range(0), rests)
        if len(rows) < 2:
            return own
        return Around(rows, shape, own.blocks, tuple(view.seen(own) for view in views), spread, rests)

    def alone(self) -> Around:
        """Give the band without what others have there: all that later bands look at."""
        return Around(self.rows, self.shape, self.blocks, (), range(0), self.rests)

    @cached_property
    def _strides(self) -> list[int]:
        return [s // self.blocks[0].strides[-2] for s in self.blocks[0].strides[:-1]]

    @cached_property
    def _by_block(self) -> list[tuple[Array, ...]]:
        """For each block: the own one, and those of the other bands."""
        return [tuple(b[i] for b in (self.blocks, *self.others)) for i in range(len(self.blocks))]

    @property
    def _off_from(self) -> float:
        return _OFF_FROM if self.rests else _NEVER

    def places(self, phase: Phase) -> tuple[tuple[int, int], ...]:
        """Give the places around a phase's points: band (0: this one), and step in its flat points."""
        if phase.parity not in self._places:
            found = [(f + 1, 0) for f in range(len(self.others))] + [(0, step) for step in phase.places]
            axes = [a for a, n in enumerate(self.shape) if n > 1 and a >= len(self.shape) - 2]
            found += [(f + 1, sign * self._strides[a]) for f in self.spread for a in axes for sign in (-1, 1)]
            self._places[phase.parity] = tuple(found[:MOST_PLACES])
        return self._places[phase.parity]

    @cached_property
    def all_places(self) -> tuple[tuple[tuple[int, int], ...], ...]:
        """Places around the points of each phase of the band, in coding order."""
        return tuple(self.places(p) for p in phases_of(self.shape))

    def note(self, phase: Phase, part: slice, values: Array) -> None:
        """Keep a phase's integers (flat, int64 or int16) of some variables for what comes after it."""
        i, columns = _columns(part)
        block = self.blocks[i]
        if _related is not None:
            _related.note(block, self.shape, phase.parity, columns.start, values, values.itemsize == 2)
            return
        target = tuple(slice(1 + a, -1, 2) for a in phase.parity)
        place = np.moveaxis(block[(*target, columns)], -1, 0)
        np.clip(values.reshape(place.shape), -LARGEST, LARGEST, out=place, casting="unsafe")

    def expect(self, phase: Phase, part: slice) -> Expected:
        """Give what is expected of a phase of variables.

        Leaders are the variables before ``part``, the first :data:`MOST_LEADERS` of them: sets end there, so that
        each point is solved for all that follow at once.
        """
        count, leaders = part.stop - part.start, min(part.start, MOST_LEADERS)
        total = count * math.prod(phase.counts)
        out = Expected(np.zeros(total, np.uint8), np.zeros(total, np.int16))
        places = self.places(phase)
        if leaders and places:
            i, columns = _columns(part)
            if _related is not None:
                _, leads, told, _, column, limits, off_from = self.fixed(part)
                of_phase = (self.shape, phase.parity, places)
                _related.expect(leads, told, *of_phase, leaders, column, limits, off_from, out.codes, out.values)
            else:
                points = [[a.reshape(-1, a.shape[-1]).T for a in self._by_block[k]] for k in (0, i)]
                known, wanted = [a[:leaders] for a in points[0]], [a[columns] for a in points[1]]
                self._expect(phase, places, known, wanted, out)
        return out

    def fixed(self, part: slice) -> Fixed:
        """Give what kernels need for a set of variables.

        The block that holds it, that of the leaders and it with those of other bands, how many leaders, the set's first
        column, limits, from where on it is taken off.
        """
        i, columns = _columns(part)
        leaders = min(part.start, MOST_LEADERS)
        told = self._by_block[0], self._by_block[i], leaders
        return self.blocks[i], *told, columns.start, CLASS_LIMITS, self._off_from

    def _expect(
        self, phase: Phase, places: Sequence[tuple[int, int]], leads: list[Array], told: list[Array], out: Expected
    ) -> None:
        points = self._points(phase)
        codes, values = out.codes.reshape(-1, len(points)), out.values.reshape(-1, len(points))
        active = np.flatnonzero(leads[0][:, points].any(axis=0))
        for here in _pieces(active):
            at = points[here]
            u = leads[0][:, at].astype(np.float32)
            around = [leads[f][:, at + step].astype(np.float32) for f, step in places]
            # Hostile integers may overflow in between.
            with np.errstate(all="ignore"):
                w = solve(normal_matrix(around), u)
            total = np.zeros((len(codes), len(here)), np.float32)
            for (f, step), known in zip(places, around, strict=True):
                alike = np.zeros(len(here), np.float32)
                for v, weight in zip(known, w, strict=True):
                    alike += v * weight
                total += alike * told[f][:, at + step].astype(np.float32)
            size = np.abs(total)
            codes[:, here] = 2 * np.searchsorted(CLASS_LIMITS, size, side="right") + (total < 0)
            nearest = np.rint(np.minimum(size, np.float32(LARGEST))) * (size >= np.float32(self._off_from))
            values[:, here] = np.copysign(nearest, total)

    def _points(self, phase: Phase) -> Array:
        """Places of a phase's points in the flat points of a variable."""
        at: Array = np.zeros(1, np.int64)
        for parity, count, stride in zip(phase.parity, phase.counts, self._strides, strict=True):
            at = (at[:, None] + (1 + parity + 2 * np.arange(count)) * stride).ravel()
        return at


def _columns(part: slice) -> tuple[int, slice]:
    """The block that holds a set of variables, and its columns in there; no set lies in both."""
    first = 0 if part.start < MOST_LEADERS else MOST_LEADERS
    return int(first > 0), slice(part.start - first, part.stop - first)


def _in_block(there: Array, block: int, width: int) -> Array:
    """Columns (-1: none) of a band's variables ``there`` (-1: none) that lie in a block, for as many columns."""
    out = np.full(width, -1)
    if block:
        out[: len(there)] = np.maximum(there - MOST_LEADERS, -1)
    else:
        out[: len(there)] = np.where(there < MOST_LEADERS, there, -1)
    return out


def normal_matrix(around: Sequence[Array]) -> Array:
    """Give the lower half of the sums of products of leaders (J, n) over the places, ridge added: (J, J, n) float32."""
    leaders = len(around[0])
    a = np.zeros((leaders, *around[0].shape), np.float32)
    for i in range(leaders):
        for j in range(i + 1):
            for u in around:
                a[i, j] += u[i] * u[j]
        a[i, i] += a[i, i] * RIDGE_PART
        a[i, i] += RIDGE
    return a


def solve(a: Array, u: Array) -> Array:
    """Solve ``a w = u`` for symmetric a (J, J, n), by its factors L D L'; pivots are at least the ridge."""
    lower, scaled = np.zeros_like(a), np.zeros_like(a)
    parts, w = np.zeros_like(u), u.copy()
    for i in range(len(u)):
        for j in range(i):
            rest = a[i, j].copy()
            for k in range(j):
                rest -= scaled[i, k] * lower[j, k]
            scaled[i, j], lower[i, j] = rest, rest * parts[j]
        rest = a[i, i].copy()
        for k in range(i):
            rest -= scaled[i, k] * lower[i, k]
            w[i] -= lower[i, k] * w[k]
        parts[i] = np.float32(1) / np.where(rest > RIDGE, rest, RIDGE)
    w *= parts
    for i in reversed(range(len(u))):
        for k in reversed(range(i + 1, len(u))):
            w[i] -= lower[k, i] * w[k]
    out: Array = np.where(np.abs(w) < _BOUND, w, np.float32(0))
    return out


def split_expected(values: Array, expected: Expected) -> Array:
    """Take off what is expected of int64, in place; the rest's sign is turned where a negative one is expected."""
    if _related is not None:
        _related.split(values, expected.codes, expected.values)
        return values
    values -= expected.values
    return np.negative(values, out=values, where=_negative(expected))


def join_expected(values: Array, expected: Expected) -> Array:
    """Undo :func:`split_expected`, in place."""
    if _related is not None:
        _related.join(values, expected.codes, expected.values)
        return values
    np.negative(values, out=values, where=_negative(expected))
    values += expected.values
    return values


def _negative(expected: Expected) -> Array:
    return (expected.codes & 1).astype(bool)


def _pieces(active: Array) -> Iterator[Array]:
    for k in range(0, len(active), _PIECE):
        yield active[k : k + _PIECE]
