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
_MOST_PAIRS = 80


def merge_contexts(counts: Array) -> tuple[Array, Array]:
    """Give each context (row of counts) a table so that tables plus symbols cost few bits.

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
    rows = np.flatnonzero(counts.sum(1))
    labels = np.full(len(counts), -1)
    groups: list[list[int]] = [[int(r)] for r in rows]
    hist = counts[rows].astype(np.float64)
    costs = _costs(hist)
    while len(groups) > 1:
        joint = _costs(hist[:-1] + hist[1:])
        gain = costs[:-1] + costs[1:] - joint
        best = np.flatnonzero(_local_maxima(gain) & (gain > 0))
        if best.size == 0 and len(groups) > _MOST_PAIRS:
            best = np.array([int(np.argmax(gain))])
        if best.size == 0:
            break
        for i in best:
            groups[i + 1] = groups[i] + groups[i + 1]
            hist[i + 1] += hist[i]
            costs[i + 1] = joint[i]
        keep = np.setdiff1d(np.arange(len(groups)), best)
        groups, hist, costs = [groups[k] for k in keep], hist[keep], costs[keep]
    groups, hist = _merge_pairs(groups, hist, costs)
    for k, members in enumerate(groups):
        labels[members] = k
    return labels, hist.astype(np.int64)


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


def _merge_pairs(groups: list[list[int]], hist: Array, costs: Array) -> tuple[list[list[int]], Array]:
    """Agglomerate any two tables while that saves bits."""
    n = len(groups)
    gain = np.full((n, n), -np.inf)
    for i in range(n - 1):
        gain[i, i + 1 :] = costs[i] + costs[i + 1 :] - _costs(hist[i] + hist[i + 1 :])
    alive = np.ones(n, bool)
    while n > 1:
        i, j = divmod(int(np.argmax(gain)), n)
        if not gain[i, j] > 0:
            break
        groups[i] = groups[i] + groups[j]
        hist[i] += hist[j]
        costs[i] = _costs(hist[i : i + 1])[0]
        alive[j] = False
        gain[j, :] = gain[:, j] = -np.inf
        others = np.flatnonzero(alive)
        others = others[others != i]
        fresh = costs[i] + costs[others] - _costs(hist[i] + hist[others])
        gain[np.minimum(i, others), np.maximum(i, others)] = fresh
    keep = np.flatnonzero(alive)
    return [groups[k] for k in keep], hist[keep]


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
