# SPDX-License-Identifier: MIT
"""Entropy coding of integer arrays with contexts, slab by slab.

An array (S, R1, ..., Rr) is coded one slab after the other. The context of a value is (a) its bucket: the expected magnitude from
per-axis log scales, and (b) the bit length of ``m = 2 |p| + |neighbours of p| + |pp|``, where p is the value at the same place
in the slab before (whole and known to the decoder), its neighbours are one step along the marked axes, and pp is the slab before
that. Contexts that are alike share a table. One rANS stream (32-bit words, 64-bit state, 24-bit probabilities) holds all tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import constriction
import numpy as np

from hbae.arrays import Array
from hbae.codecs.bytes_ import ByteReader, ByteWriter, pack, unpack
from hbae.codecs.tables import TABLE_SUM, merge_contexts, normalise, read_tables, write_tables
from hbae.codecs.tokens import MAX_TOKENS, BitCursor, from_tokens, pack_bits, raw_counts, to_tokens
from hbae.errors import FormatError

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
    live = [s for s in range(len(q)) if q[s].any()]
    slabs = []
    counts = np.zeros((CONTEXTS, MAX_TOKENS), np.int64)
    for s in live:
        ctx = _contexts(q, s, known).ravel()
        order = np.argsort(ctx, kind="stable")
        sizes = np.bincount(ctx, minlength=CONTEXTS)
        tokens, nbits, raw = to_tokens(q[s].ravel()[order])
        tokens = tokens.astype(np.int32)
        np.add.at(counts.reshape(-1), ctx[order].astype(np.int64) * MAX_TOKENS + tokens, 1)
        slabs.append((tokens, sizes, nbits, raw))
    by_level = np.arange(CONTEXTS).reshape(BUCKETS, LEVELS).T.ravel()
    labels_sorted, merged = merge_contexts(counts[by_level])
    labels = np.empty(CONTEXTS, np.int64)
    labels[by_level] = labels_sorted
    return _write(known, live, slabs, labels, merged)


def _write(known: IntShape, live: list[int], slabs: list[tuple[Array, ...]], labels: Array, merged: Array) -> bytes:
    const = [int(np.flatnonzero(h)[0]) if (h > 0).sum() == 1 else -1 for h in merged]
    tables = [normalise(h) for h, c in zip(merged, const, strict=True) if c < 0]
    side = ByteWriter()
    bitmap = np.zeros(known.shape[0], np.uint8)
    bitmap[live] = 1
    side.raw(np.packbits(bitmap).tobytes())
    side.varint(len(const))
    for c in const:
        side.varint(c + 1)
    side.raw((labels + 1).astype(np.uint8).tobytes())
    write_tables(side, tables)
    models = _models(const, tables)
    coder = constriction.stream.stack.AnsCoder()
    for tokens, sizes, _, _ in reversed(slabs):
        ends = np.cumsum(sizes)
        for c in np.flatnonzero(sizes)[::-1]:
            model = models[labels[c]]
            if not isinstance(model, int):
                coder.encode_reverse(tokens[ends[c] - sizes[c] : ends[c]], model)
    bits = [pack_bits(n, r) for _, _, n, r in slabs if len(n)]
    w = ByteWriter()
    w.raw(pack(side.getvalue(), 19))
    w.part(np.packbits(np.concatenate(bits)).tobytes() if bits else b"")
    w.part(coder.get_compressed().astype("<u4").tobytes())
    return w.getvalue()


def decode_ints(reader: ByteReader, known: IntShape) -> Array:
    """Undo :func:`encode_ints`, giving int64 of ``known.shape``.

    Raises
    ------
    FormatError
        When the bytes are damaged.
    """
    num_slabs = known.shape[0]
    side = ByteReader(unpack(reader, (num_slabs + 7) // 8 + CONTEXTS * (MAX_TOKENS * 3 + 8)))
    live = np.unpackbits(np.frombuffer(side.raw((num_slabs + 7) // 8), np.uint8))[:num_slabs]
    num_tables = side.varint()
    if num_tables > CONTEXTS:
        raise FormatError("too many frequency tables")
    const = [side.varint() - 1 for _ in range(num_tables)]
    if any(c >= MAX_TOKENS for c in const):
        raise FormatError("constant token out of range")
    labels = np.frombuffer(side.raw(CONTEXTS), np.uint8).astype(np.int64) - 1
    if labels.max(initial=-1) >= num_tables:
        raise FormatError("context without a table")
    tables = read_tables(side, num_tables)
    side.end()
    if len(tables) != sum(c < 0 for c in const):
        raise FormatError("number of frequency tables does not fit")
    models = _models(const, tables)
    cursor = BitCursor(reader.part())
    words = reader.part()
    if len(words) % 4:
        raise FormatError("entropy-coded words end early")
    try:
        coder = constriction.stream.stack.AnsCoder(np.frombuffer(words, "<u4").astype(np.uint32))
    except ValueError as e:
        raise FormatError(f"entropy-coded words are damaged: {e}") from e
    q = np.zeros(known.shape, np.int64)
    for s in np.flatnonzero(live):
        _decode_slab(q, int(s), known, labels, models, coder, cursor)
    return q


def _decode_slab(
    q: Array, s: int, known: IntShape, labels: Array, models: list[object], coder: object, cursor: BitCursor
) -> None:
    ctx = _contexts(q, s, known).ravel()
    sizes = np.bincount(ctx, minlength=CONTEXTS)
    used = np.flatnonzero(sizes)
    parts = []
    for c in used:
        n = int(sizes[c])
        if labels[c] < 0:
            raise FormatError("a context in use has no table")
        model = models[labels[c]]
        if isinstance(model, int):
            parts.append(np.full(n, model, np.int32))
        else:
            parts.append(coder.decode(model, n))  # type: ignore[attr-defined]
    tokens = np.concatenate(parts) if len(parts) > 1 else parts[0]
    big = tokens[tokens >= 32]
    raw = cursor.take(raw_counts(big.astype(np.int64))) if big.size else np.zeros(0, np.uint64)
    values = from_tokens(tokens, raw)
    if len(used) == 1:
        q[s] = values.reshape(q.shape[1:])
        return
    out = np.empty_like(values)
    out[np.argsort(ctx, kind="stable")] = values
    q[s] = out.reshape(q.shape[1:])


def _models(const: list[int], tables: list[Array]) -> list[object]:
    it = iter(tables)
    return [
        c if c >= 0 else constriction.stream.model.Categorical(next(it) / float(TABLE_SUM), perfect=True) for c in const
    ]


def _contexts(q: Array, s: int, known: IntShape) -> Array:
    """Context of every value of slab s; uses slabs before s only."""
    ctx = known.buckets(s) * np.uint16(LEVELS)
    if s == 0:
        return ctx
    p = np.minimum(np.abs(q[s - 1]), _CLIP).astype(np.uint16)
    m = p * np.uint16(2)
    for axis, near in enumerate(known.near):
        if near and p.shape[axis] > 1:
            ahead = tuple(slice(1, None) if a == axis else slice(None) for a in range(p.ndim))
            back = tuple(slice(None, -1) if a == axis else slice(None) for a in range(p.ndim))
            m[ahead] += p[back]
            m[back] += p[ahead]
    if s > 1:
        m += np.minimum(np.abs(q[s - 2]), _CLIP).astype(np.uint16)
    return ctx + _LEVEL_OF[m]
