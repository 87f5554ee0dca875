# SPDX-License-Identifier: MIT
"""The point stage by wavelets: quantised subbands, coded phase by phase with contexts from all that is known.

A band is coded set by set of its variables (1, 2, 4, ... of them), in phases (:mod:`hbae.codecs.neighbours`). The
context of a value joins the mean size of known neighbours with sizes at the same place in bands and sets before.
Where variables are ``related``, local least squares (:mod:`hbae.codecs.related`) tell from the sets before what to
expect, with its sign.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from hbae.arrays import Array
from hbae.codecs import ByteReader, ByteWriter, pack
from hbae.codecs.contexts import SymbolReader, SymbolWriter
from hbae.codecs.hints import Hints, Seen, Sizes, Told
from hbae.codecs.masks import read_bits
from hbae.codecs.neighbours import PHASE_CONTEXTS, Spot
from hbae.codecs.related import MOST_PLACES, RELATED_CONTEXTS, Around, Relation, View
from hbae.codecs.sets import BandSets, FixedBand, read_bands
from hbae.errors import FormatError
from hbae.exact.interpolate import FRACTION
from hbae.exact.wavelet import Band, Wavelet, scale_and_round
from hbae.pipeline.rounding import round_by_worth

# Of the sizes in the parent and the cousin, in 16ths.
_PARENT, _COUSIN = 4, 16
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


def encode_waves(
    x: Array, wavelet: Wavelet, *, worth: float, related: Relation = "", known: bool = False
) -> tuple[bytes, Array | None]:
    """Quantise x (V, *grid), in point units; give bytes and, if they are to be ``known``, a reader's integers.

    x is written over. ``worth``: squared steps that a bit is worth. ``related``: what variables tell of each other.
    """
    q = _quantised(x, wavelet, worth)
    return code_waves(q, wavelet, related=related), synthesised(waves_of(q), wavelet)[0] if known else None


def code_waves(q: Array, wavelet: Wavelet, *, related: Relation) -> bytes:
    """Encode quantised coefficients (V, *grid), integers held in float64."""
    bands = wavelet.bands(q.shape[1:])
    live = np.array([q[(slice(None), *b.place)].reshape(len(q), -1).any(axis=1) for b in bands])
    _check_room(bands, live, related)
    symbols = SymbolWriter(RELATED_CONTEXTS if related else PHASE_CONTEXTS)
    for band in _walk(q, bands, live, related):
        band.encode(symbols)
    w = ByteWriter()
    w.raw(pack(np.packbits(live).tobytes(), 19))
    if live.any():
        w.raw(symbols.getvalue())
    return w.getvalue()


def quantise_waves(x: Array, wavelet: Wavelet, *, worth: float) -> Array:
    """Give the integers (in 2**-6 units) that a reader would get for x (V, *grid) in point units, written over."""
    return synthesised(waves_of(_quantised(x, wavelet, worth)), wavelet)[0]


def decode_waves(
    reader: ByteReader,
    shape: tuple[int, ...],
    wavelet: Wavelet,
    zeros: Callable[[tuple[int, ...]], Array] = np.zeros,
    *,
    related: Relation = "",
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
    _check_room(bands, live, related)
    q = zeros(shape)
    if live.any():
        symbols = SymbolReader(reader, RELATED_CONTEXTS if related else PHASE_CONTEXTS)
        if related or not read_bands(q, _fixed_bands(wavelet, shape[1:]), live, symbols):
            for band in _walk(q, bands, live, related):
                band.decode(symbols)
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


def _quantised(x: Array, wavelet: Wavelet, worth: float) -> Array:
    """Integers, held in float64, in the place of x where that is possible."""
    c = np.ascontiguousarray(x, np.float64)
    for grid in c:
        wavelet.forward(grid)
    return round_by_worth(c, [b.place for b in wavelet.bands(c.shape[1:])], range(c.ndim - 1), worth)


def waves_of(q: Array) -> Waves:
    """Give quantised coefficients (V, *grid) as a reader finds them."""
    return Waves(q, np.flatnonzero(q.reshape(len(q), -1).any(axis=1)))


def _walk(q: Array, bands: Sequence[Band], live: Array, related: Relation) -> Iterator[BandSets]:
    """Give, band by band, the live variables; each must be coded before the next one."""
    settled: dict[int, Sizes] = {}
    told: dict[int, Around] = {}
    alike: dict[bytes, Array] = {}
    for i, (band, used) in enumerate(zip(bands, live, strict=True)):
        # One array for bands of the same variables: what they tell of each other is then found at once.
        rows = alike.setdefault(used.tobytes(), np.flatnonzero(used))
        if not rows.size:
            continue
        whole = Spot(q, band.place, rows)
        shape = whole.shape
        hints = _hints(settled, bands, band, rows, shape)
        settled[i] = Sizes(rows, np.empty((len(rows), *shape), np.uint16))
        around = None
        if related:
            around = _around(told, bands, band, rows, shape, rests=related == "rests")
            told[i] = around.alone()
        yield BandSets(whole, hints, settled[i].values, around)


def _check_room(bands: Sequence[Band], live: Array, related: Relation) -> None:
    """Refuse bands that need too much room with their borders: many variables on short axes.

    Raises
    ------
    FormatError
        When a reader would need more than is promised.
    """
    total = 0
    for band, used in zip(bands, live.sum(axis=1).tolist(), strict=True):
        cells = band.cells * used
        total += cells if related else 0
        if max(total, cells * (1 + min(len(band.others), MOST_PLACES) * bool(related))) > _MOST_CELLS:
            raise FormatError("wavelet: bands need too much room with their borders")


@lru_cache(maxsize=4096)
def _ratios(steps: tuple[int, ...], others: tuple[int, ...]) -> tuple[int, ...]:
    """By axis, how many indices of a band with those steps lie at one of another."""
    return tuple(there // mine for mine, there in zip(steps, others, strict=True))


def _around(
    known: dict[int, Around], bands: Sequence[Band], band: Band, rows: Array, shape: tuple[int, ...], *, rests: bool
) -> Around:
    """Start with what bands before tell of the integers of a band."""
    others = band.others
    views = [View(known.get(i), _ratios(band.steps, bands[i].steps)) for i in others]
    return Around.of(rows, shape, views, range(len(others) - len(band.siblings), len(others)), rests=rests)


def _hints(known: dict[int, Sizes], bands: Sequence[Band], band: Band, rows: Array, shape: tuple[int, ...]) -> Hints:
    """What bands before tell of the sizes of a band."""
    return Hints(rows, shape, [Seen(known.get(i), ratios, factor) for i, ratios, factor in _told(bands, band)])


def _told(bands: Sequence[Band], band: Band) -> tuple[Told, ...]:
    """Bands that tell of the sizes of a band, and how."""
    factors = {band.parent: _PARENT, band.cousin: _COUSIN}
    return tuple((i, _ratios(band.steps, bands[i].steps), factors.get(i, 0)) for i in band.others)


@lru_cache(maxsize=256)
def _fixed_bands(wavelet: Wavelet, grid: tuple[int, ...]) -> tuple[FixedBand, ...]:
    """Many chunks have one shape."""
    bands = wavelet.bands(grid)
    return tuple(FixedBand.of(grid, b.place, _told(bands, b)) for b in bands)
