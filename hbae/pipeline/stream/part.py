# SPDX-License-Identifier: MIT
"""The growing file of a stream: frames as in an archive, numbered through, slab after slab of chunks.

A mark of 8 bytes, then frames: a header (packed JSON), sections (name as a part, then the body), chunks. A section
``ready`` closes what comes before the first step, a section ``slab`` the chunks of one slab of steps; it holds their
numbers. What lies behind the last of those does not count.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from hbae.codecs import ByteReader, ByteWriter, pack, unpack_json
from hbae.container.frames import CHUNK, FRAME, HEADER, MAX_JSON, SECTION, frame, parse_head, read_frame
from hbae.errors import FormatError
from hbae.pipeline.stream.journal import sync_folder

Place = tuple[int, int, int]
READY, SLAB = "ready", "slab"
_MAGIC = b"HBAEpart"


class PartFile:
    """Promises that a slab is on the disk when :meth:`close_slab` returns; the name is claimed at once.

    Raises
    ------
    FileExistsError
        When the file is there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("xb")
        self._count = 0
        self.slabs: list[Slab] = []
        self._places: list[Place] = []

    def begin(self, header: dict[str, Any], sections: Iterable[tuple[str, bytes]]) -> None:
        """Write what comes before the first step; without all of it the file counts as empty."""
        self._file.write(_MAGIC)
        self._put(HEADER, pack(json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode(), 19))
        for name, body in sections:
            self.add_section(name, body)
        self.add_section(READY, b"")
        self.sync()

    def _put(self, kind: int, payload: bytes) -> Place:
        data = frame(kind, self._count, payload)
        place = (self._file.tell(), len(data), self._count)
        self._file.write(data)
        self._count += 1
        return place

    def add_section(self, name: str, body: bytes) -> None:
        """Append a named section."""
        w = ByteWriter()
        w.part(name.encode())
        w.raw(body)
        self._put(SECTION, w.getvalue())

    def add_chunk(self, payload: bytes) -> None:
        """Append the next chunk of the slab."""
        self._places.append(self._put(CHUNK, payload))

    def close_slab(self, steps: bytes) -> None:
        """End a slab; ``steps``: the numbers of its steps as bytes."""
        self.add_section(SLAB, steps)
        self.sync()
        self.slabs.append(Slab(steps, tuple(self._places)))
        self._places = []

    def sync(self) -> None:
        """Bring everything to the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())
        sync_folder(self.path)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


@dataclass(frozen=True)
class Slab:
    """The numbers of a slab's steps as bytes, and the places of its chunks: offset, length, number."""

    steps: bytes
    places: tuple[Place, ...]


@dataclass
class PartContents:
    """What is intact in a growing file: header, sections, closed slabs; ``cut``: bytes behind the last of them."""

    header: dict[str, Any]
    sections: dict[str, bytes] = field(default_factory=dict)
    slabs: list[Slab] = field(default_factory=list)
    cut: int = 0
    ready: bool = False


def read_part(path: Path) -> PartContents:
    """Read a growing file up to the first frame that is cut or damaged; sections of slabs that are not closed too.

    Raises
    ------
    FormatError
        When not even what comes before the first step is intact.
    """
    with path.open("rb") as f:
        if not _MAGIC.startswith(f.read(len(_MAGIC))):
            raise FormatError(f"{path}: not the growing file of a stream")
        frames = _frames(f)
        kind, payload, place = next(frames, (0, b"", (0, 0, 0)))
        if kind != HEADER:
            raise FormatError(f"{path}: cut or damaged before the first step")
        r = ByteReader(payload)
        out = PartContents(unpack_json(r, MAX_JSON, "header"))
        end, places = place[0] + place[1], []
        new: dict[str, bytes] = {}
        for kind, payload, place in frames:
            if kind == CHUNK:
                places.append(place)
                continue
            name, body = _section(payload)
            if name not in (READY, SLAB):
                new[name] = body
                continue
            if name == SLAB:
                out.slabs.append(Slab(body, tuple(places)))
            out.sections |= new
            out.ready = True
            new, places, end = {}, [], place[0] + place[1]
        out.cut = f.seek(0, os.SEEK_END) - end
    if not out.ready:
        raise FormatError(f"{path}: cut or damaged before the first step")
    return out


def read_chunk(file: BinaryIO, place: Place) -> bytes:
    """Give the payload of a chunk.

    Raises
    ------
    FormatError
        When it is damaged.
    """
    return read_frame(file, place[0], place[1], (CHUNK, place[2]), f"chunk {place[2]}")


def _frames(file: BinaryIO) -> Iterator[tuple[int, bytes, Place]]:
    """Walk over the intact frames from the start."""
    size = os.fstat(file.fileno()).st_size
    at, count = len(_MAGIC), 0
    while True:
        file.seek(at)
        try:
            head = parse_head(file.read(FRAME.size), "frame")
        except FormatError:
            return
        if head.number != count or head.length > size - at - FRAME.size:
            return
        payload = file.read(head.length)
        if zlib.crc32(payload) != head.crc:
            return
        length = FRAME.size + head.length
        yield head.kind, payload, (at, length, count)
        at, count = at + length, count + 1


def _section(payload: bytes) -> tuple[str, bytes]:
    r = ByteReader(payload)
    return r.part().decode(), r.rest()
