# SPDX-License-Identifier: MIT
"""Reads an archive lazily: one read of the tail, one of the index, then only what is asked for."""

from __future__ import annotations

import os
import threading
import zlib
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from hbae.codecs import ByteReader, unpack_json
from hbae.container.frames import (
    CHUNK,
    END_MARK,
    FRAME,
    FRAME_MARK,
    HEADER,
    INDEX,
    MAX_CHUNK_STORED,
    MAX_CHUNKS,
    MAX_JSON,
    MAX_SECTIONS,
    PRELUDE,
    SECTION,
    TAIL,
    check_prelude,
    head_at,
    is_intact,
    read_frame,
)
from hbae.errors import ChecksumError, FormatError, NotHbaeFileError, TruncatedError, told_as_input

Place = tuple[int, int]
_MAX_FRAME = MAX_JSON + 64
_LONGEST_NAME = 1 << 12
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Index:
    """Places (offset, length) of all frames; sections with their names."""

    header: Place
    copy: Place | None
    sections: tuple[tuple[str, Place], ...]
    chunks: tuple[Place, ...]

    @staticmethod
    def from_json(doc: dict[str, Any]) -> Index:
        """Read the index of an archive.

        Raises
        ------
        FormatError
            When it is malformed or names more than an archive may hold.
        """
        try:
            sections = tuple((str(name), _place(rest)) for name, *rest in doc["sections"])
            chunks = tuple(_place(c) for c in doc["chunks"])
            copy = None if doc["copy"] is None else _place(doc["copy"])
            index = Index(_place(doc["header"]), copy, sections, chunks)
        except (KeyError, TypeError, ValueError) as e:
            raise FormatError(f"the index is malformed: {e!r}") from e
        if len(sections) > MAX_SECTIONS or len(chunks) > MAX_CHUNKS:
            raise FormatError("the index names too many sections or chunks")
        return index

    def check_cover(self, stop: int) -> None:
        """Check that the frames lie end to end from the prelude to ``stop``.

        Raises
        ------
        FormatError
            When they leave a gap or overlap.
        """
        places = [self.header, *([self.copy] if self.copy else []), *(p for _, p in self.sections), *self.chunks]
        at = PRELUDE.size
        for offset, length in sorted(places):
            if offset != at or length < FRAME.size:
                raise FormatError("the index leaves a gap or an overlap")
            at = offset + length
        if at != stop:
            raise FormatError("the index does not cover the file")


def _place(doc: Any) -> Place:
    offset, length = doc
    if type(offset) is not int or type(length) is not int:
        raise FormatError("the index is malformed: a place is no pair of integers")
    return offset, length


class ArchiveReader:
    """Promises that every payload it gives has passed its checksum.

    Where the first copy of header, index or a section is damaged, the second one is taken if there is one.

    Parameters
    ----------
    path : path
        The archive.
    salvage : bool
        Rebuild a lost index by looking for frames.

    Raises
    ------
    FormatError
        When the file is damaged or no archive; the message names the part.
    """

    def __init__(self, path: str | os.PathLike[str], *, salvage: bool = False) -> None:
        self.path = Path(path)
        with told_as_input(self.path):
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
            self._take_index(self._read_index())
            header = self._either(*self._headers())
        except NotHbaeFileError as e:
            if not salvage or self.size < PRELUDE.size:
                raise NotHbaeFileError(f"{self.path.name}: {e}") from None
            header = self._scan()
        except FormatError:
            if not salvage:
                raise
            header = self._scan()
        self.header = _json(header, "header")

    def _read(self, kind: int, number: int, place: Place, what: str) -> bytes:
        limit = {HEADER: _MAX_FRAME, INDEX: _MAX_FRAME, CHUNK: MAX_CHUNK_STORED}.get(kind)
        if limit is not None and place[1] > limit:
            raise FormatError(f"{what}: declared length over the limit")
        with self._lock:
            return read_frame(self._file, *place, (kind, number), what)

    def _either(self, *copies: tuple[int, int, Place, str]) -> bytes:
        """Read the first copy that is intact; the last one's failure counts when none is."""
        for copy in copies[:-1]:
            try:
                return self._read(*copy)
            except FormatError:
                continue
        return self._read(*copies[-1])

    def _index_place(self) -> Place:
        if self.size < PRELUDE.size + TAIL.size:
            raise TruncatedError("the archive ends before its tail")
        self._file.seek(self.size - TAIL.size)
        tail = self._file.read(TAIL.size)
        offset, length, total, crc, mark = TAIL.unpack(tail)
        if mark != END_MARK or zlib.crc32(tail[:24]) != crc:
            raise TruncatedError("the archive's tail is missing or damaged: the file was cut or changed")
        if total != self.size:
            raise TruncatedError(f"the archive should have {total} bytes, it has {self.size}")
        if offset + length + TAIL.size != total:
            raise FormatError("the index is not where the tail says")
        return offset, length

    def _read_index(self) -> Index:
        offset, length = place = self._index_place()
        try:
            payload = self._read(INDEX, 0, place, "index")
        except FormatError as e:
            payload = self._index_copy(place, e)
        index = Index.from_json(_json(payload, "index"))
        index.check_cover(offset - (length if index.copy else 0))
        return index

    def _index_copy(self, place: Place, damage: FormatError) -> bytes:
        """Read the second copy, which lies just before the first; where there is none, the first one's damage counts.

        Raises
        ------
        FormatError
            When both are damaged.
        """
        offset, length = place
        try:
            return self._read(INDEX, 1, (offset - length, length), "second copy of the index")
        except FormatError:
            raise damage from None

    def _headers(self) -> list[tuple[int, int, Place, str]]:
        copies = [(HEADER, 0, self._index.header, "header")]
        if self._index.copy is not None:
            copies.append((HEADER, 1, self._index.copy, "second copy of the header"))
        return copies

    def _take_index(self, index: Index) -> None:
        self._index = index
        self._sections: dict[str, list[tuple[int, Place]]] = {}
        for i, (name, place) in enumerate(index.sections):
            self._sections.setdefault(name, []).append((i, place))
        self._chunks = dict(enumerate(index.chunks))
        self.num_chunks = len(index.chunks)

    def _scan(self) -> bytes:
        """Find all frames by their marks; give the header's payload."""
        self._sections, self._chunks = {}, {}
        found: dict[int, bytes] = {}
        marks, at = _Marks(self._file), 0
        while (at := marks.find(at)) >= 0:
            try:
                head = head_at(self._file, at, "frame")
            except FormatError:
                at += 1
                continue
            place = (at, FRAME.size + head.length)
            if head.kind == CHUNK and head.number < MAX_CHUNKS:
                self._chunks[head.number] = place
            elif is_intact(self._file, at):
                self._note(head.kind, head.number, place, found)
            at += place[1]
        if HEADER not in found:
            raise ChecksumError("no intact copy of the header is left: nothing can be salvaged")
        if INDEX in found:
            self._take_index(Index.from_json(_json(found[INDEX], "index")))
        else:
            self.num_chunks = max(self._chunks, default=-1) + 1
        return found[HEADER]

    def _note(self, kind: int, number: int, place: Place, found: dict[int, bytes]) -> None:
        """Remember a frame that is no chunk: the first header, the first index, every section by its name."""
        if kind in (HEADER, INDEX) and kind not in found and place[1] <= _MAX_FRAME:
            found[kind] = self._read(kind, number, place, "frame")
        elif kind == SECTION:
            self._file.seek(place[0] + FRAME.size)
            start = self._file.read(min(place[1] - FRAME.size, _LONGEST_NAME))
            try:
                self._sections.setdefault(_split_name(start)[0], []).append((number, place))
            except FormatError:
                return

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
        for number, place in copies[:-1]:
            try:
                return self._section_copy(name, number, place)
            except FormatError:
                continue
        return self._section_copy(name, *copies[-1])

    def _section_copy(self, name: str, number: int, place: Place) -> bytes:
        stored, body = _split_name(self._read(SECTION, number, place, f"section {name!r}"))
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
        return self._read(CHUNK, number, self._chunks[number], f"chunk {number}")

    def sizes(self) -> dict[str, int]:
        """Bytes by part: every section by name, chunks together, and the rest (header, index, tail)."""
        parts = {name: sum(n for _, (_, n) in copies) for name, copies in self._sections.items()}
        parts["chunks"] = sum(n for _, n in self._chunks.values())
        parts["header and index"] = self.size - sum(parts.values())
        return parts

    def check_copies(self) -> None:
        """Check every copy of every section, of header and index, and that copies of one part are equal.

        Raises
        ------
        FormatError
            When one is damaged or differs.
        """
        for name, copies in self._sections.items():
            _check_equal([self._section_copy(name, *c) for c in copies], f"section {name!r}")
        _check_equal([self._read(*c) for c in self._headers()], "header")
        offset, length = place = self._index_place()
        indexes = [self._read(INDEX, 0, place, "index")]
        if self._index.copy is not None:
            copy = (offset - length, length)
            indexes.append(self._read(INDEX, 1, copy, "second copy of the index"))
        _check_equal(indexes, "index")

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


def _check_equal(copies: list[bytes], what: str) -> None:
    if any(c != copies[0] for c in copies):
        raise FormatError(f"{what}: its copies differ")


class _Marks:
    """Finds the marks of frames, reading the file block by block."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._start, self._data = file, 0, b""

    def find(self, at: int) -> int:
        """Give the place of the first mark from ``at`` on, or -1."""
        while True:
            if not 0 <= at - self._start <= len(self._data) - len(FRAME_MARK):
                self._file.seek(at)
                self._start, self._data = at, self._file.read(_BLOCK)
                if len(self._data) < len(FRAME_MARK):
                    return -1
            hit = self._data.find(FRAME_MARK, at - self._start)
            if hit >= 0:
                return self._start + hit
            at = self._start + len(self._data) - len(FRAME_MARK) + 1


def _json(payload: bytes, what: str) -> dict[str, Any]:
    r = ByteReader(payload)
    doc = unpack_json(r, MAX_JSON, what)
    r.end()
    if not isinstance(doc, dict):
        raise FormatError(f"{what} is malformed")
    return doc
