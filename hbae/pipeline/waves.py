# SPDX-License-Identifier: MIT
"""The point stage by wavelets: quantised subbands, coded phase by phase with contexts from all that is known.

A band is coded set by set of its variables (1, 2, 4, ... of them), in phases (:mod:`hbae.codecs.neighbours`). The
context of a value joins the mean size of known neighbours with sizes at the same place in bands and sets before.
Where variables are ``related``, local least squares (:mod:`hbae.codecs.related`) tell from the sets before what to
expect, with its sign.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from hbae.arrays import Array
from hbae.codecs import ByteReader, ByteWriter, pack
from hbae.codecs.contexts import SymbolReader, SymbolWriter
from hbae.codecs.masks import read_bits
from hbae.codecs.neighbours import (
    GUIDE_BITS,
    PHASE_CONTEXTS,
    Phase,
    Spot,
    guide_classes,
    next_guide,
    phases_of,
    sets_of,
)
from hbae.codecs.related import MOST_LEADERS, MOST_PLACES, RELATED_CONTEXTS, Around, View, related_contexts, turned
from hbae.errors import FormatError
from hbae.exact.interpolate import FRACTION
from hbae.exact.wavelet import Band, Wavelet, scale_and_round
from hbae.pipeline.rounding import round_by_worth

# Weights of what is known elsewhere: parent (a quarter of its size), siblings, cousin; the guide.
_BAND, _GUIDE = 2, 1
_LARGEST = 2.0**52
# Points of bands with their borders that are held at once.
_MOST_CELLS = 1 << 26
# Units of the integers that a reader gets, in a step.
POINTS = 1 << FRACTION


@dataclass(frozen=True)
class Waves:
    """Quantised coefficients (V, *grid), held in float64, and the numbers of the variables that are not all zero."""

    q: Array
    rows: Array


@dataclass(frozen=True, eq=False)
class _Step:
    """A phase of some variables of a band: sizes known in it, contexts of its integers.

    ``expected``: what those around tell of them, as :meth:`Around.expect` says it; None where nothing does.
    """

    spot: Spot
    known: Array
    phase: Phase
    contexts: Array
    part: slice
    around: Around | None
    expected: Array | None

    def load(self) -> Array:
        """Give the integers (flat) to be coded."""
        values = self.phase.load(self.spot, self.known)
        if self.around is not None:
            self.around.note(self.phase, self.part, values)
        return values if self.expected is None else turned(values, self.expected)

    def store(self, values: Array) -> None:
        """Put integers (flat) that were coded into their places."""
        if self.expected is not None:
            values = turned(values, self.expected)
        self.phase.store(self.spot, self.known, values)
        if self.around is not None:
            self.around.note(self.phase, self.part, values)


def encode_waves(
    x: Array, wavelet: Wavelet, *, nearest: bool, related: bool = False, known: bool = False
) -> tuple[bytes, Array | None]:
    """Quantise x (V, *grid), in point units; give bytes and, if they are to be ``known``, a reader's integers.

    x is written over. ``related``: whether variables tell of each other. ``nearest``: every coefficient to the nearest
    step, else where bits are worth it.
    """
    q = _quantised(x, wavelet, nearest)
    return code_waves(q, wavelet, related=related), synthesised(_waves(q), wavelet)[0] if known else None


def code_waves(q: Array, wavelet: Wavelet, *, related: bool) -> bytes:
    """Encode quantised coefficients (V, *grid), integers held in float64."""
    bands = wavelet.bands(q.shape[1:])
    live = np.array([q[_at(slice(None), b)].reshape(len(q), -1).any(axis=1) for b in bands])
    _check_room(q.shape, bands, live, related)
    symbols = SymbolWriter(RELATED_CONTEXTS if related else PHASE_CONTEXTS)
    for step in _walk(q, bands, live, related):
        symbols.add(step.load(), step.contexts)
    w = ByteWriter()
    w.raw(pack(np.packbits(live).tobytes(), 19))
    if live.any():
        w.raw(symbols.getvalue())
    return w.getvalue()


def quantise_waves(x: Array, wavelet: Wavelet, *, nearest: bool = False) -> Array:
    """Give the integers (in 2**-6 units) that a reader would get for x (V, *grid) in point units, written over."""
    return synthesised(_waves(_quantised(x, wavelet, nearest)), wavelet)[0]


def decode_waves(
    reader: ByteReader,
    shape: tuple[int, ...],
    wavelet: Wavelet,
    zeros: Callable[[tuple[int, ...]], Array] = np.zeros,
    *,
    related: bool = False,
) -> Waves:
    """Give the quantised coefficients of (V, *grid), in an array that ``zeros`` makes.

    Raises
    ------
    FormatError
        When the bytes are damaged.
    """
    if wavelet.rank != len(shape) - 1:
        raise FormatError("wavelet: its axes do not fit the grid")
    bands = wavelet.bands(shape[1:])
    count = len(bands) * shape[0]
    live = read_bits(reader, count).astype(bool).reshape(len(bands), shape[0])
    _check_room(shape, bands, live, related)
    q = zeros(shape)
    if live.any():
        symbols = SymbolReader(reader, RELATED_CONTEXTS if related else PHASE_CONTEXTS)
        for step in _walk(q, bands, live, related):
            step.store(symbols.take(step.contexts))
        symbols.end()
    return Waves(q, np.flatnonzero(live.any(axis=0)))


def synthesised(waves: Waves, wavelet: Wavelet) -> tuple[Array, float]:
    """Integers (V, *grid) in 2**-6 units, held in float64, in the place of the coefficients, and the largest magnitude.

    Raises
    ------
    FormatError
        When they are too large to be exact.
    """
    largest = 0.0
    for v in waves.rows:
        y = waves.q[v]
        wavelet.inverse(y)
        largest = max(largest, scale_and_round(y, POINTS))
        check_largest(largest)
    return waves.q, largest


def check_largest(largest: float) -> None:
    """Refuse integers in 2**-6 units that are too large to be exact.

    Raises
    ------
    FormatError
        When that magnitude is.
    """
    if not largest < _LARGEST:
        raise FormatError("wavelet: coefficients are too large for exact arithmetic")


def _quantised(x: Array, wavelet: Wavelet, nearest: bool) -> Array:
    """Integers, held in float64, in the place of x where that is possible."""
    c = np.ascontiguousarray(x, np.float64)
    for grid in c:
        wavelet.forward(grid)
    if nearest:
        np.rint(c, out=c)
    else:
        round_by_worth(c, [b.place for b in wavelet.bands(c.shape[1:])], range(c.ndim - 1))
    return c


def _waves(q: Array) -> Waves:
    return Waves(q, np.flatnonzero(q.reshape(len(q), -1).any(axis=1)))


def _walk(q: Array, bands: list[Band], live: Array, related: bool) -> Iterator[_Step]:
    """Give, phase by phase, steps of the bands' live variables; each must be loaded or stored before the next one."""
    sizes = np.zeros(q.shape, np.uint16)
    told: dict[int, Around] = {}
    for i, (band, used) in enumerate(zip(bands, live, strict=True)):
        rows = np.flatnonzero(used)
        if not rows.size:
            continue
        guide = None
        total, weight = _from_bands(sizes, bands, band, rows)
        around = None
        if related:
            around = _around(told, bands, band, rows, Spot(q, band.place, rows).shape)
            told[i] = around.alone()
        for part in sets_of(len(rows), MOST_LEADERS if related else None):
            spot = Spot(q, band.place, rows[part])
            known = np.zeros((len(spot.rows), *(n + 2 for n in spot.shape)), np.uint16)
            hints = _hints(None if total is None else total[part], weight, guide, len(known))
            for p in phases_of(spot.shape):
                contexts = p.contexts(known, hints)
                expected = around.expect(p, part) if around is not None and part.start else None
                if related:
                    contexts = related_contexts(contexts, expected)
                yield _Step(spot, known, p, contexts, part, around, expected)
            mine = known[(slice(None), *(slice(1, -1),) * len(spot.shape))]
            sizes[_at(spot.rows, band)] = mine
            if part.stop < len(rows):
                guide = next_guide(guide, mine)


def _check_room(shape: tuple[int, ...], bands: list[Band], live: Array, related: bool) -> None:
    """Refuse bands that need too much room with their borders: many variables on short axes.

    Raises
    ------
    FormatError
        When a reader would need more than is promised.
    """
    total = 0
    for band, used in zip(bands, live, strict=True):
        lengths = (len(range(*p.indices(n))) + 2 for p, n in zip(band.place, shape[1:], strict=True))
        cells = math.prod(lengths) * int(used.sum())
        others = (band.parent >= 0) + (band.cousin >= 0) + len(band.siblings)
        total += cells if related else 0
        if max(total, cells * (1 + min(others, MOST_PLACES) * related)) > _MOST_CELLS:
            raise FormatError("wavelet: bands need too much room with their borders")


def _around(known: dict[int, Around], bands: list[Band], band: Band, rows: Array, shape: tuple[int, ...]) -> Around:
    """Start with what bands before tell of the integers of a band."""
    others = [i for i in (band.parent, band.cousin, *band.siblings) if i >= 0]
    views = []
    for i in others:
        ratios = tuple(there.step // mine.step for mine, there in zip(band.place, bands[i].place, strict=True))
        views.append(View(known.get(i), ratios))
    return Around.of(rows, shape, views, range(len(others) - len(band.siblings), len(others)))


def _at(variables: Any, band: Band) -> tuple[Any, ...]:
    return (variables, *band.place)


def _from_bands(sizes: Array, bands: list[Band], band: Band, rows: Array) -> tuple[Array | None, int]:
    """Weighted sum (16ths) of what bands before tell of the sizes of a band, uint16 (rows, *shape), and the weights."""
    found: list[Array] = []
    for i, factor in ((band.parent, 4), (band.cousin, 16)):
        if i >= 0:
            found.append(_seen_from(band, bands[i], sizes, rows) * np.uint16(_BAND * factor))
    if band.siblings:
        seen = [_seen_from(band, bands[i], sizes, rows) for i in band.siblings]
        if len(seen) > 1:
            seen[0] = np.asarray(16 * np.sum(seen, axis=0, dtype=np.uint32) // len(seen), np.uint16)
        found.append(seen[0] * np.uint16(_BAND if len(seen) > 1 else 16 * _BAND))
    for more in found[1:]:
        found[0] += more
    return found[0] if found else None, _BAND * len(found)


def _hints(total: Array | None, weight: int, guide: Array | None, count: int) -> Array | None:
    """Weighted mean (16ths) of what bands and the guide tell ``count`` variables, and the guide's class.

    uint16 (count, *shape); none where nothing is known.
    """
    if guide is None:
        return None if total is None else total // np.uint16(weight) << GUIDE_BITS
    near = guide.astype(np.uint16)
    every = np.repeat(near[None], count, axis=0)
    mean: Array = every if total is None else (total + near) // np.uint16(weight + _GUIDE)
    hints: Array = (mean << GUIDE_BITS) + guide_classes(near)
    return hints


def _seen_from(band: Band, other: Band, grid: Array, rows: Array) -> Array:
    """What another band has in a grid (V, *grid) of sizes at the places of a band, (rows, *shape)."""
    seen: Array = grid[_at(rows, other)]
    for axis, (mine, there, n) in enumerate(zip(band.place, other.place, grid.shape[1:], strict=True), 1):
        count, ratio = len(range(*mine.indices(n))), there.step // mine.step
        if ratio != 1 or count != seen.shape[axis]:
            seen = np.take(seen, np.minimum(np.arange(count) // ratio, seen.shape[axis] - 1), axis=axis)
    return seen
