# SPDX-License-Identifier: MIT
"""The point stage by wavelets: quantised subbands, coded phase by phase with contexts from all that is known.

A band is coded in phases (:mod:`hbae.codecs.neighbours`). The context of a value joins the mean size of known
neighbours with the size at the same place in the coarser band.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from hbae.arrays import Array
from hbae.codecs import ByteReader, ByteWriter, pack
from hbae.codecs.contexts import SymbolReader, SymbolWriter
from hbae.codecs.masks import read_bits
from hbae.codecs.neighbours import CLIP, NEAR, Phase, Spot, phases_of
from hbae.errors import FormatError
from hbae.exact.interpolate import FRACTION
from hbae.exact.wavelet import Band, Wavelet, scale_and_round
from hbae.pipeline.rounding import round_by_worth

# Limits of the parent's size.
_PARENT_LIMITS = np.array([1, 2, 3, 5, 9, 17, 33, 64, 112, 160, 208, 256, 352])
_PARENT, _KINDS = len(_PARENT_LIMITS) + 2, 3
CONTEXTS = _KINDS * NEAR * _PARENT
_LARGEST = 2.0**52
_PARENT_OF = (np.searchsorted(_PARENT_LIMITS, np.arange(CLIP + 1), side="right") * _KINDS).astype(np.uint16)
_NO_PARENT = (_PARENT - 1) * _KINDS


def encode_waves(x: Array, wavelet: Wavelet, *, nearest: bool, known: bool = False) -> tuple[bytes, Array | None]:
    """Quantise x (V, *grid), in point units; give bytes and, if they are to be ``known``, a reader's integers.

    ``nearest``: every coefficient to the nearest step, else where bits are worth it.
    """
    bands = wavelet.bands(x.shape[1:])
    q = _quantised(x, wavelet, bands, nearest)
    live = np.array([q[_at(slice(None), b)].reshape(len(q), -1).any(axis=1) for b in bands])
    symbols = SymbolWriter(CONTEXTS)
    for spot, sizes, p, contexts in _walk(q, bands, live):
        symbols.add(p.load(spot, sizes), contexts)
    w = ByteWriter()
    w.raw(pack(np.packbits(live).tobytes(), 19))
    if live.any():
        w.raw(symbols.getvalue())
    return w.getvalue(), _synthesised(q, wavelet, np.flatnonzero(live.any(axis=0))) if known else None


def quantise_waves(x: Array, wavelet: Wavelet, *, nearest: bool = False) -> Array:
    """Give the integers (in 2**-6 units) that a reader would get for x (V, *grid) in point units."""
    q = _quantised(x, wavelet, wavelet.bands(x.shape[1:]), nearest)
    return _synthesised(q, wavelet, np.flatnonzero(q.reshape(len(q), -1).any(axis=1)))


def decode_waves(reader: ByteReader, shape: tuple[int, ...], wavelet: Wavelet) -> Array:
    """Give the integers (V, *grid) in 2**-6 units.

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
    q = np.zeros(shape)
    if live.any():
        symbols = SymbolReader(reader, CONTEXTS)
        for spot, known, p, contexts in _walk(q, bands, live):
            p.store(spot, known, symbols.take(contexts))
        symbols.end()
    return _synthesised(q, wavelet, np.flatnonzero(live.any(axis=0)))


def _quantised(x: Array, wavelet: Wavelet, bands: list[Band], nearest: bool) -> Array:
    """Integers, held in float64."""
    c = np.array(x, np.float64, order="C")
    for grid in c:
        wavelet.forward(grid)
    if nearest:
        np.rint(c, out=c)
    else:
        round_by_worth(c, [b.place for b in bands], range(c.ndim - 1))
    return c


def _synthesised(q: Array, wavelet: Wavelet, rows: Array) -> Array:
    """Integers in 2**-6 units, held in float64, from quantised coefficients of those variables; in place.

    Raises
    ------
    FormatError
        When they are too large to be exact.
    """
    for v in rows:
        y = q[v]
        wavelet.inverse(y)
        if not scale_and_round(y, 1 << FRACTION, _LARGEST):
            raise FormatError("wavelet: coefficients are too large for exact arithmetic")
    return q


def _walk(q: Array, bands: list[Band], live: Array) -> Iterator[tuple[Spot, Array, Phase, Array]]:
    """Give, phase by phase, a band of its live variables, sizes known in it, and contexts.

    After each one its values must be in q (V, *grid) and in the sizes.
    """
    parents = {b.parent for b in bands}
    known_of: dict[int, tuple[Array, Array]] = {}
    for i, (band, used) in enumerate(zip(bands, live, strict=True)):
        rows = np.flatnonzero(used)
        if not rows.size:
            continue
        spot = Spot(q, band.place, rows)
        shape = spot.shape
        known = np.zeros((len(rows), *(n + 2 for n in shape)), np.uint16)
        parent = None
        if band.parent >= 0:
            coarse = Spot(q, bands[band.parent].place, rows).shape
            parent = _of_parent(known_of.get(band.parent), coarse, rows, shape)
        for p in phases_of(shape):
            base = p.kind + (_NO_PARENT if parent is None else 0)
            yield spot, known, p, p.contexts(known, parent, _PARENT * _KINDS, base)
        if i in parents:
            known_of[i] = rows, known


def _at(variables: Any, band: Band) -> tuple[Any, ...]:
    return (variables, *band.place)


def _of_parent(
    found: tuple[Array, Array] | None, coarse: tuple[int, ...], rows: Array, shape: tuple[int, ...]
) -> Array:
    """Context part (uint16) for variables ``rows`` from what the coarser band holds: its variables and sizes.

    Children have twice the index of their parent, or one more.
    """
    sizes = np.zeros((len(rows), *coarse), np.uint16)
    if found is not None:
        there = np.isin(rows, found[0])
        inner: tuple[Any, ...] = (np.isin(found[0], rows), *(slice(1, -1) for _ in coarse))
        sizes[there] = found[1][inner]
    part = _PARENT_OF[sizes]
    for axis, (m, n) in enumerate(zip(coarse, shape, strict=True), 1):
        if m != n:
            part = np.take(part, np.minimum(np.arange(n) // 2, m - 1), axis=axis)
    return np.ascontiguousarray(part)
