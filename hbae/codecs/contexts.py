# SPDX-License-Identifier: MIT
"""Integers with contexts through one rANS stream: a writer that collects, a reader that answers step by step.

The stream (32-bit words, 64-bit state, 24-bit probabilities) holds the tokens of all steps; within a step, tokens are
sorted by context (stable), so that each context is one run under one table. Contexts that are alike share a table; a
context whose tokens are all equal costs nothing.
"""

from __future__ import annotations

import constriction
import numpy as np

from hbae.arrays import Array
from hbae.codecs.bytes_ import ByteReader, ByteWriter, pack, unpack
from hbae.codecs.tables import TABLE_SUM, merge_contexts, normalise, read_tables, write_tables
from hbae.codecs.tokens import DIRECT, MAX_TOKENS, BitCursor, from_tokens, pack_bits, raw_counts, to_tokens
from hbae.errors import FormatError

_PIECE = 1 << 20
# Below so many tokens, adding one by one is faster than a pass over the table of all contexts.
_FEW = 1 << 12


class SymbolWriter:
    """Collects steps of integers and their contexts; ``order`` lists contexts so that neighbours are alike."""

    def __init__(self, num_contexts: int, order: Array | None = None) -> None:
        self._num = num_contexts
        self._order = np.arange(num_contexts) if order is None else order
        self._counts = np.zeros((num_contexts, MAX_TOKENS), np.int64)
        self._steps: list[tuple[Array, list[tuple[int, slice]], Array, Array]] = []

    def add(self, values: Array, contexts: Array) -> None:
        """Append one step: flat int64 values (magnitudes below 2**61) and their contexts."""
        order = np.argsort(contexts, kind="stable")
        ends = np.cumsum(np.bincount(contexts))
        tokens, nbits, raw = to_tokens(values[order])
        self._count(contexts[order], tokens)
        used = np.flatnonzero(np.diff(ends, prepend=0))
        runs = [(c, slice(ends[c - 1] if c else 0, ends[c])) for c in used.tolist()]
        self._steps.append((tokens, runs, nbits, raw))

    def _count(self, contexts: Array, tokens: Array) -> None:
        if len(tokens) < _FEW:
            np.add.at(self._counts, (contexts, tokens), 1)
            return
        top = int(tokens.max()) + 1
        cells = contexts.astype(np.int32) * np.int32(top) + tokens
        self._counts[:, :top] += np.bincount(cells, minlength=self._num * top).reshape(self._num, top)

    def getvalue(self) -> bytes:
        """Give the coded bytes: tables, raw bits, words."""
        labels_sorted, merged = merge_contexts(self._counts[self._order])
        labels = np.empty(self._num, np.int64)
        labels[self._order] = labels_sorted
        const = [int(np.flatnonzero(h)[0]) if (h > 0).sum() == 1 else -1 for h in merged]
        tables = [normalise(h) for h, c in zip(merged, const, strict=True) if c < 0]
        side = ByteWriter()
        side.varint(len(const))
        for c in const:
            side.varint(c + 1)
        if const:
            side.raw((labels + 1).astype("<u2").tobytes())
        write_tables(side, tables)
        models = _models(const, tables)
        coder = constriction.stream.stack.AnsCoder()
        for tokens, runs, _, _ in reversed(self._steps):
            for c, run in reversed(runs):
                model = models[labels[c]]
                if not isinstance(model, int):
                    coder.encode_reverse(tokens[run], model)
        bits = [pack_bits(n, r) for _, _, n, r in self._steps if len(n)]
        w = ByteWriter()
        w.raw(pack(side.getvalue(), 19))
        w.part(np.packbits(np.concatenate(bits)).tobytes() if bits else b"")
        w.part(coder.get_compressed().astype("<u4").tobytes())
        return w.getvalue()


class SymbolReader:
    """Gives back, step by step, what a :class:`SymbolWriter` took, for the same contexts in the same order.

    Raises
    ------
    FormatError
        When the bytes are damaged.
    """

    def __init__(self, reader: ByteReader, num_contexts: int) -> None:
        self._num = num_contexts
        side = ByteReader(unpack(reader, num_contexts * (MAX_TOKENS * 3 + 12) + 16))
        num_tables = side.varint()
        if num_tables > num_contexts:
            raise FormatError("too many frequency tables")
        const = [side.varint() - 1 for _ in range(num_tables)]
        if any(c >= MAX_TOKENS for c in const):
            raise FormatError("constant token out of range")
        size = 2 * num_contexts if num_tables else 0
        self._labels = np.full(num_contexts, -1)
        if num_tables:
            self._labels = np.frombuffer(side.raw(size), "<u2").astype(np.int64) - 1
        if self._labels.max(initial=-1) >= num_tables:
            raise FormatError("context without a table")
        tables = read_tables(side, num_tables)
        side.end()
        if len(tables) != sum(c < 0 for c in const):
            raise FormatError("number of frequency tables does not fit")
        if len(np.union1d(self._labels, [-1])) != num_tables + 1:
            raise FormatError("a frequency table that no context uses")
        self._models = _models(const, tables)
        self._used = np.zeros(num_contexts, bool)
        self._cursor = BitCursor(reader.part())
        words = reader.part()
        if len(words) % 4:
            raise FormatError("entropy-coded words end early")
        try:
            self._coder = constriction.stream.stack.AnsCoder(np.frombuffer(words, "<u4").astype(np.uint32))
        except ValueError as e:
            raise FormatError(f"entropy-coded words are damaged: {e}") from e

    def take(self, contexts: Array) -> Array:
        """Give the next step's values (int64, flat) for those contexts."""
        sizes = np.bincount(contexts, minlength=self._num)
        used = np.flatnonzero(sizes)
        self._used[used] = True
        tokens = np.empty(len(contexts), np.int32)
        at = 0
        for c in used:
            tokens[at : at + sizes[c]] = self._run(int(c), int(sizes[c]))
            at += int(sizes[c])
        order = np.argsort(contexts, kind="stable") if len(used) > 1 else None
        out = np.empty(len(tokens), np.int64)
        # Piece by piece: a step may be a whole chunk, and what is made on the way is many times its size.
        for i in range(0, len(tokens), _PIECE):
            piece = slice(i, i + _PIECE)
            out[piece if order is None else order[piece]] = self._values(tokens[piece])
        return out

    def _run(self, context: int, n: int) -> Array | int:
        label = self._labels[context]
        if label < 0:
            raise FormatError("a context in use has no table")
        model = self._models[label]
        tokens: Array | int = model if isinstance(model, int) else self._coder.decode(model, n)
        return tokens

    def _values(self, tokens: Array) -> Array:
        big = tokens[tokens >= DIRECT].astype(np.int64)
        return from_tokens(tokens, self._cursor.take(raw_counts(big)))

    def end(self) -> None:
        """Check that all was read.

        Raises
        ------
        FormatError
            When words, raw bits, or tables of contexts that never came are left over.
        """
        self._cursor.end()
        if not self._coder.is_empty():
            raise FormatError("entropy-coded words are left over")
        if not np.array_equal(self._used, self._labels >= 0):
            raise FormatError("a context that does not occur has a table")


def _models(const: list[int], tables: list[Array]) -> list[object]:
    it = iter(tables)
    return [
        c if c >= 0 else constriction.stream.model.Categorical(next(it) / float(TABLE_SUM), perfect=True) for c in const
    ]
