# SPDX-License-Identifier: MIT
"""Writes an archive under a temporary name; it gets its own name only when it is complete."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from hbae.container.frames import CHUNK, HEADER, SECTION, frame, prelude, read_frame
from hbae.container.layout import closing, pack_header, pack_section, publish, refuse_existing, start_temporary
from hbae.errors import told_as_output

Mark = tuple[int, int, int]


class Writer(Protocol):
    """What takes the sections and chunks of an archive, in order; ``redundant``: sections are kept twice."""

    redundant: bool

    def add_section(self, name: str, payload: bytes) -> None:
        """Append a named section."""

    def share(self, count: int) -> range:
        """Begin a run of that many chunks; give the numbers of those that this writer takes."""

    def add_chunk(self, payload: bytes) -> None:
        """Append the next chunk."""

    def mark(self) -> Mark:
        """Give a place to go back to."""

    def payloads(self, mark: Mark) -> Iterator[bytes]:
        """Give the chunks that this writer took since ``mark``."""

    def rewind(self, mark: Mark) -> None:
        """Forget everything that was added since ``mark``."""

    def finish(self, check: Callable[[Path], None] | None = None) -> int:
        """Complete the archive, let ``check`` read it, give it its name, and give its length."""

    def sizes(self) -> dict[str, int]:
        """Bytes by part of the finished archive."""

    def __enter__(self) -> Writer:
        """Begin."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        """Leave nothing behind of an archive that was not finished."""


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
        refuse_existing(self.path, overwrite)
        self._header = pack_header(header)
        fd, self._temp = start_temporary(self.path)
        self._file = os.fdopen(fd, "wb")
        self._overwrite = overwrite
        self.redundant = False
        self._sections: list[list[Any]] = []
        self._chunks: list[list[Any]] = []
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
        data = pack_section(name, payload)
        for _ in range(2 if self.redundant else 1):
            self._sections.append([name, *self._put(SECTION, len(self._sections), data)])

    def share(self, count: int) -> range:
        """Begin a run of that many chunks; all of them are this writer's."""
        return range(count)

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

    def mark(self) -> Mark:
        """Give a place to go back to with :meth:`rewind`."""
        return self._file.tell(), len(self._sections), len(self._chunks)

    def payloads(self, mark: Mark) -> Iterator[bytes]:
        """Give the chunks that were added since ``mark``, one after the other, as they stand in the file."""
        with told_as_output(self.path):
            self._file.flush()
        with self._temp.open("rb") as f:
            for number, (offset, length) in enumerate(self._chunks[mark[2] :], mark[2]):
                yield read_frame(f, offset, length, (CHUNK, number), f"chunk {number}")

    def rewind(self, mark: Mark) -> None:
        """Forget everything that was added since ``mark``."""
        with told_as_output(self.path):
            self._file.seek(mark[0])
            self._file.truncate()
        del self._sections[mark[1] :]
        del self._chunks[mark[2] :]

    def finish(self, check: Callable[[Path], None] | None = None) -> int:
        """Write index and tail, let ``check`` read the complete file, rename it, and give its length."""
        at = self._file.tell()
        end = closing(at, self._header, self._header_place, self._sections, self._chunks)
        with told_as_output(self.path):
            self._file.write(end)
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
        if check is not None:
            check(self._temp)
        with told_as_output(self.path):
            publish(self._temp, self.path, self._overwrite)
        return at + len(end)

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
