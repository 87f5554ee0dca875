# SPDX-License-Identifier: MIT
"""Integers that take few values, as codes into a book of those values."""

from __future__ import annotations

import numpy as np

from hbae.arrays import Array
from hbae.errors import FormatError

MOST = 1 << 12


def split_book(values: Array) -> tuple[Array, Array] | None:
    """Give codes (int64, the shape of ``values``) and the book (n,) of distinct values; None for more than 4096.

    The book ascends and holds 0, whose code is 0; other codes count from there, so that small magnitudes have small
    codes.
    """
    book = np.union1d(values, [0]).astype(np.int64)
    if len(book) > MOST:
        return None
    return np.searchsorted(book, values) - int(np.searchsorted(book, 0)), book


def join_book(codes: Array, book: Array) -> Array:
    """Undo :func:`split_book`.

    Raises
    ------
    FormatError
        When the book does not ascend, lacks 0, or a code is outside it.
    """
    if book.ndim != 1 or len(book) > MOST or (book[1:] <= book[:-1]).any() or np.count_nonzero(book == 0) != 1:
        raise FormatError("codebook: values must ascend and hold 0")
    zero = int(np.flatnonzero(book == 0)[0])
    if codes.size and not -zero <= int(codes.min()) <= int(codes.max()) < len(book) - zero:
        raise FormatError("codebook: a code is outside the book")
    out: Array = book[codes + zero]
    return out
