# SPDX-License-Identifier: MIT
"""The journal of a stream: steps that wait for their chunk, on the disk before ``append`` returns.

Head (36 bytes): mark ``HBAEjrnl``, identity of the stream (16), index of the first step u64, CRC-32 of the 32 bytes
before. Record: mark ``HBrc``, length u64, CRC-32 of the payload, CRC-32 of the 16 bytes before, payload (one step). All
little-endian. A new journal takes the place of the old one by a rename, so a head is never torn.
"""

from __future__ import annotations

import os
import struct
import zlib
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from hbae.errors import ChecksumError, FormatError

HEAD = struct.Struct("<8s16sQI")
RECORD = struct.Struct("<4sQII")
_MAGIC, _MARK = b"HBAEjrnl", b"HBrc"


def sync_folder(path: Path) -> None:
    """Make names in a file's folder last beyond a crash of the machine."""
    fd = os.open(path.absolute().parent, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def new_journal(path: Path) -> Path:
    """Name of a journal that is about to take another one's place."""
    return path.with_name(path.name + ".new")


class Journal:
    """Promises that a step is on the disk when :meth:`append` returns."""

    def __init__(self, path: Path, identity: bytes) -> None:
        self.path, self._identity = path, identity
        self._file = self._new(0)

    def _new(self, first: int) -> FileIO:
        """Put an empty journal in the old one's place."""
        new = new_journal(self.path)
        head = HEAD.pack(_MAGIC, self._identity, first, 0)[:32]
        file = FileIO(new, "wb")
        try:
            file.write(head + zlib.crc32(head).to_bytes(4, "little"))
            os.fsync(file.fileno())
            os.replace(new, self.path)
        except BaseException:
            file.close()
            new.unlink(missing_ok=True)
            raise
        sync_folder(self.path)
        return file

    def restart(self, first: int) -> None:
        """Forget all steps; the next one has that index."""
        self._file.close()
        self._file = self._new(first)

    def append(self, payload: bytes) -> None:
        """Write one step."""
        head = RECORD.pack(_MARK, len(payload), zlib.crc32(payload), 0)[:16]
        data = memoryview(head + zlib.crc32(head).to_bytes(4, "little") + payload)
        while data:
            data = data[self._file.write(data) :]
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


@dataclass(frozen=True)
class Waiting:
    """What a journal holds: steps from index ``first`` on (None: unknown), bytes of a torn tail, damage in words."""

    first: int | None
    steps: list[bytes]
    cut: int = 0
    damage: str = ""


def read_journal(path: Path, identity: bytes, length: int) -> Waiting:
    """Read a journal whose records hold ``length`` bytes; a torn last record is cut.

    Raises
    ------
    FormatError
        When it belongs to another stream.
    ChecksumError
        When its head is damaged.
    """
    data = path.read_bytes() if path.exists() else b""
    if len(data) < HEAD.size:
        return Waiting(None, [], len(data), "the journal is missing or cut in its head")
    magic, owner, first, crc = HEAD.unpack(data[: HEAD.size])
    if magic != _MAGIC or zlib.crc32(data[:32]) != crc:
        raise ChecksumError(f"{path}: its head is damaged")
    if owner != identity:
        raise FormatError(f"{path}: it belongs to another stream")
    steps: list[bytes] = []
    at, size = HEAD.size, RECORD.size + length
    while at < len(data):
        payload = _record(data[at : at + size], length)
        if payload is None:
            # Every record was on the disk before the next one was begun: only the last one can be torn.
            torn = at + size >= len(data)
            damage = "" if torn else f"record {len(steps)} of the journal is damaged"
            return Waiting(first, steps, len(data) - at, damage)
        steps.append(payload)
        at += size
    return Waiting(first, steps)


def _record(data: bytes, length: int) -> bytes | None:
    """Give the payload of a whole record, or None."""
    if len(data) < RECORD.size + length:
        return None
    mark, said, crc, own = RECORD.unpack(data[: RECORD.size])
    payload = data[RECORD.size :]
    good = mark == _MARK and said == length and zlib.crc32(data[:16]) == own and zlib.crc32(payload) == crc
    return payload if good else None
