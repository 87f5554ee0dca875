# SPDX-License-Identifier: MIT
"""Frames: every byte of an archive lies in the prelude, in a frame, or in the tail, and each is under a CRC-32.

Prelude (16 bytes): magic (8), format version u16, minimum reader version u16, CRC-32 of the 12 bytes before. Frame:
mark ``HBfr``, kind u8, three zero bytes, number u32, payload length u64, payload CRC-32, CRC-32 of the 24 bytes
before, payload. Tail (32 bytes): index offset u64, index frame length u64, file length u64, CRC-32 of the 24 bytes
before, mark ``HBnd``. All little-endian.
"""

from __future__ import annotations

import os
import struct
import zlib
from dataclasses import dataclass
from typing import BinaryIO

from hbae.errors import ChecksumError, FormatError, NotHbaeFileError, TruncatedError, UnsupportedVersionError

MAGIC = b"\x89HBAE\r\n\n"
FORMAT_VERSION = 1
FRAME_MARK = b"HBfr"
END_MARK = b"HBnd"
PRELUDE = struct.Struct("<8sHHI")
FRAME = struct.Struct("<4sB3sIQII")
TAIL = struct.Struct("<QQQI4s")

HEADER, SECTION, CHUNK, INDEX = 1, 2, 3, 4
MAX_JSON = 64 << 20
MAX_CHUNK_STORED = 512 << 20
MAX_SECTIONS = 1 << 20
MAX_CHUNKS = 1 << 20
_BLOCK = 1 << 20


@dataclass(frozen=True)
class FrameHead:
    """What a frame says of itself."""

    kind: int
    number: int
    length: int
    crc: int


def prelude() -> bytes:
    """Give the first 16 bytes of an archive."""
    head = PRELUDE.pack(MAGIC, FORMAT_VERSION, 1, 0)[:12]
    return head + struct.pack("<I", zlib.crc32(head))


def check_prelude(data: bytes) -> None:
    """Check magic, versions and checksum.

    Raises
    ------
    NotHbaeFileError, UnsupportedVersionError, TruncatedError, ChecksumError
        One for each way it can be bad.
    """
    if not data.startswith(MAGIC[: len(data)]) or not data:
        raise NotHbaeFileError("not an hbae archive: it does not start with the magic")
    if len(data) < PRELUDE.size:
        raise TruncatedError("the archive ends inside its first 16 bytes")
    _, _, minimum, crc = PRELUDE.unpack(data)
    if zlib.crc32(data[:12]) != crc:
        raise ChecksumError("the archive's first 16 bytes are damaged")
    if minimum > FORMAT_VERSION:
        raise UnsupportedVersionError(
            f"the archive asks for a reader of format {minimum}, this one reads {FORMAT_VERSION}"
        )


def frame(kind: int, number: int, payload: bytes) -> bytes:
    """Give a whole frame."""
    head = FRAME.pack(FRAME_MARK, kind, b"\0\0\0", number, len(payload), zlib.crc32(payload), 0)[:24]
    return head + struct.pack("<I", zlib.crc32(head)) + payload


def parse_head(data: bytes, what: str) -> FrameHead:
    """Read a frame's head.

    Raises
    ------
    TruncatedError, ChecksumError
        When it is cut or damaged.
    """
    if len(data) < FRAME.size:
        raise TruncatedError(f"{what}: the archive ends inside its frame")
    mark, kind, zero, number, length, crc, own = FRAME.unpack(data[: FRAME.size])
    if mark != FRAME_MARK or zero != b"\0\0\0" or zlib.crc32(data[:24]) != own:
        raise ChecksumError(f"{what}: its frame is damaged")
    return FrameHead(kind, number, length, crc)


def read_frame(file: BinaryIO, offset: int, length: int, expect: tuple[int, int], what: str) -> bytes:
    """Read the payload of a frame of that place and total length, and check it.

    Raises
    ------
    FormatError
        When it is cut, damaged, or not the frame that was expected.
    """
    head = head_at(file, offset, what)
    if (head.kind, head.number) != expect:
        raise FormatError(f"{what}: another frame lies at its place")
    if head.length != length - FRAME.size:
        raise FormatError(f"{what}: its length differs from the index")
    payload = file.read(head.length)
    if zlib.crc32(payload) != head.crc:
        raise ChecksumError(f"{what}: checksum does not match, the bytes are damaged")
    return payload


def head_at(file: BinaryIO, offset: int, what: str) -> FrameHead:
    """Read a frame's head and leave the file at its payload, all of which lies inside the file.

    Raises
    ------
    TruncatedError, ChecksumError
        When it is cut or damaged.
    """
    size = file.seek(0, os.SEEK_END)
    if not 0 <= offset <= size:
        raise TruncatedError(f"{what}: it lies outside the archive")
    file.seek(offset)
    head = parse_head(file.read(FRAME.size), what)
    # Before anything is read: a head may declare any length.
    if head.length > size - file.tell():
        raise TruncatedError(f"{what}: the archive ends inside it")
    return head


def is_intact(file: BinaryIO, offset: int) -> bool:
    """Tell whether the payload of the frame there has its checksum, holding little of it in memory."""
    try:
        head = head_at(file, offset, "frame")
    except FormatError:
        return False
    crc, left = 0, head.length
    while left:
        block = file.read(min(left, _BLOCK))
        if not block:
            return False
        crc, left = zlib.crc32(block, crc), left - len(block)
    return crc == head.crc
