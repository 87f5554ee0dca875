# SPDX-License-Identifier: MIT
"""Reads an archive lazily: one read of the tail, one of the index, then only what is asked for."""

from __future__ import annotations

import json
import os
import threading
import zlib
from pathlib import Path
from types import TracebackType
from typing import Any

from hbae.codecs import ByteReader, unpack
from hbae.container.frames import (
    CHUNK,
    END_MARK,
    FRAME,
    FRAME_MARK,
    HEADER,
    INDEX,
    MAX_CHUNK_DECODED,
    MAX_HEADER,
    MAX_SECTIONS,
    PRELUDE,
    SECTION,
    TAIL,
    check_prelude,
    parse_head,
    read_frame,
)
from hbae.errors import ChecksumError, FormatError, NotHbaeFileError, TruncatedError


class ArchiveReader:
    """Promises that every payload it gives has passed its checksum.

    Parameters
    ----------
    path : path
        The archive.
    salvage : bool
        Rebuild a lost index by looking for frames, and take the second copy of a damaged header.

    Raises
    ------
    FormatError
        When the file is damaged or no archive; the message names the part.
    """

    def __init__(self, path: str | os.PathLike[str], *, salvage: bool = False) -> None:
        self.path = Path(path)
        self._file = open(self.path, "rb")  # noqa: SIM115
        self._lock = threading.Lock()
        try:
            self.size = self.path.stat().st_size
            self._open(salvage)
        except BaseException:
            self._file.close()
            raise

    def _open(self, salvage: bool) -> None:
        try:
            check_prelude(self._file.read(PRELUDE.size))
            index = self._read_index()
            self._take_index(index)
            place = index["header"]
            header = read_frame(self._file, int(place[0]), int(place[1]), (HEADER, 0), "header")
        except NotHbaeFileError:
            if not salvage or self.size < PRELUDE.size:
                raise
            header = self._scan()
        except FormatError:
            if not salvage:
                raise
            header = self._scan()
        self.header = _json(header, MAX_HEADER, "header")

    def _read_index(self) -> dict[str, Any]:
        if self.size < PRELUDE.size + TAIL.size:
            raise TruncatedError("the archive ends before its tail")
        self._file.seek(self.size - TAIL.size)
        tail = self._file.read(TAIL.size)
        offset, length, total, crc, mark = TAIL.unpack(tail)
        if mark != END_MARK or zlib.crc32(tail[:24]) != crc:
            raise TruncatedError("the archive's tail is missing or damaged: the file was cut or changed")
        if total != self.size:
            raise TruncatedError(f"the archive should have {total} bytes, it has {self.size}")
        if offset + length + TAIL.size != total or length > MAX_HEADER:
            raise FormatError("the index is not where the tail says")
        payload = read_frame(self._file, offset, length, (INDEX, 0), "index")
        index = _json(payload, MAX_HEADER * 4, "index")
        try:
            places = [index["header"], *([index["copy"]] if index["copy"] else [])]
            places += [s[1:] for s in index["sections"]] + list(index["chunks"])
            spans = sorted((int(o), int(n)) for o, n in places)
        except (KeyError, TypeError, ValueError, OverflowError) as e:
            raise FormatError(f"the index is malformed: {e!r}") from e
        if len(index["sections"]) > MAX_SECTIONS:
            raise FormatError("the index names too many sections")
        at = PRELUDE.size
        for o, n in spans:
            if o != at or n < FRAME.size:
                raise FormatError("the index leaves a gap or an overlap")
            at = o + n
        copy_length = length if index["copy"] else 0
        if at + copy_length != offset:
            raise FormatError("the index does not cover the file")
        return index

    def _take_index(self, index: dict[str, Any]) -> None:
        self._index = index
        self._sections: dict[str, list[tuple[int, int, int]]] = {}
        for i, (name, o, n) in enumerate(index["sections"]):
            self._sections.setdefault(str(name), []).append((i, int(o), int(n)))
        self._chunks: dict[int, tuple[int, int]] = {i: (int(o), int(n)) for i, (o, n) in enumerate(index["chunks"])}
        self.num_chunks = len(index["chunks"])

    def _scan(self) -> bytes:
        """Find all frames by their marks; give the header's payload."""
        header: bytes | None = None
        index: dict[str, Any] | None = None
        self._sections = {}
        self._chunks = {}
        at = 0
        while (at := _find_mark(self._file, at, self.size)) >= 0:
            self._file.seek(at)
            try:
                head = parse_head(self._file.read(FRAME.size), "frame")
                length = FRAME.size + head.length
                if head.kind in (HEADER, INDEX):
                    payload = read_frame(self._file, at, length, (head.kind, head.number), "frame")
                    if head.kind == HEADER:
                        header = header or payload
                    else:
                        index = index or _json(payload, MAX_HEADER * 4, "index")
                elif head.kind == SECTION:
                    payload = read_frame(self._file, at, length, (SECTION, head.number), "frame")
                    self._sections.setdefault(_split_name(payload)[0], []).append((head.number, at, length))
                elif head.kind == CHUNK:
                    self._chunks[head.number] = (at, length)
                at += length
            except FormatError:
                at += 1
        if header is None:
            raise ChecksumError("no intact copy of the header is left: nothing can be salvaged")
        if index is not None:
            self._take_index(index)
        else:
            self.num_chunks = max(self._chunks, default=-1) + 1
        return header

    def section_names(self) -> list[str]:
        """Names of all sections."""
        return list(self._sections)

    def has_section(self, name: str) -> bool:
        """Tell whether a section of that name exists."""
        return name in self._sections

    def section(self, name: str) -> bytes:
        """Give a section's payload.

        Raises
        ------
        FormatError
            When it is absent or damaged.
        """
        if name not in self._sections:
            raise FormatError(f"section {name!r} is missing")
        copies = self._sections[name]
        for number, offset, length in copies[:-1]:
            try:
                return self._section_copy(name, number, offset, length)
            except FormatError:
                continue
        return self._section_copy(name, *copies[-1])

    def _section_copy(self, name: str, number: int, offset: int, length: int) -> bytes:
        with self._lock:
            payload = read_frame(self._file, offset, length, (SECTION, number), f"section {name!r}")
        stored, body = _split_name(payload)
        if stored != name:
            raise FormatError(f"section {name!r}: another name is stored in it")
        return body

    def chunk(self, number: int) -> bytes:
        """Give a chunk's payload.

        Raises
        ------
        FormatError
            When it is absent or damaged.
        """
        if number not in self._chunks:
            raise FormatError(f"chunk {number} is missing")
        offset, length = self._chunks[number]
        if length > MAX_CHUNK_DECODED * 2:
            raise FormatError(f"chunk {number}: declared length over the limit")
        with self._lock:
            return read_frame(self._file, offset, length, (CHUNK, number), f"chunk {number}")

    def sizes(self) -> dict[str, int]:
        """Bytes by part: every section by name, chunks together, and the rest (header, index, tail)."""
        parts = {name: sum(n for _, _, n in copies) for name, copies in self._sections.items()}
        parts["chunks"] = sum(n for _, n in self._chunks.values())
        parts["header and index"] = self.size - sum(parts.values())
        return parts

    def check_copies(self) -> None:
        """Check every copy of every section, and the second copies of header and index.

        Raises
        ------
        FormatError
            When one is damaged.
        """
        for name, copies in self._sections.items():
            for number, offset, length in copies:
                self._section_copy(name, number, offset, length)
        copy = self._index.get("copy")
        if not copy:
            return
        with self._lock:
            read_frame(self._file, int(copy[0]), int(copy[1]), (HEADER, 1), "second copy of the header")
            self._file.seek(self.size - TAIL.size)
            offset, length = TAIL.unpack(self._file.read(TAIL.size))[:2]
            read_frame(self._file, offset - length, length, (INDEX, 1), "second copy of the index")

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> ArchiveReader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def _split_name(payload: bytes) -> tuple[str, bytes]:
    r = ByteReader(payload)
    try:
        name = r.part().decode()
    except UnicodeDecodeError as e:
        raise FormatError("a section's name is damaged") from e
    return name, r.rest()


def _find_mark(file: Any, start: int, size: int) -> int:
    step = 1 << 20
    while start < size:
        file.seek(start)
        data = file.read(step + len(FRAME_MARK))
        hit = data.find(FRAME_MARK)
        if hit >= 0:
            return start + int(hit)
        start += step
    return -1


def _json(payload: bytes, limit: int, what: str) -> dict[str, Any]:
    try:
        doc = json.loads(unpack(ByteReader(payload), limit))
    except (ValueError, RecursionError) as e:
        raise FormatError(f"{what} is malformed: {e}") from e
    if not isinstance(doc, dict):
        raise FormatError(f"{what} is malformed")
    return doc
