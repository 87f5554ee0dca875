# SPDX-License-Identifier: MIT
"""Signed integers as tokens of a small alphabet plus raw bits.

Zigzag ``u = (v << 1) ^ (v >> 63)``. ``u < 32`` is its own token. Else, with ``n`` the bit length of ``u`` (6 to 62),
the token is ``32 + 2 (n - 6) + b`` where ``b`` is the bit below the leading one, and the ``n - 2`` lower bits follow
as raw bits, highest first.
"""

from __future__ import annotations

import numpy as np

from hbae.arrays import Array
from hbae.errors import FormatError, TruncatedError

DIRECT = 32
MAX_TOKENS = DIRECT + 2 * 57
LARGEST = 1 << 61
# Values whose raw bits are spread out at once: each bit takes some 40 bytes.
_RUN = 1 << 16


def to_tokens(v: Array) -> tuple[Array, Array, Array]:
    """Give tokens (int32), and number and value of the raw bits of those tokens that have some.

    Raises
    ------
    FormatError
        When a magnitude is 2**61 or more.
    """
    if v.size and not -LARGEST < int(v.min()) <= int(v.max()) < LARGEST:
        raise FormatError("an integer is too large to be coded")
    big = np.flatnonzero(np.abs(v) >= DIRECT // 2)
    tokens = v.astype(np.int32)
    tokens = (tokens << 1) ^ (tokens >> 31)
    if big.size:
        vb = v[big]
        ub = ((vb << 1) ^ (vb >> 63)).view(np.uint64)
        big, ub = big[ub >= DIRECT], ub[ub >= DIRECT]
    if big.size == 0:
        return tokens, big, big.astype(np.uint64)
    n = _bit_length(ub)
    low = (n - 2).astype(np.uint64)
    tokens[big] = DIRECT + 2 * (n - 6) + ((ub >> low) & np.uint64(1)).astype(np.int32)
    return tokens, n - 2, ub & ((np.uint64(1) << low) - np.uint64(1))


def raw_counts(tokens: Array) -> Array:
    """How many raw bits follow each token at or above 32."""
    return (tokens - DIRECT) // 2 + 4


def from_tokens(tokens: Array, raw: Array) -> Array:
    """Undo :func:`to_tokens`; ``raw`` holds the values of the raw bits of the large tokens, in order."""
    small = tokens.astype(np.int64)
    values = (small >> 1) ^ -(small & 1)
    big = np.flatnonzero(tokens >= DIRECT)
    if big.size:
        t = small[big]
        low = raw_counts(t).astype(np.uint64)
        u = ((np.uint64(2) | ((t - DIRECT) & 1).astype(np.uint64)) << low) | raw
        values[big] = (u >> np.uint64(1)).view(np.int64) ^ -(u & np.uint64(1)).view(np.int64)
    return values


def _bit_length(u: Array) -> Array:
    n = np.frexp(u.astype(np.float64))[1].astype(np.int32)
    out: Array = n - ((u >> (n - 1).astype(np.uint64)) == 0)
    return out


def pack_bits(counts: Array, values: Array) -> Array:
    """Give the bits (uint8 0/1) of all values, highest first, one after the other."""
    out = np.empty(int(counts.sum()), np.uint8)
    at = 0
    for i in range(0, len(counts), _RUN):
        owner, place = _places(counts[i : i + _RUN])
        out[at : at + len(owner)] = (values[i : i + _RUN][owner] >> place) & np.uint64(1)
        at += len(owner)
    return out


def _places(counts: Array) -> tuple[Array, Array]:
    """For every bit of some values: which value it belongs to, and by how much it is shifted there."""
    owner = np.repeat(np.arange(len(counts)), counts)
    last = np.cumsum(counts) - 1
    return owner, (last[owner] - np.arange(len(owner))).astype(np.uint64)


class BitCursor:
    """Reads raw bits in order."""

    def __init__(self, data: bytes, start: int = 0) -> None:
        self._data = np.frombuffer(data, np.uint8)
        self._pos = start

    def take(self, counts: Array) -> Array:
        """Give the next values, of ``counts`` bits each.

        Raises
        ------
        TruncatedError
            When the bits run out.
        """
        out = np.empty(len(counts), np.uint64)
        for i in range(0, len(counts), _RUN):
            run = counts[i : i + _RUN]
            _, place = _places(run)
            bits = self._next(len(place)).astype(np.uint64)
            out[i : i + _RUN] = np.add.reduceat(bits << place, np.cumsum(run) - run)
        return out

    def _next(self, n: int) -> Array:
        stop = self._pos + n
        if stop > 8 * len(self._data):
            raise TruncatedError("raw bits run out")
        first = self._pos // 8
        bits = np.unpackbits(self._data[first : -(-stop // 8)])[self._pos - 8 * first :][:n]
        self._pos = stop
        return bits

    def end(self) -> None:
        """Check that only the zeros that fill the last byte are left.

        Raises
        ------
        FormatError
            When something else is left.
        """
        left = 8 * len(self._data) - self._pos
        if left > 7 or self._next(left).any():
            raise FormatError("raw bits are left over")
