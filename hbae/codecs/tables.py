# SPDX-License-Identifier: MIT
"""Frequency tables: integers that sum to 2**14, and the choice of which contexts share one."""

from __future__ import annotations

import numpy as np

from hbae.arrays import Array
from hbae.codecs.bytes_ import ByteReader, ByteWriter
from hbae.codecs.tokens import MAX_TOKENS
from hbae.errors import FormatError

TABLE_BITS = 14
TABLE_SUM = 1 << TABLE_BITS
# Tables at the start of the search, turns of it, bits that another run of contexts costs, count of a token not seen.
_MOST_TABLES, _TURNS, _RUN, _UNSEEN = 160, 5, 24.0, 0.02


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
    hist = counts[rows, :used].astype(np.float64)
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
    labels = np.array([r.varint() for _ in range(runs)], np.int64)
    lengths = [r.varint() + 1 for _ in range(runs - 1)]
    lengths.append(count - sum(lengths))
    if lengths[-1] < 1 or labels.max() >= count or (labels[1:] == labels[:-1]).any():
        raise FormatError("runs of contexts do not fit")
    return np.repeat(labels, lengths)


def _join_neighbours(hist: Array) -> tuple[Array, Array]:
    """Join rows that follow each other while that saves bits, until few are left: table of each row, sums."""
    ends, merged, costs = np.arange(1, len(hist) + 1), hist.copy(), _costs(hist)
    while len(merged) > 1:
        joint = _costs(merged[:-1] + merged[1:])
        gain = costs[:-1] + costs[1:] - joint
        best = np.flatnonzero(_local_maxima(gain) & (gain > 0))
        if not best.size and len(merged) > _MOST_TABLES:
            best = np.flatnonzero(_local_maxima(gain))
            best = np.sort(best[np.argsort(-gain[best], kind="stable")][: len(merged) - _MOST_TABLES])
        if not best.size:
            break
        merged[best + 1] += merged[best]
        costs[best + 1] = joint[best]
        ends, merged, costs = (np.delete(a, best, axis=0) for a in (ends, merged, costs))
    return np.repeat(np.arange(len(ends)), np.diff(ends, prepend=0)), merged


def _join_alike(table: Array, merged: Array) -> tuple[Array, Array]:
    """Join any two tables while that saves bits, the best of disjoint pairs at a time."""
    while len(merged) > 1:
        costs, n = _costs(merged), len(merged)
        gain = np.full((n, n), -np.inf)
        for i in range(n - 1):
            gain[i, i + 1 :] = costs[i] + costs[i + 1 :] - _costs(merged[i] + merged[i + 1 :])
        into = np.arange(n)
        free = np.ones(n, bool)
        for pair in np.argsort(-gain, axis=None, kind="stable")[: int((gain > 0).sum())].tolist():
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
    seen = merged + _UNSEEN
    costs = hist @ -np.log2(seen / seen.sum(axis=1, keepdims=True)).T
    best = costs.argmin(axis=1)
    limits = costs[np.arange(len(hist)), best] + _RUN
    table, last = best.copy(), -1
    for i, (mine, limit) in enumerate(zip(costs, limits, strict=True)):
        if last < 0 or mine[last] > limit:
            last = int(best[i])
        table[i] = last
    return _summed(table, hist, table)


def _summed(table: Array, rows: Array, into: Array) -> tuple[Array, Array]:
    """Sum rows up by where they go ``into``, and number the tables that are left anew."""
    kept, numbers = np.unique(into, return_inverse=True)
    merged = np.zeros((len(kept), rows.shape[1]))
    np.add.at(merged, numbers, rows)
    return np.searchsorted(kept, table), merged


def _local_maxima(gain: Array) -> Array:
    left = np.concatenate([[-np.inf], gain[:-1]])
    right = np.concatenate([gain[1:], [-np.inf]])
    return (gain >= left) & (gain > right)


def _costs(hist: Array) -> Array:
    """Bits of the symbols and of the table, for each row."""
    total = hist.sum(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        bits = np.where(hist > 0, hist * np.log2(hist), 0).sum(1)
    used = (hist > 0).sum(1)
    out: Array = total * np.log2(np.maximum(total, 1)) - bits + 12 + 9.0 * used
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
        t = np.array([0 if i == top else r.varint() + 1 for i in range(size)], np.int64)
        t[top] = TABLE_SUM - int(t.sum())
        if t[top] < 1:
            raise FormatError("frequency table with a wrong sum")
        tables.append(t)
    return tables
