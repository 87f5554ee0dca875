# SPDX-License-Identifier: MIT
"""Entropy coding of integer arrays with contexts, slab by slab.

An array (S, R1, ..., Rr) is coded one slab after the other. The context of a value is (a) its bucket: the expected
magnitude from per-axis log scales, and (b) the bit length of ``m = 2 |p| + |neighbours of p| + |pp|``, where p is the
value at the same place in the slab before (whole and known to the decoder), its neighbours are one step along the
marked axes, and pp is the slab before that. A bitmap of slabs that are not all zero comes first; zero slabs are
skipped.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hbae.arrays import Array
from hbae.codecs.bytes_ import ByteReader, ByteWriter, pack
from hbae.codecs.contexts import SymbolReader, SymbolWriter
from hbae.codecs.masks import read_bits

BUCKETS = 40
LEVELS = 14
CONTEXTS = BUCKETS * LEVELS
_CLIP = (1 << (LEVELS - 3)) - 1
_LEVEL_OF = np.array([min(int(m).bit_length(), LEVELS - 2) + 1 for m in range(_CLIP * 32 + 1)], np.uint8)


@dataclass(frozen=True)
class IntShape:
    """What encoder and decoder both know of an array: its shape, log scales of its axes, and neighbour axes.

    ``logs``: for every axis an integer array (0 = largest magnitude, each step half a factor of two smaller), or
    None. ``near``: for every axis but the first, whether neighbours along it count.
    """

    shape: tuple[int, ...]
    logs: tuple[Array | None, ...]
    near: tuple[bool, ...]

    @staticmethod
    def plain(shape: tuple[int, ...]) -> IntShape:
        """An array without scales whose neighbours count on all axes."""
        return IntShape(shape, (None,) * len(shape), (True,) * (len(shape) - 1))

    def buckets(self, s: int) -> Array:
        """Buckets of slab s, shape R1 x ... x Rr, uint8 values below 40."""
        total = np.zeros(self.shape[1:], np.int32)
        if self.logs[0] is not None:
            total += int(self.logs[0][s])
        for i, logs in enumerate(self.logs[1:]):
            if logs is not None:
                total += logs.reshape([-1 if k == i else 1 for k in range(len(self.shape) - 1)]).astype(np.int32)
        return np.clip(total, 0, BUCKETS - 1).astype(np.uint16)


def encode_ints(q: Array, known: IntShape) -> bytes:
    """Encode an integer array (magnitudes below 2**61); :func:`decode_ints` gives the same integers."""
    q = np.ascontiguousarray(q, np.int64).reshape(known.shape)
    live = np.array([q[s].any() for s in range(len(q))], bool)
    by_level = np.arange(CONTEXTS).reshape(BUCKETS, LEVELS).T.ravel()
    symbols = SymbolWriter(CONTEXTS, by_level)
    for s in np.flatnonzero(live):
        symbols.add(q[s].ravel(), _contexts(q, int(s), known).ravel())
    w = ByteWriter()
    w.raw(pack(np.packbits(live).tobytes(), 19))
    if live.any():
        w.raw(symbols.getvalue())
    return w.getvalue()


def decode_ints(reader: ByteReader, known: IntShape) -> Array:
    """Undo :func:`encode_ints`, giving int64 of ``known.shape``.

    Raises
    ------
    FormatError
        When the bytes are damaged.
    """
    live = read_bits(reader, known.shape[0])
    q = np.zeros(known.shape, np.int64)
    if not live.any():
        return q
    symbols = SymbolReader(reader, CONTEXTS)
    for s in np.flatnonzero(live):
        q[s] = symbols.take(_contexts(q, int(s), known).ravel()).reshape(known.shape[1:])
    symbols.end()
    return q


def _contexts(q: Array, s: int, known: IntShape) -> Array:
    """Context of every value of slab s; uses slabs before s only."""
    ctx = known.buckets(s) * np.uint16(LEVELS)
    if s == 0:
        return ctx
    p = np.minimum(np.abs(q[s - 1]), _CLIP).astype(np.uint16)
    m = p.astype(np.uint16 if p.ndim < 15 else np.uint32) * 2  # 2047 (3 + 2 axes) fits 16 bits below 15 axes
    for axis, near in enumerate(known.near):
        if near and p.shape[axis] > 1:
            ahead = tuple(slice(1, None) if a == axis else slice(None) for a in range(p.ndim))
            back = tuple(slice(None, -1) if a == axis else slice(None) for a in range(p.ndim))
            m[ahead] += p[back]
            m[back] += p[ahead]
    if s > 1:
        m += np.minimum(np.abs(q[s - 2]), _CLIP).astype(np.uint16)
    out: Array = ctx + _LEVEL_OF[m if p.ndim < 15 else np.minimum(m, len(_LEVEL_OF) - 1)]
    return out
