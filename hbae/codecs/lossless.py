# SPDX-License-Identifier: MIT
"""Lossless arrays: difference or XOR along an axis, byte shuffle, zstd; the smallest of a few is kept.

Works on the stored bytes (seen as unsigned little-endian words), so every bit pattern comes back: NaN payloads, -0.0,
denormals.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
import zstandard

from hbae.arrays import Array
from hbae.codecs.bytes_ import ByteReader, ByteWriter, pack, unpack
from hbae.errors import FormatError

_TRIAL = 1 << 18
# zstd levels: as a rule, of a search, of a search where time does not matter.
_LEVEL, _LEVEL_SEARCH, _LEVEL_SMALL = 12, 16, 19
_SMALL = 1 << 18
# Ways that a search tries with and without shuffle; where the array is larger than that, so many go on from a trial at
# a level that is three times as fast.
_MOST = 3
_TINY, _LAST, _LEVEL_TRIAL = 1 << 16, 2, 9


def encode_lossless(a: Array, *, search: bool = False) -> bytes:
    """Encode any array of fixed-size elements; :func:`decode_lossless` gives the same bytes.

    ``search`` codes the whole array in the ways that promise most, at a high level, and keeps the smallest: for small
    arrays, as it takes a quarter of a second a MiB.

    Layout: one byte mode (0 none, 1 difference, 2 XOR), one byte axis, one byte shuffle (0/1), then a part as made by
    ``pack``. Words are the elements' bytes read as unsigned integers of 1, 2, 4 or 8 bytes (16-byte elements as two
    words, other sizes as bytes, on an added last axis).
    """
    words = _words(a)
    part = _middle(words)
    ways = sorted(_candidates(words), key=lambda c: _trial_size(part, *c))
    if not search:
        return _coded(words, ways[0], _LEVEL)
    # Part and low level mislead most where values repeat far away: unshuffled, at a high level, zstd finds them.
    chosen = [c for s in (0, 1) for c in [w for w in ways if w[2] == s][:_MOST]]
    if words.nbytes > _TINY:
        chosen = sorted(chosen, key=lambda c: len(_coded(words, c, _LEVEL_TRIAL)))[:_LAST]
    level = _LEVEL_SMALL if words.nbytes <= _SMALL else _LEVEL_SEARCH
    return min((_coded(words, c, level) for c in chosen), key=len)


def _coded(words: Array, way: tuple[int, int, int], level: int) -> bytes:
    w = ByteWriter()
    w.raw(bytes(way))
    w.raw(pack(_forward(words, *way), level))
    return w.getvalue()


def decode_lossless(reader: ByteReader, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Undo :func:`encode_lossless`.

    Raises
    ------
    FormatError
        When the bytes are damaged.
    """
    mode, axis, shuffle = reader.raw(3)
    nbytes = math.prod(shape) * dtype.itemsize
    data = unpack(reader, nbytes)
    if len(data) != nbytes:
        raise FormatError("lossless array of a wrong size")
    unit, tail = _unit(dtype)
    full = (*shape, *tail)
    size = np.dtype(unit).itemsize
    if mode > 2 or shuffle > (size > 1) or (axis >= len(full) if mode else axis):
        raise FormatError("unknown lossless mode")
    raw = np.frombuffer(data, np.uint8)
    if shuffle:
        raw = raw.reshape(size, -1).T.ravel()
    words = raw.view(unit).reshape(full).astype(f"=u{size}")
    if mode:
        (np.add if mode == 1 else np.bitwise_xor).accumulate(words, axis=axis, out=words)
    return words.astype(unit, copy=False).view(dtype).reshape(shape)


def _unit(dtype: np.dtype[Any]) -> tuple[str, tuple[int, ...]]:
    if dtype.itemsize in (1, 2, 4, 8):
        order = ">" if dtype.byteorder == ">" else "<"
        return f"{order}u{dtype.itemsize}", ()
    if dtype.itemsize == 16 and dtype.kind == "c":
        return (">u8" if dtype.byteorder == ">" else "<u8"), (2,)
    return "<u1", (dtype.itemsize,)


def _words(a: Array) -> Array:
    unit, tail = _unit(a.dtype)
    return np.frombuffer(np.ascontiguousarray(a).tobytes(), unit).reshape((*a.shape, *tail))


def _candidates(words: Array) -> list[tuple[int, int, int]]:
    axes = [i for i, n in enumerate(words.shape) if n > 1][-2:]
    shuffles = (0, 1) if words.dtype.itemsize > 1 else (0,)
    return [(0, 0, s) for s in shuffles] + [(m, ax, s) for m in (1, 2) for ax in axes for s in shuffles]


def _forward(words: Array, mode: int, axis: int, shuffle: int) -> bytes:
    if mode and words.size:
        before = np.zeros_like(words)
        src = tuple(slice(None, -1) if k == axis else slice(None) for k in range(words.ndim))
        dst = tuple(slice(1, None) if k == axis else slice(None) for k in range(words.ndim))
        before[dst] = words[src]
        words = (words - before if mode == 1 else words ^ before).astype(words.dtype)
    data = np.ascontiguousarray(words)
    if shuffle:
        return np.ascontiguousarray(
            np.frombuffer(data.tobytes(), np.uint8).reshape(-1, words.dtype.itemsize).T
        ).tobytes()
    return data.tobytes()


def _middle(words: Array) -> Array:
    """A part from the middle that stands for the whole."""
    part = words
    long = [a for a, n in enumerate(words.shape) if n > 1]
    for a, least, room in zip(long, (1, 2), (_TRIAL, 4 * _TRIAL), strict=False):
        if part.nbytes > room:
            kept = max(least, int(part.shape[a] * room / part.nbytes))
            start = (part.shape[a] - kept) // 2
            part = part[(slice(None),) * a + (slice(start, start + kept),)]
    return part


def _trial_size(part: Array, mode: int, axis: int, shuffle: int) -> int:
    """Size of a part, coded fast."""
    return len(zstandard.ZstdCompressor(level=3).compress(_forward(part, mode, axis, shuffle)))


def estimate_lossless(a: Array) -> int:
    """Estimate from a part of the array how many bytes :func:`encode_lossless` would need."""
    words = _words(a)
    if not words.nbytes:
        return 3
    part = _middle(words)
    size = _smallest(part.tobytes(), part.dtype.str, part.shape, tuple(_candidates(words)))
    return int(size * words.size / max(part.size, 1))


@lru_cache(maxsize=16)
def _smallest(data: bytes, dtype: str, shape: tuple[int, ...], ways: tuple[tuple[int, int, int], ...]) -> int:
    """Every plan that is weighed on a box asks for the same."""
    part = np.frombuffer(data, dtype).reshape(shape)
    return min(_trial_size(part, *way) for way in ways)
