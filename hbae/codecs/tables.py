# SPDX-License-Identifier: MIT
"""Frequency tables: integers that sum to 2**14, and the choice of which contexts share one.

Bits are integers, 2**-20 each, so that a choice is the same everywhere. NumPy is the reference; where ``_tables.c`` is
built, it counts them faster.
"""

from __future__ import annotations

import numpy as np

from hbae.arrays import Array
from hbae.codecs.bytes_ import ByteReader, ByteWriter
from hbae.codecs.tokens import MAX_TOKENS
from hbae.errors import FormatError

try:
    from hbae.codecs import _tables
except ImportError:
    _tables = None  # type: ignore[assignment]

TABLE_BITS = 14
TABLE_SUM = 1 << TABLE_BITS
# Fractional bits of costs and logarithms; steps of the table of logarithms between 1 and 2, as a power of two.
_FINE, _LOG_BITS = 20, 10
# Tables at the start of the search, turns of it, bits that another run of contexts costs; a token that was seen once
# counts so many times as much as one that was not.
_MOST_TABLES, _TURNS, _RUN, _SEEN = 160, 5, 24, 50
# Bits of a table and of each of its tokens.
_TABLE, _TOKEN = 12, 9
_NEVER = np.iinfo(np.int64).min


def merge_contexts(counts: Array) -> tuple[Array, Array]:
    """Give each context (row of counts) a table so that tables plus symbols cost few bits.

    Neighbours are joined while that saves bits. Then, in turns, tables that are alike are joined, and every context
    goes to the table that codes it in the fewest bits.

    Parameters
    ----------
    counts : (C, A) array
        How often each token occurs in each context; rows in an order in which neighbours are alike.

    Returns
    -------
    labels : (C,) array
        Table of each context (-1 for empty contexts).
    merged : (tables, A) array
        Summed counts.
    """
    rows, labels = np.flatnonzero(counts.any(axis=1)), np.full(len(counts), -1)
    if not rows.size:
        return labels, np.zeros((0, counts.shape[1]), np.int64)
    used = int(np.flatnonzero(counts.any(axis=0))[-1]) + 1
    hist = np.ascontiguousarray(counts[rows, :used], np.int64)
    table, merged = _join_neighbours(hist)
    for turn in range(_TURNS):
        table, merged = _join_alike(table, merged)
        if turn < _TURNS - 1:
            table, merged = _deal_out(hist, merged)
    # Tables in the order in which contexts use them.
    _, first = np.unique(table, return_index=True)
    order = np.argsort(first)
    labels[rows] = np.argsort(order)[table]
    out = np.zeros((len(merged), counts.shape[1]), np.int64)
    out[:, :used] = merged[order]
    return labels, out


def filled(labels: Array, used: Array) -> Array:
    """Give contexts that are not used the label of the used one before them, those in front the first one's."""
    where = np.flatnonzero(used)
    if not where.size:
        return labels
    at = np.maximum(np.cumsum(used) - 1, 0)
    out: Array = labels[where[at]]
    return out


def write_runs(w: ByteWriter, labels: Array) -> None:
    """Append labels of contexts as runs: number, label of each, length of each but the last."""
    begins = np.flatnonzero(np.diff(labels, prepend=-1))
    w.varint(len(begins))
    for label in labels[begins].tolist():
        w.varint(label)
    for length in np.diff(begins).tolist():
        w.varint(length - 1)


def read_runs(r: ByteReader, count: int) -> Array:
    """Undo :func:`write_runs` for that many contexts.

    Raises
    ------
    FormatError
        When the runs do not fit, or two that follow each other have one label.
    """
    runs = r.varint()
    if not 1 <= runs <= count:
        raise FormatError("wrong number of runs of contexts")
    labels = np.array(r.varints(runs), np.int64)
    lengths = [n + 1 for n in r.varints(runs - 1)]
    lengths.append(count - sum(lengths))
    if lengths[-1] < 1 or labels.max() >= count or (labels[1:] == labels[:-1]).any():
        raise FormatError("runs of contexts do not fit")
    return np.repeat(labels, lengths)


def _join_neighbours(hist: Array) -> tuple[Array, Array]:
    """Join rows that follow each other while that saves bits, until few are left: table of each row, sums."""
    ends, merged, costs = np.arange(1, len(hist) + 1), hist.copy(), _costs(hist)
    while len(merged) > 1:
        joint = _costs(merged[:-1], merged[1:])
        gain = costs[:-1] + costs[1:] - joint
        best = np.flatnonzero(_local_maxima(gain) & (gain > 0))
        if not best.size and len(merged) > _MOST_TABLES:
            best = np.flatnonzero(_local_maxima(gain))
            best = np.sort(best[np.argsort(-gain[best], kind="stable")][: len(merged) - _MOST_TABLES])
        if not best.size:
            break
        merged[best + 1] += merged[best]
        costs[best + 1] = joint[best]
        left = np.ones(len(merged), bool)
        left[best] = False
        ends, merged, costs = ends[left], merged[left], costs[left]
    return np.repeat(np.arange(len(ends)), np.diff(ends, prepend=0)), merged


def _join_alike(table: Array, merged: Array) -> tuple[Array, Array]:
    """Join any two tables while that saves bits, the best of disjoint pairs at a time."""
    while len(merged) > 1:
        n, costs = len(merged), _costs(merged)
        gain = (costs[:, None] + costs - _pair_costs(merged)).ravel()
        worth = np.flatnonzero((gain > 0) & np.triu(np.ones((n, n), bool), 1).ravel())
        into = np.arange(n)
        free = np.ones(n, bool)
        for pair in worth[np.argsort(-gain[worth], kind="stable")].tolist():
            i, j = divmod(pair, n)
            if free[i] and free[j]:
                free[[i, j]] = False
                into[j] = i
        if free.all():
            break
        table, merged = _summed(into[table], merged, into)
    return table, merged


def _deal_out(hist: Array, merged: Array) -> tuple[Array, Array]:
    """Give every row to the table that codes it in the fewest bits, or to the last row's if that is about as good."""
    seen = _SEEN * merged + 1
    bits = _log2(seen.sum(axis=1))[:, None] - _log2(seen)
    table = np.empty(len(hist), np.int64)
    if _tables is not None:
        _tables.deal(hist, bits, _RUN << _FINE, table)
        return _summed(table, hist, table)
    costs = hist @ bits.T
    best = costs.argmin(axis=1)
    limits = costs[np.arange(len(hist)), best] + (_RUN << _FINE)
    last = -1
    for i, (mine, limit) in enumerate(zip(costs, limits, strict=True)):
        if last < 0 or mine[last] > limit:
            last = int(best[i])
        table[i] = last
    return _summed(table, hist, table)


def _summed(table: Array, rows: Array, into: Array) -> tuple[Array, Array]:
    """Sum rows up by where they go ``into``, and number the tables that are left anew."""
    kept, numbers = np.unique(into, return_inverse=True)
    merged = np.zeros((len(kept), rows.shape[1]), np.int64)
    np.add.at(merged, numbers, rows)
    return np.searchsorted(kept, table), merged


def _local_maxima(gain: Array) -> Array:
    left = np.concatenate([[_NEVER], gain[:-1]])
    right = np.concatenate([gain[1:], [_NEVER]])
    return (gain >= left) & (gain > right)


def _log2(n: Array) -> Array:
    """Logarithms of integers from 1 to 2**42, by a table and straight lines between its places."""
    e = np.frexp(n.astype(np.float64))[1].astype(np.int64) - 1
    m = (n << _FINE) >> e
    step = _FINE - _LOG_BITS
    i = (m >> step) & ((1 << _LOG_BITS) - 1)
    out: Array = (e << _FINE) + _LOGS[i] + ((_LOGS[i + 1] - _LOGS[i]) * (m & ((1 << step) - 1)) >> step)
    return out


_LOGS = np.rint(np.log2(1 + np.arange((1 << _LOG_BITS) + 1) / (1 << _LOG_BITS)) * (1 << _FINE)).astype(np.int64)
# n log2 n of small n.
_BITS = np.arange(1 << 12) * _log2(np.maximum(np.arange(1 << 12), 1))
_NO_ROWS = np.zeros(0, np.int64)


def _costs(hist: Array, other: Array | None = None) -> Array:
    """Bits of the symbols and of the table, for each row, or for its sum with that of another."""
    if _tables is not None:
        out = np.empty(len(hist), np.int64)
        _tables.costs(hist, _NO_ROWS if other is None else other, _BITS, _LOGS, out)
        return out
    return _costs_of(hist if other is None else hist + other)


def _costs_of(hist: Array) -> Array:
    total = hist.sum(axis=-1)
    bits = (hist * _log2(np.maximum(hist, 1))).sum(axis=-1)
    out: Array = total * _log2(np.maximum(total, 1)) - bits + ((_TABLE + _TOKEN * (hist > 0).sum(axis=-1)) << _FINE)
    return out


def _pair_costs(merged: Array) -> Array:
    """Bits of the sums of any two rows (n, n); above the diagonal only."""
    n = len(merged)
    out = np.zeros((n, n), np.int64)
    if _tables is not None:
        _tables.pair_costs(merged, _BITS, _LOGS, out)
        return out
    for i in range(n - 1):
        out[i, i + 1 :] = _costs_of(merged[i] + merged[i + 1 :])
    return out


def normalise(hist: Array) -> Array:
    """Give integer frequencies >= 1 that sum to 2**14, for tokens 0 .. last used one (at least two tokens)."""
    size = max(2, int(np.flatnonzero(hist)[-1]) + 1)
    h = hist[:size].astype(np.float64)
    freq = np.maximum(1, np.floor(h * (TABLE_SUM / h.sum()))).astype(np.int64)
    while (excess := int(freq.sum()) - TABLE_SUM) != 0:
        top = int(np.argmax(freq))
        freq[top] -= min(excess, int(freq[top]) // 2) if excess > 0 else excess
    out: Array = freq
    return out


def write_tables(w: ByteWriter, tables: list[Array]) -> None:
    """Append tables: number, and for each its size and frequencies but the largest one's value by difference."""
    w.varint(len(tables))
    for t in tables:
        w.varint(len(t))
        top = int(np.argmax(t))
        w.varint(top)
        for i, f in enumerate(t):
            if i != top:
                w.varint(int(f) - 1)


def read_tables(r: ByteReader, most: int) -> list[Array]:
    """Undo :func:`write_tables`.

    Raises
    ------
    FormatError
        When a table is not valid.
    """
    n = r.varint()
    if n > most:
        raise FormatError("too many frequency tables")
    tables = []
    for _ in range(n):
        size, top = r.varint(), r.varint()
        if not (2 <= size <= MAX_TOKENS and top < size):
            raise FormatError("frequency table of a wrong size")
        t = [n + 1 for n in r.varints(size - 1)]
        t.insert(top, TABLE_SUM - sum(t))
        if t[top] < 1:
            raise FormatError("frequency table with a wrong sum")
        tables.append(np.array(t, np.int64))
    return tables
