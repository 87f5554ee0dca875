# SPDX-License-Identifier: MIT
"""Elements of arrays as unsigned words; words as signed integers in the order of their values, or of decimal places."""

from __future__ import annotations

from typing import Any

import numpy as np

from hbae.arrays import Array

MOST_PLACES = 9
# Floats that are looked at first.
_SOME = 64
# Integers below that are exact floats: nothing but the quotient is rounded.
_EXACT = 1 << 53


def word_of(dtype: np.dtype[Any]) -> tuple[str, tuple[int, ...]]:
    """Give the type of the words of an element, and the axes that are added where it has several."""
    if dtype.itemsize in (1, 2, 4, 8):
        order = ">" if dtype.byteorder == ">" else "<"
        return f"{order}u{dtype.itemsize}", ()
    if dtype.itemsize == 16 and dtype.kind == "c":
        return (">u8" if dtype.byteorder == ">" else "<u8"), (2,)
    return "<u1", (dtype.itemsize,)


def number_of(dtype: np.dtype[Any]) -> tuple[str, tuple[int, ...], bool] | None:
    """Give type and added axes of the words of a number, and whether they are floats; complex ones have two words.

    None for text, and for numbers whose words are larger than 8 bytes.
    """
    parts = 2 if dtype.kind == "c" else 1
    size = dtype.itemsize // parts
    if dtype.kind not in "biufc" or size not in (1, 2, 4, 8):
        return None
    order = ">" if dtype.byteorder == ">" else "<"
    return f"{order}u{size}", (2,) * (parts == 2), dtype.kind in "fc"


def split_words(a: Array, word: str, tail: tuple[int, ...]) -> Array:
    """Give the words of an array, on added last axes."""
    return np.frombuffer(np.ascontiguousarray(a).tobytes(), word).reshape((*a.shape, *tail))


def common_zeros(words: Array) -> int:
    """How many low bits no word has; 0 where all words are 0."""
    used = int(np.bitwise_or.reduce(words, axis=None)) if words.size else 0
    return (used & -used).bit_length() - 1 if used else 0


def to_order(words: Array, zeros: int, floating: bool) -> Array:
    """Give words (unsigned) without low zeros as signed integers; those of floats in the order of their values."""
    native = np.ascontiguousarray(words, words.dtype.newbyteorder("="))
    signed = native.view(f"i{native.itemsize}")
    if not floating:
        return signed >> zeros
    low = np.array((1 << (8 * native.itemsize - 1)) - 1, signed.dtype)
    # A negative float has its magnitude behind the sign: -1 for -0.0, and down from there.
    return np.where(signed < 0, ~((signed & low) >> zeros), signed >> zeros)


def from_order(values: Array, zeros: int, floating: bool) -> Array:
    """Undo :func:`to_order`, giving unsigned words in this machine's order."""
    unsigned = np.dtype(f"u{values.itemsize}")
    values = np.ascontiguousarray(values)
    if not floating:
        return (values << zeros).view(unsigned)
    top = unsigned.type(1 << (8 * values.itemsize - 1))
    # All bits where a value is negative, none where it is not.
    signs = values >> (8 * values.itemsize - 1)
    words: Array = (values ^ signs).view(unsigned)
    words <<= unsigned.type(zeros)
    words &= ~top
    words |= signs.view(unsigned) & top
    return words


def find_places(x: Array) -> int | None:
    """Give the least number of decimal places with which all floats can be written; None if that is too many."""
    some = x.ravel()[:: max(1, x.size // _SOME)]
    for places in range(MOST_PLACES + 1):
        if to_places(some, places) is not None and to_places(x, places) is not None:
            return places
    return None


def to_places(x: Array, places: int) -> Array | None:
    """Give floats as signed integers of their size, in units of 10**-places; None where :func:`from_places` differs."""
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = np.rint(x.astype(np.float64) * 10.0**places)
    if not (np.abs(scaled) < min(_EXACT, 1 << (8 * x.itemsize - 1))).all():
        return None
    values = scaled.astype(f"i{x.itemsize}")
    back = from_places(values, places)
    return values if back.tobytes() == x.astype(back.dtype).tobytes() else None


def from_places(values: Array, places: int) -> Array:
    """Give floats of the integers' size, as many units of 10**-places; a quotient in float64, rounded to that size."""
    with np.errstate(over="ignore"):
        return (values.astype(np.float64) / 10.0**places).astype(f"f{values.itemsize}")
