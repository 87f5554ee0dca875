# SPDX-License-Identifier: MIT
"""One archive that all ranks of a team write: each keeps its chunks aside until all lengths are known."""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, cast

from hbae.container.frames import CHUNK, HEADER, SECTION, frame, prelude, read_frame
from hbae.container.layout import closing, pack_header, pack_section, publish, refuse_existing, start_temporary
from hbae.container.reader import ArchiveReader
from hbae.container.writer import Mark
from hbae.errors import FormatError, OutputError
from hbae.ranks import FileTeam, agreed, share_of, together

_IN_MEMORY = 64 << 20
_PIECE = 16 << 20


@dataclass
class _Section:
    name: str
    data: bytes = field(repr=False)


@dataclass
class _Run:
    """Consecutive chunks from number ``first`` on; ``mine``: those of this rank, whose frames lie in its spool."""

    first: int
    count: int
    mine: range
    begin: int
    lengths: list[int] = field(default_factory=list)


class SharedWriter:
    """Promises the bytes of :class:`ArchiveWriter`, whatever the number of ranks, all at once or never.

    All ranks add the same sections and begin the same runs; of a run's chunks each adds its own. Nothing of them is
    written before :meth:`finish`: offsets come from sums over the ranks below (exscan), the bytes go out by collective
    MPI-IO in bounded pieces, and every rank reads its neighbour's chunks back before the file gets its name.

    Parameters
    ----------
    scratch : path, optional
        Folder for what a rank keeps aside (64 MiB stay in memory).

    Raises
    ------
    OutputExistsError, FieldError, OutputError, BatchError
        On all ranks together, as for :class:`ArchiveWriter`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        header: dict[str, Any],
        team: FileTeam,
        *,
        overwrite: bool = False,
        scratch: str | os.PathLike[str] | None = None,
    ) -> None:
        self.path, self._team, self._overwrite, self.redundant = Path(path), team, overwrite, False
        self._header = together(team, lambda: pack_header(header))
        self._parts: list[_Section | _Run] = []
        self._sizes: dict[str, int] = {}
        self._temp = Path(agreed(team, self._start))
        try:
            self._spool = together(team, lambda: _spool(scratch))
        except BaseException:
            self._remove()
            raise

    def _start(self) -> str:
        refuse_existing(self.path, self._overwrite)
        fd, temp = start_temporary(self.path)
        os.close(fd)
        return str(temp)

    def add_section(self, name: str, payload: bytes) -> None:
        """Append a named section; the root's bytes count."""
        number = sum(isinstance(p, _Section) for p in self._parts)
        data = pack_section(name, payload)
        for i in range(2 if self.redundant else 1):
            self._parts.append(_Section(name, frame(SECTION, number + i, data)))

    def share(self, count: int) -> range:
        """Begin a run of that many chunks; give the numbers of those that this rank adds, in order."""
        mine = share_of(self._team, count)
        self._parts.append(_Run(sum(r.count for r in self._runs()), count, mine, self._spool.seek(0, os.SEEK_END)))
        return mine

    def _runs(self) -> list[_Run]:
        return [p for p in self._parts if isinstance(p, _Run)]

    def add_chunk(self, payload: bytes) -> None:
        """Append this rank's next chunk of the last run."""
        run = self._runs()[-1]
        data = frame(CHUNK, run.first + run.mine[len(run.lengths)], payload)
        self._spool.seek(0, os.SEEK_END)
        self._spool.write(data)
        run.lengths.append(len(data))

    def mark(self) -> Mark:
        """Give a place to go back to with :meth:`rewind`."""
        runs = self._runs()
        return self._spool.seek(0, os.SEEK_END), len(self._parts), len(runs[-1].lengths) if runs else 0

    def payloads(self, mark: Mark) -> Iterator[bytes]:
        """Give the chunks that this rank added since ``mark``, all to the last run."""
        run, at = self._runs()[-1], mark[0]
        for i, length in enumerate(run.lengths[mark[2] :], mark[2]):
            number = run.first + run.mine[i]
            yield read_frame(self._spool, at, length, (CHUNK, number), f"chunk {number}")
            at += length

    def rewind(self, mark: Mark) -> None:
        """Forget everything that was added since ``mark``."""
        self._spool.seek(mark[0])
        self._spool.truncate()
        del self._parts[mark[1] :]
        if runs := self._runs():
            del runs[-1].lengths[mark[2] :]

    def finish(self, check: Callable[[Path], None] | None = None) -> int:
        """Write everything, let ``check`` read the file on the root, rename it, and give its length."""
        starts, chunks, end = self._places()
        tail = self._closing(starts, chunks, end) if self._team.rank == 0 else b""
        total = self._team.share(end + len(tail))
        together(self._team, self._reach)
        self._write(starts, (end, tail))
        together(self._team, lambda: self._read_back(total, check))
        agreed(self._team, lambda: publish(self._temp, self.path, self._overwrite))
        return total

    def _places(self) -> tuple[list[int], list[list[int]], int]:
        """Give where every part begins (for a run, this rank's chunks), the chunks' places (root only), and the end."""
        runs = self._runs()
        lower, totals = self._team.below([sum(r.lengths) for r in runs])
        sections = self._team.share([len(p.data) if isinstance(p, _Section) else 0 for p in self._parts])
        at = len(prelude()) + len(frame(HEADER, 0, self._header))
        begins, starts = [], []
        left = iter(zip(lower, totals, strict=True))
        for p, n in zip(self._parts, sections, strict=True):
            below, whole = next(left) if isinstance(p, _Run) else (0, n)
            begins.append(at)
            starts.append(at + below)
            at += whole
        lengths = self._team.gather([r.lengths for r in runs])
        chunks: list[list[int]] = []
        firsts = [b for b, p in zip(begins, self._parts, strict=True) if isinstance(p, _Run)]
        for k, place in enumerate(firsts if lengths else ()):
            for n in itertools.chain.from_iterable(by_rank[k] for by_rank in lengths or ()):
                chunks.append([place, n])
                place += n
        self._sizes = {}
        for p, n in zip(self._parts, sections, strict=True):
            if isinstance(p, _Section):
                self._sizes[p.name] = self._sizes.get(p.name, 0) + n
        self._sizes["chunks"] = sum(totals)
        return starts, chunks, at

    def _closing(self, starts: list[int], chunks: list[list[int]], end: int) -> bytes:
        pairs = zip(self._parts, starts, strict=True)
        sections = [[p.name, at, len(p.data)] for p, at in pairs if isinstance(p, _Section)]
        begin = len(prelude())
        place = [begin, len(frame(HEADER, 0, self._header))]
        return closing(end, self._header, place, sections, chunks)

    def _reach(self) -> None:
        """Open the file as any process would: a rank whose host does not see it must say so before MPI is asked."""
        try:
            self._temp.open("r+b").close()
        except OSError as e:
            raise OutputError(f"{self._temp}: {e.strerror}; all ranks must see the output's folder") from e

    def _write(self, starts: list[int], last: tuple[int, bytes]) -> None:
        own = sum(-(-sum(r.lengths) // _PIECE) for r in self._runs())
        pieces = self._chunk_pieces(starts)
        if self._team.rank == 0:
            rest = list(self._root_pieces(starts, last))
            own, pieces = own + len(rest), itertools.chain(rest, pieces)
        counts = self._team.gather(own)
        rounds = self._team.share(max(counts or [0]))
        failure: Exception | None = None
        try:
            self._team.write_pieces(self._temp, pieces, rounds)
        except Exception as e:
            failure = e
        together(self._team, lambda: _fail(failure))

    def _root_pieces(self, starts: list[int], last: tuple[int, bytes]) -> Iterator[tuple[int, bytes]]:
        yield 0, prelude() + frame(HEADER, 0, self._header)
        for p, at in zip(self._parts, starts, strict=True):
            if isinstance(p, _Section):
                yield from _cut(at, p.data)
        yield from _cut(*last)

    def _chunk_pieces(self, starts: list[int]) -> Iterator[tuple[int, bytes]]:
        for run, at in zip(self._parts, starts, strict=True):
            if isinstance(run, _Run):
                self._spool.seek(run.begin)
                left = sum(run.lengths)
                while left:
                    data = self._spool.read(min(left, _PIECE))
                    yield at, data
                    at, left = at + len(data), left - len(data)

    def _read_back(self, total: int, check: Callable[[Path], None] | None) -> None:
        """Read what others wrote: file systems differ in what they promise to several writers."""
        if self._team.rank == 0 and check is not None:
            check(self._temp)
        try:
            reader = ArchiveReader(self._temp)
            try:
                if reader.size != total:
                    raise FormatError(f"{reader.size} bytes where {total} were written")
                for run in self._runs():
                    for i in share_of(self._team, run.count, ahead=1):
                        reader.chunk(run.first + i)
            finally:
                reader.close()
        except FormatError as e:
            raise OutputError(f"{self._temp}: not what the ranks wrote is in the file: {e}") from e

    def sizes(self) -> dict[str, int]:
        """Bytes by part of the finished archive: every section by name, chunks together."""
        return dict(self._sizes)

    def _remove(self) -> None:
        if self._team.rank == 0:
            self._temp.unlink(missing_ok=True)

    def __enter__(self) -> SharedWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._spool.close()
        self._remove()


def _spool(folder: str | os.PathLike[str] | None) -> BinaryIO:
    place = None if folder is None else os.fspath(folder)
    return cast("BinaryIO", tempfile.SpooledTemporaryFile(_IN_MEMORY, dir=place))


def _cut(at: int, data: bytes) -> Iterator[tuple[int, bytes]]:
    for i in range(0, len(data), _PIECE):
        yield at + i, data[i : i + _PIECE]


def _fail(failure: Exception | None) -> None:
    if failure is not None:
        raise failure
