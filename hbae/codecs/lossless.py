# SPDX-License-Identifier: MIT
"""Lossless arrays: bytes (differences or XOR, byte shuffle, zstd), or words that predict each other if that pays.

Works on the stored bytes (seen as unsigned words), so every bit pattern comes back: NaN payloads, -0.0, denormals.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import lru_cache, partial
from typing import Any

import numpy as np
import zstandard

from hbae.arrays import Array
from hbae.codecs.bytes_ import ByteReader, pack, unpack
from hbae.codecs.planes import BYTES, CODED, SHUFFLED, Prediction, decode_predicted, find_predictions
from hbae.codecs.predict import add_along
from hbae.codecs.words import (
    MOST_PLACES,
    common_zeros,
    find_places,
    from_order,
    from_places,
    number_of,
    split_words,
    to_order,
    to_places,
    word_of,
)
from hbae.errors import FormatError

_PREDICTED = 3
# A byte says what integers are: below this, words without so many low zeros; else units of so many places more.
_DECIMAL = 64
_TRIAL = 1 << 18
# zstd levels: as a rule, of a search, of a search where time does not matter.
_LEVEL, _LEVEL_SEARCH, _LEVEL_SMALL = 12, 16, 19
_SMALL = 1 << 18
# Ways that a search tries with and without shuffle; where the array is larger than that, so many go on from a trial at
# a level that is three times as fast.
_MOST = 3
_TINY, _LAST, _LEVEL_TRIAL, _LEVEL_FAST = 1 << 16, 2, 9, 3
# How up to so many words predict each other is found out on all of them.
_ALL = 1 << 20
# Without a search, predicted words have to be smaller by so much: they take longer to read.
_WORTH = 0.95
_MOST_AXES = 32
# Bytes of arrays whose codes are kept for the next plan.
_KEPT = 1 << 20

# Gives an array's code at a level of zstd; None where it cannot be coded so.
_Code = Callable[[int], bytes | None]


def encode_lossless(a: Array, *, search: bool = False) -> bytes:
    """Encode any array of fixed-size elements; :func:`decode_lossless` gives the same bytes.

    ``search`` codes the whole array in the ways that promise most, at a high level, and keeps the smallest: for small
    arrays, as it takes half a second a MiB.

    Layout: one byte mode (0 none, 1 difference, 2 XOR), one byte axis, one byte shuffle (0/1), then a part as made by
    ``pack``. Words are the elements' bytes read as unsigned integers of 1, 2, 4 or 8 bytes (16-byte elements as two
    words, other sizes as bytes, on an added last axis). Mode 3: one byte, how many low bits of all words are zero, or
    64 and more for floats with so many decimal places, then what :meth:`Prediction.encode` gives.
    """
    if search:
        return _searched(a)
    if a.nbytes > _KEPT:
        return _quick(a)
    return _kept(np.ascontiguousarray(a).tobytes(), a.dtype.str, a.shape)


@lru_cache(maxsize=16)
def _kept(data: bytes, dtype: str, shape: tuple[int, ...]) -> bytes:
    """Every plan that is weighed on a box asks for the same."""
    return _quick(np.frombuffer(data, dtype).reshape(shape))


def _quick(a: Array) -> bytes:
    words = split_words(a, *word_of(a.dtype))
    plain = _coded(words, _sorted_ways(words)[0], _LEVEL)
    if words.size > _ALL:
        part = _middle(a)
        some = split_words(part, *word_of(part.dtype))
        least, found = min(_trial_size(some, *way) for way in _candidates(some)), _all_predicted(part)
        ways = [p for c, p in found if len(c) < _WORTH * least]
        # Decimal places of the part may not be those of all.
        predicted = next((c for c in (_predicted(a, p, (CODED,), _LEVEL) for p in ways) if c is not None), None)
    else:
        predicted = next((c for c, _ in _all_predicted(a)), None)
    return plain if predicted is None or len(predicted) > _WORTH * len(plain) else predicted


def _searched(a: Array) -> bytes:
    words = split_words(a, *word_of(a.dtype))
    ways = _sorted_ways(words)
    # Part and low level mislead most where values repeat far away: unshuffled, at a high level, zstd finds them.
    chosen = [c for s in (0, 1) for c in [w for w in ways if w[2] == s][:_MOST]]
    plain: list[_Code] = [partial(_coded, words, c) for c in chosen]
    found = _predictions(a if words.size <= _ALL else _middle(a))
    coded = [_predicted(a, p, (CODED,), _LEVEL) for p in found]
    stored: list[_Code] = [
        partial(_predicted, a, p, (k,)) for p in found for k in (BYTES, SHUFFLED) if words.itemsize > k
    ]
    if words.nbytes <= _TINY:
        # Of few bytes, a lower level is smaller now and then.
        return _shortest([*coded, *(code(v) for code in plain + stored for v in (_LEVEL_SMALL, _LEVEL))])
    plain = sorted(plain, key=lambda code: _length(code(_LEVEL_TRIAL)))[:_LAST]
    stored = sorted(stored, key=lambda code: _length(code(_LEVEL_FAST)))[:1]
    if stored and _length(stored[0](_LEVEL_TRIAL)) > _length(plain[0](_LEVEL_TRIAL)):
        stored = []
    level = _LEVEL_SMALL if words.nbytes <= _SMALL else _LEVEL_SEARCH
    return _shortest([*coded, *(code(level) for code in plain + stored)])


def _shortest(coded: Iterable[bytes | None]) -> bytes:
    return min((c for c in coded if c is not None), key=len)


def _length(coded: bytes | None) -> float:
    return math.inf if coded is None else len(coded)


def _coded(words: Array, way: tuple[int, int, int], level: int) -> bytes:
    return bytes(way) + pack(_forward(words, *way), level)


def _predictions(a: Array) -> list[tuple[int | None, Prediction]]:
    """Find out how words of an array predict each other (None), and its decimal places; nothing for no numbers."""
    number = number_of(a.dtype)
    if number is None or not 0 < a.ndim <= _MOST_AXES or not a.size:
        return []
    word, tail, floating = number
    ways: list[int | None] = [None]
    if floating:
        places = find_places(split_words(a, word.replace("u", "f"), tail))
        ways += [] if places is None else [places]
    integers = ((w, _integers(a, w)[1]) for w in ways)
    return [(w, p) for w, values in integers if values is not None for p in find_predictions(values)]


def _integers(a: Array, places: int | None) -> tuple[int, Array | None]:
    """Give signed integers of an array's words (None), or of its decimal places, and the byte that says which they are.

    No integers where some values have more places.
    """
    number = number_of(a.dtype)
    assert number is not None
    word, tail, floating = number
    if places is not None:
        return _DECIMAL + places, to_places(split_words(a, word.replace("u", "f"), tail), places)
    words = split_words(a, word, tail)
    zeros = common_zeros(words)
    return zeros, to_order(words, zeros, floating)


def _predicted(a: Array, way: tuple[int | None, Prediction], kinds: tuple[int, ...], level: int) -> bytes | None:
    form, values = _integers(a, way[0])
    coded = None if values is None else way[1].encode(values, kinds, level)
    return None if coded is None else bytes([_PREDICTED, form]) + coded


def _all_predicted(a: Array) -> list[tuple[bytes, tuple[int | None, Prediction]]]:
    """Give codes of predicted integers, the smallest first, and how they are predicted."""
    tried = [(_predicted(a, p, (CODED,), _LEVEL), p) for p in _predictions(a)]
    return sorted(((c, p) for c, p in tried if c is not None), key=lambda t: len(t[0]))


def decode_lossless(reader: ByteReader, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Undo :func:`encode_lossless`.

    Raises
    ------
    FormatError
        When the bytes are damaged.
    """
    mode = reader.raw(1)[0]
    if mode == _PREDICTED:
        return _decode_predicted(reader, shape, dtype)
    axis, shuffle = reader.raw(2)
    nbytes = math.prod(shape) * dtype.itemsize
    data = unpack(reader, nbytes)
    if len(data) != nbytes:
        raise FormatError("lossless array of a wrong size")
    unit, tail = word_of(dtype)
    full = (*shape, *tail)
    size = np.dtype(unit).itemsize
    if mode > _PREDICTED or shuffle > (size > 1) or (axis >= len(full) if mode else axis):
        raise FormatError("unknown lossless mode")
    raw = np.frombuffer(data, np.uint8)
    if shuffle:
        raw = raw.reshape(size, -1).T.ravel()
    words = raw.view(unit).reshape(full).astype(f"=u{size}")
    if mode == 1:
        add_along(words, axis)
    elif mode:
        np.bitwise_xor.accumulate(words, axis=axis, out=words)
    return words.astype(unit, copy=False).view(dtype).reshape(shape)


def _decode_predicted(reader: ByteReader, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    number = number_of(dtype)
    if number is None or not shape or not math.prod(shape):
        raise FormatError("an array without numbers cannot be predicted")
    word, tail, floating = number
    size = np.dtype(word).itemsize
    form = reader.raw(1)[0]
    places = form - _DECIMAL
    if form >= 8 * size and not (floating and 0 <= places <= MOST_PLACES):
        raise FormatError("more zero bits than a word has")
    values = decode_predicted(reader, (*shape, *tail), size)
    if places >= 0:
        parts = from_places(values, places).view(f"u{size}")
    else:
        parts = from_order(values, form, floating)
    return np.ascontiguousarray(parts.astype(word, copy=False)).view(dtype).reshape(shape)


def _sorted_ways(words: Array) -> list[tuple[int, int, int]]:
    """Sort ways by the size that a part has in them."""
    part = _middle(words)
    return sorted(_candidates(words), key=lambda c: _trial_size(part, *c))


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


def _middle(a: Array) -> Array:
    """A part from the middle that stands for the whole."""
    part = a
    long = [axis for axis, n in enumerate(a.shape) if n > 1]
    for axis, least, room in zip(long, (1, 2), (_TRIAL, 4 * _TRIAL), strict=False):
        if part.nbytes > room:
            kept = max(least, int(part.shape[axis] * room / part.nbytes))
            start = (part.shape[axis] - kept) // 2
            part = part[(slice(None),) * axis + (slice(start, start + kept),)]
    return part


def _trial_size(part: Array, mode: int, axis: int, shuffle: int) -> int:
    """Size of a part, coded fast."""
    return len(zstandard.ZstdCompressor(level=3).compress(_forward(part, mode, axis, shuffle)))


def estimate_lossless(a: Array) -> int:
    """Estimate from a part of the array how many bytes :func:`encode_lossless` would need."""
    if not a.nbytes:
        return 3
    part = _middle(a)
    return int(_smallest(part.tobytes(), part.dtype.str, part.shape) * a.size / max(part.size, 1))


@lru_cache(maxsize=16)
def _smallest(data: bytes, dtype: str, shape: tuple[int, ...]) -> int:
    """Every plan that is weighed on a box asks for the same."""
    part = np.frombuffer(data, dtype).reshape(shape)
    words = split_words(part, *word_of(part.dtype))
    plain = min(_trial_size(words, *way) for way in _candidates(words))
    predicted = min((len(c) for c, _ in _all_predicted(part)), default=plain)
    return plain if predicted > _WORTH * plain else predicted
