# SPDX-License-Identifier: MIT
"""Writes an archive under a temporary name; it gets its own name only when it is complete."""

from __future__ import annotations

import json
import logging
import os
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from hbae.codecs import MAX_JSON_MARKS, ByteWriter, count_marks, pack
from hbae.container.frames import CHUNK, END_MARK, HEADER, INDEX, MAX_JSON, SECTION, TAIL, frame, prelude, read_frame
from hbae.errors import FieldError, OutputExistsError, told_as_output

_COPY_FROM = 1 << 20


class ArchiveWriter:
    """Promises an atomic archive: :meth:`finish` makes the complete file appear, anything else leaves none.

    Raises
    ------
    OutputExistsError
        When the file exists and ``overwrite`` is false.
    FieldError
        When the header is larger than a reader takes.
    OutputError
        When the disk is full or the folder is gone; so do the methods that write.
    """

    def __init__(self, path: str | os.PathLike[str], header: dict[str, Any], *, overwrite: bool = False) -> None:
        self.path = Path(path)
        if self.path.exists() and not overwrite:
            raise OutputExistsError(f"{self.path} exists; use -f or overwrite=True to replace it")
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        if len(text) > MAX_JSON or count_marks(text) > MAX_JSON_MARKS:
            raise FieldError("names, attributes and dimensions take more room than an archive's header has")
        with told_as_output(self.path):
            fd, name = tempfile.mkstemp(prefix=f".{self.path.name}.", suffix=".part", dir=self.path.parent)
        self._temp = Path(name)
        self._file = os.fdopen(fd, "wb")
        self._overwrite = overwrite
        self.redundant = False
        self._sections: list[list[Any]] = []
        self._chunks: list[list[Any]] = []
        self._header = pack(text, 19)
        try:
            with told_as_output(self.path):
                self._file.write(prelude())
            self._header_place = self._put(HEADER, 0, self._header)
        except BaseException:
            self.abort()
            raise

    def _put(self, kind: int, number: int, payload: bytes) -> list[int]:
        data = frame(kind, number, payload)
        with told_as_output(self.path):
            offset = self._file.tell()
            self._file.write(data)
        return [offset, len(data)]

    def add_section(self, name: str, payload: bytes) -> None:
        """Append a named section."""
        w = ByteWriter()
        w.part(name.encode())
        w.raw(payload)
        for _ in range(2 if self.redundant else 1):
            self._sections.append([name, *self._put(SECTION, len(self._sections), w.getvalue())])

    def add_chunk(self, payload: bytes) -> None:
        """Append the next chunk."""
        self._chunks.append(self._put(CHUNK, len(self._chunks), payload))

    def sizes(self) -> dict[str, int]:
        """Bytes by part so far: every section by name, chunks together."""
        parts: dict[str, int] = {}
        for name, _, n in self._sections:
            parts[str(name)] = parts.get(str(name), 0) + int(n)
        parts["chunks"] = sum(n for _, n in self._chunks)
        return parts

    def mark(self) -> tuple[int, int, int]:
        """Give a place to go back to with :meth:`rewind`."""
        return self._file.tell(), len(self._sections), len(self._chunks)

    def payloads(self, mark: tuple[int, int, int]) -> Iterator[bytes]:
        """Give the chunks that were added since ``mark``, one after the other, as they stand in the file."""
        with told_as_output(self.path):
            self._file.flush()
        with self._temp.open("rb") as f:
            for number, (offset, length) in enumerate(self._chunks[mark[2] :], mark[2]):
                yield read_frame(f, offset, length, (CHUNK, number), f"chunk {number}")

    def rewind(self, mark: tuple[int, int, int]) -> None:
        """Forget everything that was added since ``mark``."""
        with told_as_output(self.path):
            self._file.seek(mark[0])
            self._file.truncate()
        del self._sections[mark[1] :]
        del self._chunks[mark[2] :]

    def finish(self, check: Callable[[Path], None] | None = None) -> int:
        """Write index and tail, let ``check`` read the complete file, rename it, and give its length."""
        copy = self._put(HEADER, 1, self._header) if self._file.tell() > _COPY_FROM else None
        doc = {"header": self._header_place, "copy": copy, "sections": self._sections, "chunks": self._chunks}
        payload = pack(json.dumps(doc, separators=(",", ":")).encode(), 19)
        if copy:
            self._put(INDEX, 1, payload)
        offset, length = self._put(INDEX, 0, payload)
        total = self._file.tell() + TAIL.size
        body = TAIL.pack(offset, length, total, 0, END_MARK)[:24]
        with told_as_output(self.path):
            self._file.write(body + _crc(body) + END_MARK)
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
        if check is not None:
            check(self._temp)
        with told_as_output(self.path):
            publish(self._temp, self.path, self._overwrite)
        return total

    def abort(self) -> None:
        """Remove what was written so far, even where the disk is too full to close the file in peace."""
        try:
            self._file.close()
        except OSError:
            logging.getLogger("hbae").info("closing %s failed", self._temp, exc_info=True)
        finally:
            self._temp.unlink(missing_ok=True)

    def __enter__(self) -> ArchiveWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if not self._file.closed or self._temp.exists():
            self.abort()


def _crc(data: bytes) -> bytes:
    return zlib.crc32(data).to_bytes(4, "little")


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
