# SPDX-License-Identifier: MIT
"""What lies around the sections and chunks of an archive: the header before them, its copy, index and tail behind."""

from __future__ import annotations

import json
import os
import tempfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hbae.codecs import MAX_JSON_MARKS, ByteWriter, count_marks, pack
from hbae.container.frames import END_MARK, HEADER, INDEX, MAX_JSON, TAIL, frame
from hbae.errors import FieldError, OutputExistsError, told_as_output

_COPY_FROM = 1 << 20

Place = list[int]


def pack_header(header: dict[str, Any]) -> bytes:
    """Give the payload of a header's frame.

    Raises
    ------
    FieldError
        When the header is larger than a reader takes.
    """
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    if len(text) > MAX_JSON or count_marks(text) > MAX_JSON_MARKS:
        raise FieldError("names, attributes and dimensions take more room than an archive's header has")
    return pack(text, 19)


def pack_section(name: str, payload: bytes) -> bytes:
    """Give the payload of a section's frame: its name, then its bytes."""
    w = ByteWriter()
    w.part(name.encode())
    w.raw(payload)
    return w.getvalue()


def closing(at: int, header: bytes, place: Place, sections: Sequence[list[Any]], chunks: Sequence[Place]) -> bytes:
    """Give the end of an archive: copies of header and index where they pay, index and tail.

    Parameters
    ----------
    at : int
        The offset where the end begins.
    header : bytes
        Payload of the header's frame; ``place``: its (offset, length).
    sections, chunks
        (name, offset, length) and (offset, length) of all frames, in order.
    """
    data, copy = b"", None
    if at > _COPY_FROM:
        data = frame(HEADER, 1, header)
        copy = [at, len(data)]
    doc = {"header": place, "copy": copy, "sections": list(sections), "chunks": list(chunks)}
    payload = pack(json.dumps(doc, separators=(",", ":")).encode(), 19)
    if copy:
        data += frame(INDEX, 1, payload)
    index = frame(INDEX, 0, payload)
    offset = at + len(data)
    total = offset + len(index) + TAIL.size
    body = TAIL.pack(offset, len(index), total, 0, END_MARK)[:24]
    return data + index + body + zlib.crc32(body).to_bytes(4, "little") + END_MARK


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Refuse to replace a file that was not to be replaced.

    Raises
    ------
    OutputExistsError
        When the file exists and ``overwrite`` is false.
    """
    if path.exists() and not overwrite:
        raise OutputExistsError(f"{path} exists; use -f or overwrite=True to replace it")


def start_temporary(path: Path) -> tuple[int, Path]:
    """Make an empty file beside ``path`` whose name is not an archive's; give its descriptor and name.

    Raises
    ------
    OutputError
        When the folder is gone or full.
    """
    with told_as_output(path):
        fd, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    return fd, Path(name)


def publish(temp: Path, path: Path, overwrite: bool) -> None:
    """Give a complete file its name at once.

    Raises
    ------
    OutputExistsError
        When the name is taken and ``overwrite`` is false.
    """
    os.chmod(temp, 0o666 & ~_umask())
    if overwrite:
        os.replace(temp, path)
        return
    try:
        os.link(temp, path)
    except FileExistsError:
        temp.unlink()
        raise OutputExistsError(f"{path} appeared in the meantime; nothing was replaced") from None
    except OSError:
        os.replace(temp, path)
        return
    temp.unlink()


def _umask() -> int:
    value = os.umask(0)
    os.umask(value)
    return value
