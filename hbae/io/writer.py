# SPDX-License-Identifier: MIT
"""Write fields to files, box by box, all or nothing."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from hbae.arrays import Array, Box, Field, Tiling, Variable, box_shape, boxes_of
from hbae.errors import FieldError, HbaeError, OutputExistsError, UnknownNameError, told_as_output
from hbae.io.boxes import aligned, box_step, fits_storage, reading_boxes
from hbae.io.provenance import with_provenance
from hbae.io.scratch import ScratchArray, ScratchFile
from hbae.io.signals import TurnSignals
from hbae.io.targets import (
    SUFFIXES,
    Target,
    check_target,
    make_target,
    shared_format,
    side_file,
    with_cf_times,
)
from hbae.ranks import Solo, Team, agreed, share_of, together

_COPY_BYTES = 64 << 20


class FieldWriter:
    """Writes a field box by box; the output appears when all of it is there, or never.

    As a context manager it also leaves nothing behind after an exception, Ctrl-C or SIGTERM.

    Parameters
    ----------
    path
        The output; its suffix gives the format: ``.nc``, ``.nc4``, ``.cdf``, ``.zarr``, ``.h5``, ``.hdf5``, ``.npy``,
        ``.raw``, ``.bin`` (the last two with a description ``NAME.yaml``).
    field
        What to write; its sources are not read.
    overwrite
        Replace an output that exists.
    scratch_dir
        Where boxes wait that do not lie on storage chunks; beside the output by default.
    history
        A line for the end of the global attribute ``history``; left out for ``.npy``.
    provenance
        More global attributes; left out for ``.npy``.
    team
        Ranks that write together. All make the writer, put boxes of their own and close it. A variable that
        :meth:`wants_spool` needs a call of :meth:`spool` first.

    Raises
    ------
    FieldError
        When the format cannot hold the field; nothing has been written then.
    OutputExistsError
        When the output exists.
    OutputError
        When the system or the format's library cannot write it, as on a full disk.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        field: Field,
        *,
        overwrite: bool = False,
        scratch_dir: str | os.PathLike[str] | None = None,
        history: str | None = None,
        provenance: Mapping[str, Any] | None = None,
        team: Team | None = None,
    ) -> None:
        self._path, self._team = Path(path), team or Solo()
        self._side = side_file(self._path)
        if SUFFIXES.get(self._path.suffix.lower()) != "npy":
            field = with_provenance(field, history, provenance or {})
        self._field = with_cf_times(field, self._path)
        # Through the libraries of HDF5 and netCDF-4 one process writes: the others' boxes go through a scratch file.
        self._one_hand = self._team.size > 1 and not shared_format(self._field, self._path)
        together(self._team, lambda: self._check(overwrite))
        self._scratch_dir = Path(scratch_dir) if scratch_dir is not None else self._path.absolute().parent
        stem = self._team.share(f".{self._path.stem}.{os.getpid()}-{secrets.token_hex(4)}")
        self._temporary = self._path.with_name(f"{stem}.tmp{self._path.suffix}")
        self._variables = {v.path: v for v in self._field.variables()}
        self._left = {p: int(np.prod(v.shape, dtype=object)) for p, v in self._variables.items()}
        self._scratch: ScratchFile | None = None
        self._spools: dict[str, ScratchArray] = {}
        self._waiting: dict[str, Array] = {}
        self._chunks: dict[str, tuple[int, ...] | None] = {}
        self._signals = TurnSignals()
        self._target: Target | None = None
        try:
            # The root makes the output, then the others open it.
            for rank in range(min(2, self._team.size)):
                together(self._team, partial(self._begin, min(self._team.rank, 1) == rank))
            if self._one_hand:
                self._chunks = self._team.share(self._chunks)
        except BaseException:
            self.abort()
            raise

    def _check(self, overwrite: bool) -> None:
        check_target(self._field, self._path)
        for p in (self._path, self._side):
            if p is not None and not overwrite and os.path.lexists(p):
                raise OutputExistsError(f"{p} exists")

    def _begin(self, mine: bool) -> None:
        if not mine:
            return
        try:
            with told_as_output(self._path, (OSError,)):
                self._target = make_target(self._temporary, self._field, self._path, attach=self._team.rank > 0)
                self._chunks = {p: self._target.chunk(v) for p, v in self._variables.items()}
        except HbaeError:
            raise
        except (RuntimeError, TypeError, ValueError, AttributeError, KeyError) as e:
            raise FieldError(f"{self._path}: the format's library refuses this field, or cannot write it: {e}") from e

    def chunk(self, var_path: str) -> tuple[int, ...] | None:
        """Give the storage chunk of a variable; boxes on whole chunks are written without a detour."""
        return self._chunks[var_path]

    def wants_spool(self, var_path: str, boxes: Tiling, window: Box) -> bool:
        """Tell whether boxes, cut to a window that is written as a whole, cannot be put straight by all ranks."""
        chunk = self._chunks[var_path]
        return self._one_hand or (chunk is not None and not fits_storage(boxes, window, chunk))

    def spool(self, var_path: str) -> None:
        """Make room for boxes that do not lie on storage chunks; all ranks of a team call it, one process need not.

        Raises
        ------
        FieldError
            When a rank does not see the folder.
        OutputError
            When there is no room.
        """
        v = self._variables[var_path]
        counts = [-(-n // c) for n, c in zip(v.shape, self._chunks[var_path] or v.shape, strict=True)]
        with self._told_of_scratch():
            if self._scratch is None:
                self._scratch = ScratchFile(self._scratch_dir, self._team)
            self._spools[var_path] = self._scratch.array(v.shape, v.dtype)
        self._waiting[var_path] = np.zeros(counts, bool)

    def put(self, var_path: str, box: Box, array: Array) -> None:
        """Write one box of one variable; every point must come exactly once, in any order.

        Raises
        ------
        UnknownNameError
            When there is no such variable.
        FieldError
            When the box does not fit the variable or the array, or the writer is closed.
        OutputError
            When the system or the format's library cannot write it, as on a full disk.
        """
        with told_as_output(self._path):
            self._put(var_path, box, array)

    def _put(self, var_path: str, box: Box, array: Array) -> None:
        v = self._variables.get(var_path)
        if self._target is None:
            raise FieldError("the writer is closed")
        if v is None:
            raise UnknownNameError(f"no variable {var_path!r} in this output")
        values = np.asarray(array)
        inside = len(box) == len(v.shape) and all(
            0 <= s.start <= s.stop <= n and s.step in (None, 1) for s, n in zip(box, v.shape, strict=True)
        )
        if not inside or values.shape != box_shape(box) or values.dtype != v.dtype:
            raise FieldError(
                f"{var_path}: box {box} with values {values.dtype}{values.shape} does not fit {v.dtype}{v.shape}"
            )
        self._left[var_path] -= values.size
        if not values.size:
            return
        chunk = self._chunks[var_path]
        # Objects have no place in a scratch file: their library rewrites parts of chunks, slow but right.
        whole = chunk is not None and aligned(box, v.shape, chunk)
        # Rank 0 puts whole chunks straight, whoever else may not.
        apart = self._one_hand and var_path in self._spools and not (whole and self._team.rank == 0)
        if not apart and (chunk is None or v.dtype.hasobject or whole):
            # The box fits: what is wrong now is the library's.
            with told_as_output(self._path, (OSError, RuntimeError, ValueError, TypeError, IndexError)):
                self._target.write(v, box, values)
        else:
            if var_path not in self._spools:
                if self._team.size > 1:
                    raise FieldError(f"{var_path}: a box that lies on no storage chunks needs a spool of all ranks")
                self.spool(var_path)
            with self._told_of_scratch():
                self._spools[var_path].write(box, values)
            self._waiting[var_path][_grid_box(box, chunk or v.shape)] = True

    def close(self) -> None:
        """Finish the output and put it in its place.

        Raises
        ------
        FieldError
            When a variable has not been written whole; nothing is left behind then.
        OutputError
            When the system or the format's library cannot write it.
        """
        if self._target is None:
            return
        with told_as_output(self._path):
            self._close(self._target)
        self._target = None
        self._release()

    def _close(self, target: Target) -> None:
        try:
            left = self._team.gather(self._left) or []
            agreed(self._team, lambda: self._check_whole(left))
            marks = self._team.gather(self._waiting) or []
            self._waiting = agreed(self._team, lambda: {p: np.any([m[p] for m in marks], axis=0) for p in self._spools})
            together(self._team, lambda: self._copy_all(target))
            together(self._team, lambda: target.leave() if self._team.rank > 0 else None)
            agreed(self._team, lambda: self._complete(target))
        except BaseException:
            self.abort()
            raise

    def _check_whole(self, left: list[dict[str, int]]) -> None:
        """Check that all ranks together have written every point once; ``left``: what each lacks."""
        sizes = {p: int(np.prod(v.shape, dtype=object)) for p, v in self._variables.items()}
        missing = {p: n - sum(n - rest[p] for rest in left) for p, n in sizes.items()}
        found = [f"{p} ({n} values)" for p, n in missing.items() if n != 0]
        if found:
            raise FieldError(f"not written whole: {', '.join(found[:5])}")

    def _copy_all(self, target: Target) -> None:
        if self._one_hand and self._team.rank > 0:
            return
        with told_as_output(self._path):
            for path, spool in self._spools.items():
                self._copy(self._variables[path], spool, target)

    def _complete(self, target: Target) -> None:
        with told_as_output(self._path):
            target.finish()
            self._target = None
            _sync_tree(self._temporary)
            self._describe()
            _put_in_place(self._temporary, self._path)

    def _copy(self, v: Variable, spool: ScratchArray, target: Target) -> None:
        """Write the storage chunks whose boxes came in parts; those that came whole have been written."""
        chunk = self._chunks[v.path] or v.shape
        waiting = self._waiting[v.path]
        step = box_step(v.shape, self._chunks[v.path], max(1, _COPY_BYTES // v.dtype.itemsize))
        boxes = Tiling(v.shape, step)
        for i in share_of(Solo() if self._one_hand else self._team, len(boxes)):
            box = boxes[i]
            here = waiting[_grid_box(box, chunk)]
            if here.all():
                target.write(v, box, spool.read(box))
            elif here.any():
                for small in boxes_of(box_shape(box), chunk):
                    part = tuple(slice(b.start + s.start, b.start + s.stop) for b, s in zip(box, small, strict=True))
                    if waiting[_grid_box(part, chunk)].all():
                        target.write(v, part, spool.read(part))

    def _describe(self) -> None:
        if self._side is not None:
            from hbae.io.raw import describe

            text = describe(self._field, self._path.name)
            temporary = self._side_temporary()
            temporary.write_text(text, "utf-8")
            _sync_tree(temporary)
            _put_in_place(temporary, self._side)

    def _side_temporary(self) -> Path:
        return self._temporary.with_name(self._temporary.name + ".yaml")

    def abort(self) -> None:
        """Remove all temporaries; what stood at the path stays as it was. May be called at any time."""
        if self._team.rank > 0:
            target, self._target = self._target, None
            if target is not None:
                target.discard()
            self._release()
        elif self._target is not None:
            target, self._target = self._target, None
            try:
                target.discard()
            except (OSError, RuntimeError):
                # A full disk does not let a library close its file; what it wrote is removed all the same.
                logging.getLogger("hbae").info("closing %s failed", self._temporary, exc_info=True)
            finally:
                self._remove()
        else:
            self._remove()

    def _remove(self) -> None:
        for p in (self._temporary, self._side_temporary()):
            if p.is_dir():
                shutil.rmtree(p, ignore_errors=True)
            else:
                p.unlink(missing_ok=True)
        self._release()

    def _release(self) -> None:
        self._spools.clear()
        if self._scratch is not None:
            self._scratch.close()

    def _told_of_scratch(self) -> AbstractContextManager[None]:
        return told_as_output(self._scratch_dir / "(scratch file)", (OSError,))

    def boxes(self, var_path: str) -> Iterator[Box]:
        """Walk over boxes that suit the source of a variable, or its storage here if the source has no chunks."""
        v = self._variables[var_path]
        item = 64 if v.dtype.hasobject else v.dtype.itemsize
        if v.source.storage is not None:
            yield from reading_boxes(v, _COPY_BYTES)
        else:
            yield from boxes_of(v.shape, box_step(v.shape, self._chunks[var_path], max(1, _COPY_BYTES // item)))

    def __enter__(self) -> FieldWriter:
        self._signals.start()
        return self

    def __exit__(self, kind: object, *exc: object) -> None:
        try:
            if kind is None:
                self.close()
            else:
                self.abort()
        finally:
            self._signals.stop()


def write_field(
    field: Field,
    path: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    scratch_dir: str | os.PathLike[str] | None = None,
    history: str | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> None:
    """Copy a field with all its values to a file, in bounded memory; parameters as of :class:`FieldWriter`.

    Raises
    ------
    FieldError
        When the format cannot hold the field.
    OutputExistsError
        When the output exists.
    """
    writer = FieldWriter(
        path, field, overwrite=overwrite, scratch_dir=scratch_dir, history=history, provenance=provenance
    )
    with writer:
        for v in field.variables():
            for box in writer.boxes(v.path):
                writer.put(v.path, box, v.source.read(box))


def _grid_box(box: Box, chunk: tuple[int, ...]) -> Box:
    return tuple(slice(s.start // c, -(-s.stop // c)) for s, c in zip(box, chunk, strict=True))


def _sync_tree(path: Path) -> None:
    files = [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path]
    for p in files:
        fd = os.open(p, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def _put_in_place(temporary: Path, final: Path) -> None:
    """Rename; a folder that stands there is moved aside first, for a folder cannot be replaced at once."""
    aside = None
    if final.is_dir() and not final.is_symlink():
        aside = temporary.with_name(temporary.name + ".old")
        final.rename(aside)
    try:
        temporary.replace(final)
    except BaseException:
        if aside is not None:
            aside.rename(final)
        raise
    if aside is not None:
        shutil.rmtree(aside, ignore_errors=True)
    fd = os.open(final.absolute().parent, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
