# SPDX-License-Identifier: MIT
"""The point stage by wavelets: quantised subbands, coded phase by phase with contexts from all that is known.

A band is coded in phases (:mod:`hbae.codecs.neighbours`). The context of a value joins the mean magnitude of known
neighbours with the magnitude at the same place in the coarser band.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from hbae.arrays import Array
from hbae.codecs import ByteReader, ByteWriter, pack
from hbae.codecs.contexts import SymbolReader, SymbolWriter
from hbae.codecs.masks import read_bits
from hbae.codecs.neighbours import CLIP, NEAR, Phase, phases_of
from hbae.errors import FormatError
from hbae.exact.interpolate import FRACTION
from hbae.exact.wavelet import Band, Wavelet
from hbae.pipeline.rounding import round_by_worth

_PARENT, _KINDS = 7, 3
CONTEXTS = _KINDS * NEAR * _PARENT
_LARGEST = 2.0**52
_PARENT_OF = (np.searchsorted([1, 2, 3, 5, 9], np.arange(CLIP + 1), side="right") * NEAR).astype(np.uint16)
_NO_PARENT = (_PARENT - 1) * NEAR


def encode_waves(x: Array, wavelet: Wavelet, *, nearest: bool) -> bytes:
    """Quantise x (V, *grid), in point units, and give bytes.

    ``nearest``: every coefficient to the nearest step, else where bits are worth it.
    """
    bands = wavelet.bands(x.shape[1:])
    q = _quantised(x, wavelet, bands, nearest)
    live = np.array([q[_at(slice(None), b)].reshape(len(q), -1).any(axis=1) for b in bands])
    symbols = SymbolWriter(CONTEXTS, np.arange(CONTEXTS).reshape(_KINDS, _PARENT, NEAR).transpose(2, 1, 0).ravel())
    sizes = np.zeros(q.shape, np.uint16)
    for band, used in zip(bands, live, strict=True):
        values = q[_at(used, band)]
        for p, contexts in _walk(values, sizes, bands, band, used):
            symbols.add(values[p.target].ravel(), contexts)
    w = ByteWriter()
    w.raw(pack(np.packbits(live).tobytes(), 19))
    if live.any():
        w.raw(symbols.getvalue())
    return w.getvalue()


def quantise_waves(x: Array, wavelet: Wavelet, *, nearest: bool = False) -> Array:
    """Give the integers (in 2**-6 units) that a reader would get for x (V, *grid) in point units."""
    return _synthesised(_quantised(x, wavelet, wavelet.bands(x.shape[1:]), nearest), wavelet)


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
    q = np.zeros(shape, np.int64)
    if live.any():
        symbols = SymbolReader(reader, CONTEXTS)
        sizes = np.zeros(shape, np.uint16)
        for band, used in zip(bands, live, strict=True):
            values = q[_at(used, band)]
            for p, contexts in _walk(values, sizes, bands, band, used):
                values[p.target] = symbols.take(contexts).reshape(values[p.target].shape)
            q[_at(used, band)] = values
        symbols.end()
    return _synthesised(q, wavelet)


def _quantised(x: Array, wavelet: Wavelet, bands: list[Band], nearest: bool) -> Array:
    c = np.array(x, np.float64, order="C")
    for grid in c:
        wavelet.forward(grid)
    if nearest:
        return np.rint(c).astype(np.int64)
    return round_by_worth(c, [b.place for b in bands], range(c.ndim - 1))


def _synthesised(q: Array, wavelet: Wavelet) -> Array:
    """Integers in 2**-6 units, held in float64, from quantised coefficients.

    Raises
    ------
    FormatError
        When they are too large to be exact.
    """
    t = q.astype(np.float64)
    for y in t:
        if not y.any():
            continue
        wavelet.inverse(y)
        y *= 1 << FRACTION
        np.rint(y, out=y)
        if not max(y.max(), -y.min()) < _LARGEST:
            raise FormatError("wavelet: coefficients are too large for exact arithmetic")
    return t


def _walk(values: Array, sizes: Array, bands: list[Band], band: Band, used: Array) -> Iterator[tuple[Phase, Array]]:
    """Give the phases of a band with their contexts; after each one its values must be known.

    ``values`` (live variables, *band) is read phase by phase, ``sizes`` holds magnitudes of all bands so far.
    """
    if not used.any():
        return
    shape = values.shape[1:]
    near = np.zeros((len(values), *(n + 2 for n in shape)), np.uint16)
    inner = near[(slice(None), *(slice(1, -1) for _ in shape))]
    parent = None if band.parent < 0 else _of_parent(sizes[_at(used, bands[band.parent])], shape)
    for p in phases_of(shape):
        yield p, p.contexts(near, parent, p.kind * NEAR * _PARENT + (_NO_PARENT if parent is None else 0))
        inner[p.target] = np.minimum(np.abs(values[p.target]), CLIP)
    sizes[_at(used, band)] = inner


def _at(variables: Any, band: Band) -> tuple[Any, ...]:
    return (variables, *band.place)


def _of_parent(sizes: Array, shape: tuple[int, ...]) -> Array:
    """Context part from the coarser band, spread to the finer one: children have twice the index, or one more."""
    for axis, n in enumerate(shape, 1):
        m = sizes.shape[axis]
        if m != n:
            sizes = np.take(sizes, np.minimum(np.arange(n) // 2, m - 1), axis=axis)
    return np.ascontiguousarray(_PARENT_OF[sizes])
