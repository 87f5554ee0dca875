# SPDX-License-Identifier: MIT
"""Bytes with lengths, varints, zstd frames whose size is declared and enforced, and JSON whose items are counted."""

from __future__ import annotations

import json
import threading
from typing import Any

import zstandard

from hbae.errors import FormatError, TruncatedError

ZSTD_LEVEL = 12
MAX_JSON_MARKS = 1 << 23
_OF_THREAD = threading.local()


class ByteWriter:
    """Collects varints and length-prefixed parts."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def varint(self, n: int) -> None:
        """Append an unsigned LEB128 integer."""
        out = bytearray()
        while n >= 0x80:
            out.append(n & 0x7F | 0x80)
            n >>= 7
        out.append(n)
        self._parts.append(bytes(out))

    def raw(self, data: bytes) -> None:
        """Append bytes as they are."""
        self._parts.append(data)

    def part(self, data: bytes) -> None:
        """Append a length and then the bytes."""
        self.varint(len(data))
        self._parts.append(data)

    def getvalue(self) -> bytes:
        """Give all that was appended."""
        return b"".join(self._parts)


class ByteReader:
    """Reads what :class:`ByteWriter` wrote; never past the end.

    Raises
    ------
    TruncatedError
        From every method, when the bytes end too early.
    FormatError
        For an integer that has a shorter form.
    """

    def __init__(self, data: bytes | memoryview) -> None:
        self._data = memoryview(data)
        self._pos = 0

    def varint(self) -> int:
        """Read an unsigned LEB128 integer of at most 63 bits, in its shortest form."""
        return self.varints(1)[0]

    def varints(self, count: int) -> list[int]:
        """Read so many such integers."""
        data, at, end, out = self._data, self._pos, len(self._data), []
        for _ in range(count):
            n = shift = 0
            while True:
                if at >= end or shift > 56:
                    raise TruncatedError("bytes end inside an integer")
                b = data[at]
                at += 1
                n |= (b & 0x7F) << shift
                if b < 0x80:
                    break
                shift += 7
            if shift and not b:
                raise FormatError("an integer is longer than it needs to be")
            out.append(n)
        self._pos = at
        return out

    def raw(self, n: int) -> bytes:
        """Read n bytes."""
        if n < 0 or self._pos + n > len(self._data):
            raise TruncatedError("bytes end inside a part")
        self._pos += n
        return bytes(self._data[self._pos - n : self._pos])

    def part(self) -> bytes:
        """Read a length-prefixed part."""
        return self.raw(self.varint())

    def rest(self) -> bytes:
        """Read all that is left."""
        return self.raw(len(self._data) - self._pos)

    def end(self) -> None:
        """Check that nothing is left over.

        Raises
        ------
        FormatError
            When bytes follow.
        """
        if self._pos != len(self._data):
            raise FormatError("unexpected bytes after the last part")


def pack(data: bytes, level: int = ZSTD_LEVEL) -> bytes:
    """Compress to one zstd frame that declares its size, behind a varint of that size; tiny input stays as it is.

    First varint: size * 2 + 1 when a frame follows, size * 2 when the plain bytes follow.
    """
    w = ByteWriter()
    frame = zstandard.ZstdCompressor(level=level, write_content_size=True).compress(data) if data else b""
    if data and len(frame) < len(data):
        w.varint(len(data) * 2 + 1)
        w.part(frame)
    else:
        w.varint(len(data) * 2)
        w.raw(data)
    return w.getvalue()


def unpack(reader: ByteReader, limit: int) -> bytes:
    """Undo :func:`pack`, giving at most ``limit`` bytes.

    Raises
    ------
    FormatError
        When the declared size is over the limit or the frame is not valid.
    """
    head = reader.varint()
    size = head >> 1
    if size > limit:
        raise FormatError(f"a part declares {size} bytes, the limit is {limit}")
    if not head & 1:
        return reader.raw(size)
    frame = reader.part()
    try:
        if not size or zstandard.frame_content_size(frame) != size:
            raise FormatError("a zstd frame declares another size than its part")
        out = _decompressor().decompress(frame, max_output_size=size, allow_extra_data=False)
    except zstandard.ZstdError as e:
        raise FormatError(f"damaged zstd frame: {e}") from e
    if len(out) != size:
        raise FormatError("a zstd frame gives another size than declared")
    return out


def _decompressor() -> zstandard.ZstdDecompressor:
    """Give this thread's: making one takes longer than most frames."""
    found: zstandard.ZstdDecompressor | None = getattr(_OF_THREAD, "decompressor", None)
    if found is None:
        found = _OF_THREAD.decompressor = zstandard.ZstdDecompressor()
    return found


def count_marks(text: bytes) -> int:
    """Count the characters of a JSON text that may stand for an object in memory: ``[``, ``{``, ``,`` and ``:``."""
    return sum(map(text.count, (b"[", b"{", b",", b":")))


def unpack_json(reader: ByteReader, limit: int, what: str) -> Any:
    """Give the JSON value of a packed part; its objects are counted before any of them is made.

    Raises
    ------
    FormatError
        When the part is damaged or over the limit, is no JSON, or holds too many values.
    """
    text = unpack(reader, limit)
    if count_marks(text) > MAX_JSON_MARKS:
        raise FormatError(f"{what} is malformed: its JSON holds too many values")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as e:
        raise FormatError(f"{what} is malformed: {e}") from e
