# SPDX-License-Identifier: MIT
"""Integers with contexts through one rANS stream: a writer that collects, a reader that answers step by step.

The stream (32-bit words, 64-bit state, 24-bit probabilities) holds the tokens of all steps; within a step, tokens are
sorted by context (stable), so that each context is one run under one table. Contexts that are alike share a table; a
context whose tokens are all equal costs nothing.

NumPy and constriction are the reference; where ``_symbols.c`` is built, it does the same faster.
"""

from __future__ import annotations

import constriction
import numpy as np

from hbae.arrays import Array
from hbae.codecs.bytes_ import ByteReader, ByteWriter, pack, unpack
from hbae.codecs.tables import (
    TABLE_SUM,
    filled,
    merge_contexts,
    normalise,
    read_runs,
    read_tables,
    write_runs,
    write_tables,
)
from hbae.codecs.tokens import DIRECT, MAX_TOKENS, BitCursor, from_tokens, pack_bits, raw_counts, to_tokens
from hbae.errors import FormatError, TruncatedError

try:
    from hbae.codecs import _symbols
except ImportError:
    _symbols = None  # type: ignore[assignment]

_PIECE = 1 << 20
# Below so many tokens, adding one by one is faster than a pass over the table of all contexts.
_FEW = 1 << 12
# Slots of a table of which the kernel looks up the first one's token.
_BUCKET = 16
# What kernels read a stream from and note in it, as ``_symbols.take`` has it.
Buffers = tuple[Array, Array, Array, Array, Array, bytes, Array, Array]
# What the kernel may find wrong, in its order.
_NO_TABLE, _NO_BITS, _TOO_LARGE, _TOO_WIDE = 1, 2, 3, 5


class SymbolWriter:
    """Collects steps of integers and their contexts, numbered so that neighbours are alike."""

    def __init__(self, num_contexts: int) -> None:
        self._num = num_contexts
        self._counts = np.zeros((num_contexts, MAX_TOKENS), np.int64)
        # Tokens; context and end of each run of them (R, 2); lengths and bits of the large ones.
        self._steps: list[tuple[Array, Array, Array, Array]] = []

    def add(self, values: Array, contexts: Array) -> None:
        """Append one step: flat int64 values (magnitudes below 2**61) and their contexts (uint16)."""
        if _symbols is not None:
            self._steps.append(self._sorted_tokens(values, contexts))
            return
        order = np.argsort(contexts, kind="stable")
        tokens, nbits, raw = to_tokens(values[order])
        self._count(contexts[order], tokens)
        sizes = np.bincount(contexts)
        used = np.flatnonzero(sizes)
        self._steps.append((tokens, np.column_stack([used, np.cumsum(sizes[used])]), nbits, raw))

    def _sorted_tokens(self, values: Array, contexts: Array) -> tuple[Array, Array, Array, Array]:
        n = len(contexts)
        tokens, runs = np.empty(n, np.uint8), np.empty((min(n, self._num), 2), np.int64)
        nbits, raw = np.empty(n, np.int64), np.empty(n, np.uint64)
        fault, found, large = _symbols.sort_tokens(values, contexts, self._counts, tokens, runs, nbits, raw)
        if fault == _TOO_LARGE:
            raise FormatError("an integer is too large to be coded")
        if fault:
            raise ValueError("a context is out of range")
        return tokens, runs[:found].copy(), nbits[:large].copy(), raw[:large].copy()

    def _count(self, contexts: Array, tokens: Array) -> None:
        if len(tokens) < _FEW:
            np.add.at(self._counts, (contexts, tokens), 1)
            return
        top = int(tokens.max()) + 1
        cells = contexts.astype(np.int32) * np.int32(top) + tokens
        self._counts[:, :top] += np.bincount(cells, minlength=self._num * top).reshape(self._num, top)

    def getvalue(self) -> bytes:
        """Give the coded bytes: tables, raw bits, words."""
        labels, merged = merge_contexts(self._counts)
        labels = filled(labels, labels >= 0)
        const = [int(np.flatnonzero(h)[0]) if (h > 0).sum() == 1 else -1 for h in merged]
        tables = [normalise(h) for h, c in zip(merged, const, strict=True) if c < 0]
        side = ByteWriter()
        side.varint(len(const))
        for c in const:
            side.varint(c + 1)
        if const:
            write_runs(side, labels)
        write_tables(side, tables)
        large = [step for step in self._steps if len(step[2])]
        w = ByteWriter()
        w.raw(pack(side.getvalue(), 19))
        w.part(np.packbits(_packed(large)).tobytes() if large else b"")
        w.part(
            (self._words if _symbols is None else self._compiled_words)(labels, const, tables).astype("<u4").tobytes()
        )
        return w.getvalue()

    def _words(self, labels: Array, const: list[int], tables: list[Array]) -> Array:
        """Code all tokens, the last one first."""
        models = _models(const, tables)
        coder = constriction.stream.stack.AnsCoder()
        for tokens, runs, _, _ in reversed(self._steps):
            ends = runs[:, 1].tolist()
            begins = [0, *ends][: len(ends)]
            for (c, end), begin in zip(runs[::-1].tolist(), reversed(begins), strict=True):
                model = models[labels[c]]
                if not isinstance(model, int):
                    coder.encode_reverse(tokens[begin:end], model)
        words: Array = coder.get_compressed()
        return words

    def _compiled_words(self, labels: Array, const: list[int], tables: list[Array]) -> Array:
        constant, left = np.array(const, np.int64), _left_ends(const, tables)
        state, found = np.zeros(1, np.uint64), []
        for tokens, runs, _, _ in reversed(self._steps):
            words = np.empty(len(tokens), np.uint32)
            found.append(words[: _symbols.put(tokens, runs, labels, constant, left, state, words)].copy())
        low, high = int(state[0]) & 0xFFFFFFFF, int(state[0]) >> 32
        found.append(np.array([low, high] if high else [low] if low else [], np.uint32))
        return np.concatenate(found)


def _packed(steps: list[tuple[Array, Array, Array, Array]]) -> Array:
    """Bits of the large values of all steps, one after the other."""
    return pack_bits(np.concatenate([n for _, _, n, _ in steps]), np.concatenate([r for *_, r in steps]))


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
        const = [n - 1 for n in side.varints(num_tables)]
        if any(c >= MAX_TOKENS for c in const):
            raise FormatError("constant token out of range")
        self._labels = read_runs(side, num_contexts) if num_tables else np.full(num_contexts, -1)
        tables = read_tables(side, num_tables)
        side.end()
        if len(tables) != sum(c < 0 for c in const):
            raise FormatError("number of frequency tables does not fit")
        uses = np.bincount(self._labels[self._labels >= 0], minlength=num_tables)
        if len(uses) > num_tables or not uses.all():
            raise FormatError("labels of contexts do not fit the frequency tables")
        self._used = np.zeros(num_contexts, bool)
        bits, words = reader.part(), reader.part()
        if len(words) % 4:
            raise FormatError("entropy-coded words end early")
        if words[-4:] == bytes(4):
            raise FormatError("entropy-coded words are damaged: the last one is 0")
        kind = _Reference if _symbols is None else _Compiled
        coded = np.frombuffer(words, "<u4").astype(np.uint32)
        self._stream = kind(self._labels, const, tables, bits, coded, self._used)

    def take(self, contexts: Array, *, narrow: bool = False) -> Array:
        """Give the next step's values (flat) for those contexts (uint16): int64, or int16 if ``narrow`` ones may be.

        Of int16, no magnitude is above 32767.
        """
        return self._stream.take(contexts, narrow)

    @property
    def buffers(self) -> Buffers | None:
        """What kernels read the stream from, and write to where they stand in it; None where there is no kernel."""
        return self._stream.buffers

    def end(self) -> None:
        """Check that all was read.

        Raises
        ------
        FormatError
            When words, raw bits, or tables that no context uses are left over.
        """
        self._stream.end()
        idle = not self._used.any() and bool((self._labels >= 0).any())
        if idle or not np.array_equal(filled(self._labels, self._used), self._labels):
            raise FormatError("a context that does not occur has a table of its own")


class _Reference:
    """Words and raw bits of a stream, by constriction and NumPy."""

    buffers = None

    def __init__(
        self, labels: Array, const: list[int], tables: list[Array], bits: bytes, words: Array, used: Array
    ) -> None:
        self._labels, self._models, self._used = labels, _models(const, tables), used
        self._cursor = BitCursor(bits)
        self._coder = constriction.stream.stack.AnsCoder(words)

    def take(self, contexts: Array, narrow: bool) -> Array:
        """Give one step's values; note the contexts."""
        sizes = np.bincount(contexts, minlength=len(self._labels))
        found = np.flatnonzero(sizes)
        self._used[found] = True
        tokens = np.empty(len(contexts), np.int32)
        at = 0
        for c in found:
            tokens[at : at + sizes[c]] = self._run(int(c), int(sizes[c]))
            at += int(sizes[c])
        order = np.argsort(contexts, kind="stable") if len(found) > 1 else None
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
        """Refuse what is left over."""
        self._cursor.end()
        if not self._coder.is_empty():
            raise FormatError("entropy-coded words are left over")


class _Compiled:
    """Words and raw bits of a stream, by the kernel."""

    def __init__(
        self, labels: Array, const: list[int], tables: list[Array], bits: bytes, words: Array, used: Array
    ) -> None:
        self._const = np.array(const, np.int64)
        self._token_at = np.zeros((len(const), TABLE_SUM // _BUCKET), np.uint8)
        self._left = _left_ends(const, tables)
        _symbols.first_tokens(self._const, self._left, self._token_at)
        self._bits = bits
        # rANS state, words left, bits read.
        state = 0
        for word in words[::-1][:2].tolist():
            state = state << 32 | word
        self._state = np.array([state, max(len(words) - 2, 0), 0], np.uint64)
        self.buffers: Buffers = (labels, self._const, self._token_at, self._left, words, bits, self._state, used)

    def take(self, contexts: Array, narrow: bool) -> Array:
        """Give one step's values; note the contexts."""
        out = np.empty(len(contexts), np.int16 if narrow else np.int64)
        fault = _symbols.take(contexts, out, narrow, *self.buffers)
        if fault == _TOO_WIDE:
            return self.take(contexts, narrow=False)
        check_fault(fault)
        return out

    def end(self) -> None:
        """Refuse what is left over."""
        BitCursor(self._bits, int(self._state[2])).end()
        if self._state[:2].any():
            raise FormatError("entropy-coded words are left over")


def check_fault(fault: int) -> None:
    """Raise what a kernel found wrong with a stream (0: nothing).

    Raises
    ------
    FormatError
        When the stream is damaged.
    """
    if fault == _NO_TABLE:
        raise FormatError("a context in use has no table")
    if fault == _NO_BITS:
        raise TruncatedError("raw bits run out")
    if fault:
        raise ValueError("a context is out of range")


def _left_ends(const: list[int], tables: list[Array]) -> Array:
    """Where each token begins in its table, uint16 (tables, 147); zeros for tables of one token."""
    left = np.zeros((len(const), MAX_TOKENS + 1), np.uint16)
    for label, table in zip(np.flatnonzero(np.array(const) < 0), tables, strict=True):
        left[label, 1 : len(table) + 1] = np.cumsum(table)
    return left


def _models(const: list[int], tables: list[Array]) -> list[object]:
    it = iter(tables)
    return [
        c if c >= 0 else constriction.stream.model.Categorical(next(it) / float(TABLE_SUM), perfect=True) for c in const
    ]
