# SPDX-License-Identifier: MIT
"""The point stage by wavelets: quantised subbands, coded phase by phase with contexts from all that is known.

A band is coded in phases, one for each parity of its indices: even sums of parities first, then odd ones, whose nearest
neighbours are then all known. The context of a value joins the mean magnitude of known neighbours (weight 2 along one
axis, 1 along two) with the magnitude at the same place in the coarser band.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from hbae.arrays import Array
from hbae.bound import ROUNDING, dead_zone
from hbae.codecs import ByteReader, ByteWriter, pack
from hbae.codecs.contexts import SymbolReader, SymbolWriter
from hbae.codecs.masks import read_bits
from hbae.errors import FormatError
from hbae.exact.interpolate import FRACTION
from hbae.exact.wavelet import Band, Wavelet

_NEAR, _PARENT, _KINDS = 14, 7, 3
CONTEXTS = _KINDS * _NEAR * _PARENT
_CLIP = 511
_LARGEST = 2.0**52
# Limits of the mean magnitude of neighbours, in 16ths.
_NEAR_LIMITS = np.array([1, 2, 3, 5, 8, 12, 18, 28, 44, 68, 108, 172, 344])
_NEAR_OF = np.searchsorted(_NEAR_LIMITS, np.arange(_CLIP * 16 + 1), side="right").astype(np.uint16)
_PARENT_OF = (np.searchsorted([1, 2, 3, 5, 9], np.arange(_CLIP + 1), side="right") * _NEAR).astype(np.uint16)
_NO_PARENT = (_PARENT - 1) * _NEAR


@dataclass(frozen=True)
class _Phase:
    """One parity: its targets in a band, and where known neighbours lie in the padded band, with weights."""

    target: tuple[slice, ...]
    near: tuple[tuple[tuple[slice, ...], int], ...]
    kind: int


def encode_waves(x: Array, wavelet: Wavelet, rounding: float) -> tuple[bytes, Array]:
    """Quantise x (V, *grid), in point units, and give bytes and the integers (in 2**-6 units) that a reader gets."""
    q = _quantised(x, wavelet, rounding)
    bands = wavelet.bands(x.shape[1:])
    live = np.array([q[_at(slice(None), b)].reshape(len(q), -1).any(axis=1) for b in bands])
    symbols = SymbolWriter(CONTEXTS, np.arange(CONTEXTS).reshape(_KINDS, _PARENT, _NEAR).transpose(2, 1, 0).ravel())
    sizes = np.zeros(q.shape, np.uint16)
    for band, used in zip(bands, live, strict=True):
        values = q[_at(used, band)]
        for p, contexts in _walk(values, sizes, bands, band, used):
            symbols.add(values[(slice(None), *p.target)].ravel(), contexts)
    w = ByteWriter()
    w.raw(pack(np.packbits(live).tobytes(), 19))
    if live.any():
        w.raw(symbols.getvalue())
    return w.getvalue(), _synthesised(q, wavelet)


def quantise_waves(x: Array, wavelet: Wavelet, rounding: float = ROUNDING) -> Array:
    """Give the integers (in 2**-6 units) that a reader would get for x (V, *grid) in point units."""
    return _synthesised(_quantised(x, wavelet, rounding), wavelet)


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
                values[(slice(None), *p.target)] = symbols.take(contexts).reshape(
                    values[(slice(None), *p.target)].shape
                )
            q[_at(used, band)] = values
        symbols.end()
    return _synthesised(q, wavelet)


def _quantised(x: Array, wavelet: Wavelet, rounding: float) -> Array:
    q = np.empty(x.shape, np.int64)
    for v, grid in enumerate(x):
        c = grid.copy()
        wavelet.forward(c)
        q[v] = dead_zone(c, rounding)
    return q


def _synthesised(q: Array, wavelet: Wavelet) -> Array:
    """Integers in 2**-6 units from quantised coefficients.

    Raises
    ------
    FormatError
        When they are too large to be exact.
    """
    t = np.zeros(q.shape, np.int64)
    for v, coefs in enumerate(q):
        if coefs.any():
            y = coefs.astype(np.float64)
            wavelet.inverse(y)
            y *= 1 << FRACTION
            np.rint(y, out=y)
            if not max(y.max(), -y.min()) < _LARGEST:
                raise FormatError("wavelet: coefficients are too large for exact arithmetic")
            t[v] = y
    return t


def _walk(values: Array, sizes: Array, bands: list[Band], band: Band, used: Array) -> Iterator[tuple[_Phase, Array]]:
    """Give the phases of a band with their contexts; after each one its values must be known.

    ``values`` (live variables, *band) is read phase by phase, ``sizes`` holds magnitudes of all bands so far.
    """
    if not used.any():
        return
    shape = values.shape[1:]
    near = np.zeros((len(values), *(n + 2 for n in shape)), np.uint16)
    inner = near[(slice(None), *(slice(1, -1) for _ in shape))]
    parent = None if band.parent < 0 else _of_parent(sizes[_at(used, bands[band.parent])], shape)
    for p in _phases(shape):
        target = (slice(None), *p.target)
        level = np.zeros(inner[target].shape, np.uint16)
        if p.near:
            for place, weight in p.near:
                level += near[(slice(None), *place)] * np.uint16(weight)
            total = sum(weight for _, weight in p.near)
            level = _NEAR_OF[(level.astype(np.uint32) * 16) // total]
        level += np.uint16(_NO_PARENT) if parent is None else parent[target]
        level += np.uint16(p.kind * _NEAR * _PARENT)
        yield p, level.ravel()
        inner[target] = np.minimum(np.abs(values[target]), _CLIP)
    sizes[_at(used, band)] = inner


def _at(variables: Any, band: Band) -> tuple[Any, ...]:
    return (variables, *band.place)


def _of_parent(sizes: Array, shape: tuple[int, ...]) -> Array:
    """Context part from the coarser band, spread to the finer one: children have twice the index, or one more."""
    for axis, n in enumerate(shape, 1):
        m = sizes.shape[axis]
        if m != n:
            sizes = np.take(sizes, np.minimum(np.arange(n) // 2, m - 1), axis=axis)
    out: Array = _PARENT_OF[sizes]
    return out


def _phases(shape: tuple[int, ...]) -> list[_Phase]:
    """Parities of a band in coding order: even sums, then odd ones; axes of length 1 have one parity."""
    rank = len(shape)
    parities = list(itertools.product(*((0, 1) if n > 1 else (0,) for n in shape)))
    parities.sort(key=lambda p: (sum(p) % 2, p))
    steps = [d for d in itertools.product((-1, 0, 1), repeat=rank) if 1 <= sum(map(abs, d)) <= 2]
    steps = [d for d in steps if all(n > 1 or not k for n, k in zip(shape, d, strict=True))]
    known: set[tuple[int, ...]] = set()
    out = []
    for p in parities:
        near = []
        for d in steps:
            if tuple((a + k) % 2 for a, k in zip(p, d, strict=True)) in known:
                counts = [(n - a + 1) // 2 for n, a in zip(shape, p, strict=True)]
                starts = [1 + a + k for a, k in zip(p, d, strict=True)]
                place = tuple(slice(s, s + 2 * c - 1, 2) for s, c in zip(starts, counts, strict=True))
                near.append((place, 3 - sum(map(abs, d))))
        out.append(_Phase(tuple(slice(a, None, 2) for a in p), tuple(near), (1 + sum(p) % 2) if near else 0))
        known.add(p)
    return out
