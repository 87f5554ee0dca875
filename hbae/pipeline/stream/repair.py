# SPDX-License-Identifier: MIT
"""What a killed stream left, to an ordinary archive."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from hbae.arrays import Array
from hbae.errors import ChecksumError, FieldError, FormatError, OutputExistsError
from hbae.pipeline.stream.coder import Coder
from hbae.pipeline.stream.finish import StreamReport, remove_growing, write_archive
from hbae.pipeline.stream.journal import Waiting, read_journal
from hbae.pipeline.stream.layout import Layout
from hbae.pipeline.stream.part import PartContents, Slab, read_part
from hbae.pipeline.stream.state import restore


def repair(
    part: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    overwrite: bool = False,
    salvage: bool = False,
) -> StreamReport:
    """Write the archive of a stream that was not closed: every step whose ``append`` returned is in it.

    Parameters
    ----------
    part : path
        ``PATH.part``; the journal ``PATH.part.journal`` lies beside it. Both are removed when the archive is there.
    out : path, optional
        The archive; ``PATH`` by default.
    overwrite : bool
        Replace an archive that exists.
    salvage : bool
        Where bytes were damaged, not only torn off: give the steps before the damage, and remove nothing.

    Raises
    ------
    FieldError
        When there is nothing to repair.
    FormatError
        When bytes are damaged, and there is no ``salvage``.
    OutputExistsError
        When the archive exists.
    """
    source = Path(part)
    if not source.is_file():
        raise FieldError(f"{source}: there is no such file")
    if out is None and source.suffix != ".part":
        raise FieldError(f"{source}: its name does not end in .part; say where the archive goes")
    target = Path(out) if out is not None else source.with_suffix("")
    if target.exists() and not overwrite:
        raise OutputExistsError(f"{target} exists; use -f or overwrite=True to replace it")
    left = read_left(source, overwrite=overwrite, salvage=salvage)
    coder = left.coder
    if not left.slabs:
        if not len(left.steps):
            raise FieldError(f"{source}: no step was stored")
        coder = Coder(coder.layout, len(left.steps), coder.wanted, coder.options, only=True)
    with threadpool_limits(1):
        tail = left.steps, left.arrays
        report = write_archive(
            target, coder, source, left.slabs, tail, section=left.section, cut=left.cut, notes=left.notes
        )
    if not left.notes:
        remove_growing(source, _journal_of(source))
    return report


@dataclass(frozen=True)
class Left:
    """What a stream left: slabs of chunks, the steps behind them, bytes that were cut, damage in words."""

    coder: Coder
    section: bytes
    slabs: list[Slab]
    steps: Array
    arrays: dict[str, Array]
    cut: int
    notes: tuple[str, ...]


def read_left(source: Path, *, overwrite: bool = False, salvage: bool = False) -> Left:
    """Read growing file and journal.

    Raises
    ------
    FormatError
        When bytes are damaged, and there is no ``salvage``.
    """
    contents = read_part(source)
    coder, section = restore(contents, overwrite=overwrite)
    waiting, notes = _waiting(_journal_of(source), contents, coder, salvage)
    steps, arrays = _tail(coder.layout, waiting, len(contents.slabs) * coder.steps)
    return Left(coder, section, contents.slabs, steps, arrays, contents.cut + waiting.cut, notes)


def _journal_of(source: Path) -> Path:
    return source.with_name(source.name + ".journal")


def _waiting(journal: Path, part: PartContents, coder: Coder, salvage: bool) -> tuple[Waiting, tuple[str, ...]]:
    """Read the journal; damage before a step that had been stored is an error, or a note with ``salvage``."""
    done = len(part.slabs) * coder.steps
    identity = bytes.fromhex(str(part.header["identity"]))
    length = coder.layout.step.itemsize + coder.layout.nbytes
    try:
        waiting = read_journal(journal, identity, length)
        damage = waiting.damage
        if waiting.first is not None and waiting.first > done:
            damage = f"{waiting.first - done} steps behind step {done} are damaged in the growing file"
    except FormatError as e:
        waiting, damage = Waiting(None, [], journal.stat().st_size), str(e)
    if damage and not salvage:
        raise ChecksumError(f"{damage}; --salvage gives the steps before")
    if waiting.first is None or waiting.first > done:
        waiting = Waiting(done, [], waiting.cut)
    return waiting, (damage,) if damage else ()


def _tail(layout: Layout, waiting: Waiting, done: int) -> tuple[Array, dict[str, Array]]:
    """Give numbers and fields of the journal's steps that lie in no chunk yet."""
    found = [layout.unpack(p) for p in waiting.steps[done - (waiting.first or 0) :]]
    steps = np.array([s for s, _ in found], layout.step)
    arrays = {
        v.path: np.stack([a[v.path] for _, a in found], out=np.empty((len(found), *v.shape), v.dtype))
        for v in layout.moving
        if found
    }
    return steps, arrays
