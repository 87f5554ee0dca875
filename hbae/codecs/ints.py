# SPDX-License-Identifier: MIT
"""Entropy coding of integer arrays with contexts, slab by slab.

An array (S, R1, ..., Rr) is coded one slab after the other. The context of a value is the class of a mean size
(:mod:`hbae.codecs.neighbours`): of p, which counts twice, its neighbours, and pp. Here p is the value at the same place
in the slab before (whole and known to the decoder), its neighbours are one step along each axis, and pp is the slab
before that. A bitmap of slabs that are not all zero comes first; zero slabs are skipped. Many small slabs are folded
into 64 larger ones: the first holds the old slabs 0, 64, 128, ..., so that the slab before still holds what came
before. NumPy is the reference; where ``_ints.c`` is built, it reads all slabs at once.
"""

from __future__ import annotations

import math

import numpy as np

from hbae.arrays import Array
from hbae.codecs.bytes_ import ByteReader, ByteWriter, pack
from hbae.codecs.contexts import SymbolReader, SymbolWriter, check_fault
from hbae.codecs.masks import read_bits
from hbae.codecs.neighbours import NEAR, class_of, sizes_of
from hbae.errors import FormatError

try:
    from hbae.codecs import _ints
except ImportError:
    _ints = None  # type: ignore[assignment]

LEVELS = 1 + NEAR
SLABS = 64
_SMALL = 1024


def encode_ints(q: Array, far: int = 0) -> bytes:
    """Encode an integer array (magnitudes below 2**61); :func:`decode_ints` gives the same integers.

    ``far``: how many axes after the first have no neighbours along them.
    """
    folds = _folds(q.shape)
    first = far + (folds > 0)
    q = _folded(np.ascontiguousarray(q, np.int64), folds)
    live = np.array([q[s].any() for s in range(len(q))], bool)
    symbols = SymbolWriter(LEVELS)
    sizes = KnownSizes(q.shape)
    for s in range(len(q)):
        if live[s]:
            symbols.add(q[s].ravel(), sizes.levels(s, first).ravel())
            sizes.put(s, q[s])
    w = ByteWriter()
    w.raw(pack(np.packbits(live).tobytes(), 19))
    if live.any():
        w.raw(symbols.getvalue())
    return w.getvalue()


def decode_ints(reader: ByteReader, shape: tuple[int, ...], far: int = 0) -> Array:
    """Undo :func:`encode_ints`, giving int64 of ``shape``.

    Raises
    ------
    FormatError
        When the bytes are damaged.
    """
    folds = _folds(shape)
    first = far + (folds > 0)
    inner = shape if not folds else (SLABS, folds, *shape[1:])
    live = read_bits(reader, inner[0])
    q = np.zeros(inner, np.int64)
    if live.any():
        symbols = SymbolReader(reader, LEVELS)
        _take_slabs(q, live, first, symbols)
        symbols.end()
    if not folds:
        return q
    flat = np.moveaxis(q, 0, 1).reshape(-1, *shape[1:])
    if flat[shape[0] :].any():
        raise FormatError("numbers behind the last one")
    return flat[: shape[0]]


def _take_slabs(q: Array, live: Array, first: int, symbols: SymbolReader) -> None:
    """Read the slabs that are not zero into their places, which hold zeros."""
    if _ints is not None and symbols.buffers is not None:
        classes = class_of(_weight(q.shape[1:], first))
        check_fault(_ints.read(q, live, q.shape[1:], first, classes, symbols.buffers))
        return
    sizes = KnownSizes(q.shape)
    for s in np.flatnonzero(live):
        q[s] = symbols.take(sizes.levels(int(s), first).ravel()).reshape(q.shape[1:])
        sizes.put(int(s), q[s])


def _weight(shape: tuple[int, ...], first: int) -> int:
    """Weights of what tells of a value of a slab: p twice, pp, and neighbours along axes ``first`` and up."""
    return 3 + 2 * sum(n > 1 for n in shape[first:])


def _folds(shape: tuple[int, ...]) -> int:
    """How many old slabs a folded one holds (0: not folded)."""
    return -(-shape[0] // SLABS) if shape[0] > SLABS and math.prod(shape[1:]) < _SMALL else 0


def _folded(q: Array, folds: int) -> Array:
    if not folds:
        return q
    full = np.zeros((folds * SLABS, *q.shape[1:]), np.int64)
    full[: len(q)] = q
    return np.ascontiguousarray(np.moveaxis(full.reshape(folds, SLABS, *q.shape[1:]), 1, 0))


class KnownSizes:
    """Sizes of the values of the slabs that are known so far; slabs that were not put are zero."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._known: Array = np.zeros(shape, np.uint16)

    def put(self, s: int, values: Array) -> None:
        """Note the values of slab s."""
        self._known[s] = sizes_of(values)

    def levels(self, s: int, first: int) -> Array:
        """Give levels for slab s (uint16): 0 in slab 0, else 1 and more from the one or two slabs before.

        Neighbours count along axes ``first`` and up.
        """
        if s == 0:
            return np.zeros(self._known.shape[1:], np.uint16)
        p = self._known[s - 1]
        m = p * np.uint16(2)
        for axis in range(first, p.ndim):
            if p.shape[axis] > 1:
                ahead = tuple(slice(1, None) if a == axis else slice(None) for a in range(p.ndim))
                back = tuple(slice(None, -1) if a == axis else slice(None) for a in range(p.ndim))
                m[ahead] += p[back]
                m[back] += p[ahead]
        if s > 1:
            m += self._known[s - 2]
        out: Array = class_of(_weight(p.shape, first))[m] + np.uint16(1)
        return out
