# SPDX-License-Identifier: MIT
"""Entropy coding of integer arrays with contexts, slab by slab.

An array (S, R1, ..., Rr) is coded one slab after the other. The context of a value is the bit length of
``m = 2 |p| + |neighbours of p| + |pp|``, where p is the value at the same place in the slab before (whole and known to
the decoder), its neighbours are one step along each axis, and pp is the slab before that. A bitmap of slabs that
are not all zero comes first; zero slabs are skipped.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hbae.arrays import Array
from hbae.codecs.bytes_ import ByteReader, ByteWriter, pack, unpack
from hbae.codecs.contexts import SymbolReader, SymbolWriter
from hbae.errors import FormatError

LEVELS = 14
_CLIP = (1 << (LEVELS - 3)) - 1
_LEVEL_OF = np.array([min(int(m).bit_length(), LEVELS - 2) + 1 for m in range(_CLIP * 32 + 1)], np.uint16)


def encode_ints(q: Array) -> bytes:
    """Encode an integer array (magnitudes below 2**61); :func:`decode_ints` gives the same integers."""
    q = np.ascontiguousarray(q, np.int64)
    live = np.array([q[s].any() for s in range(len(q))], bool)
    symbols = SymbolWriter(LEVELS)
    sizes = Magnitudes(q.shape)
    for s in range(len(q)):
        if live[s]:
            symbols.add(q[s].ravel(), sizes.levels(s, 0).ravel())
            sizes.put(s, q[s])
    w = ByteWriter()
    w.raw(pack(np.packbits(live).tobytes(), 19))
    if live.any():
        w.raw(symbols.getvalue())
    return w.getvalue()


def decode_ints(reader: ByteReader, shape: tuple[int, ...]) -> Array:
    """Undo :func:`encode_ints`, giving int64 of ``shape``.

    Raises
    ------
    FormatError
        When the bytes are damaged.
    """
    num_slabs = shape[0]
    bits = unpack(reader, (num_slabs + 7) // 8)
    if len(bits) != (num_slabs + 7) // 8:
        raise FormatError("bitmap of a wrong size")
    live = np.unpackbits(np.frombuffer(bits, np.uint8))[:num_slabs]
    q = np.zeros(shape, np.int64)
    if not live.any():
        return q
    symbols = SymbolReader(reader, LEVELS)
    sizes = Magnitudes(shape)
    for s in range(num_slabs):
        if live[s]:
            q[s] = symbols.take(sizes.levels(s, 0).ravel()).reshape(shape[1:])
            sizes.put(s, q[s])
    return q


class Magnitudes:
    """Clipped magnitudes of the slabs that are known so far; slabs that were not put are zero."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._known: Array = np.zeros(shape, np.uint16)

    def put(self, s: int, values: Array, box: tuple[slice, ...] = ()) -> None:
        """Note the values of a box of slab s."""
        place: tuple[Any, ...] = (s, *box, ...)
        self._known[place] = np.minimum(np.abs(values), _CLIP)

    def levels(self, s: int, first: int, box: tuple[slice, ...] = ()) -> Array:
        """Give levels for a box of slab s (uint16): 0 in slab 0, else 1 .. 13 from the one or two slabs before.

        Neighbours count along axes ``first`` and up, inside the box only.
        """
        before: list[tuple[Any, ...]] = [(s - 1, *box, ...), (s - 2, *box, ...)]
        if s == 0:
            return np.zeros(self._known[before[0]].shape, np.uint16)
        p = self._known[before[0]]
        # 2047 * (3 + 2 axes) fits 16 bits below 15 axes.
        m = p.astype(np.uint16 if p.ndim < 15 else np.uint32) * 2
        for axis in range(first, p.ndim):
            if p.shape[axis] > 1:
                ahead = tuple(slice(1, None) if a == axis else slice(None) for a in range(p.ndim))
                back = tuple(slice(None, -1) if a == axis else slice(None) for a in range(p.ndim))
                m[ahead] += p[back]
                m[back] += p[ahead]
        if s > 1:
            m += self._known[before[1]]
        out: Array = _LEVEL_OF[m if p.ndim < 15 else np.minimum(m, len(_LEVEL_OF) - 1)]
        return out
