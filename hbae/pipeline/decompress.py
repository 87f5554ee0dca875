# SPDX-License-Identifier: MIT
"""Archives to files: chunk by chunk, whole or a window, and what is left of a damaged one."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from hbae.arrays import Array, ArraySource, Box, Dimension, Field, Hollow, Variable, box_shape
from hbae.config import glob_matches
from hbae.errors import ConfigError, FieldError, FormatError, UnknownNameError
from hbae.io import FieldWriter, fill_patterns
from hbae.io.npy import NAME, bare
from hbae.pipeline.ahead import ahead
from hbae.pipeline.archive import Archive, Part
from hbae.pipeline.begin import own_device
from hbae.pipeline.options import Progress
from hbae.pipeline.workers import usable_cores
from hbae.ranks import Solo, Team, seat_ranks, share_of, together

PROVENANCE = ("hbae_version", "hbae_source", "hbae_bounds")


@dataclass(frozen=True)
class Salvaged:
    """What could not be given back: (variable, chunk, message)."""

    lost: tuple[tuple[str, int, str], ...] = ()


def decompress_file(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    variables: tuple[str, ...] = (),
    window: Mapping[str, tuple[int, int]] | None = None,
    salvage: bool = False,
    overwrite: bool = False,
    scratch: str | os.PathLike[str] | None = None,
    provenance: bool = True,
    progress: Progress | None = None,
    backend: str = "auto",
    model: Path | None = None,
    team: Team | None = None,
    threads: int | None = None,
) -> Salvaged:
    """Write an archive's variables to a file of the format that the suffix names; every value passed its checks.

    ``window``: half-open index ranges by dimension. ``salvage``: lost chunks become NaN or fill values and are listed.
    A single variable that ``variables`` names goes to ``.npy`` without its attributes and names. The ranks of a
    ``team`` share the chunks; the values are those of one process. ``threads``: how many chunks are decoded side by
    side (default: :func:`~hbae.pipeline.workers.usable_cores`); memory grows with it, values do not depend on it.

    Raises
    ------
    FormatError
        When the archive is damaged and ``salvage`` is false.
    FieldError
        When the output cannot be written.
    BatchError
        Of a team: what another rank raised.
    """
    lost: list[tuple[str, int, str]] = []
    ranks = team or Solo()
    with ExitStack() as stack:

        def start() -> tuple[Archive, Field, dict[str, Box], str, dict[str, str] | None]:
            archive = stack.enter_context(Archive(path, salvage=salvage, backend=backend, model=model))
            alone = Path(out).suffix.lower() == ".npy"
            field, cuts = select(archive.field, variables, window or {}, alone=alone)
            stripped = alone and bool(variables) and len(cuts) == 1
            if stripped:
                field = bare(field)
            return archive, field, cuts, NAME if stripped else "", _provenance(archive, field) if provenance else None

        archive, field, cuts, name, extra = together(ranks, start)
        side = threads
        if ranks.size > 1:
            text = json.dumps(field.to_json()) + repr((str(path), str(out), cuts, salvage))
            machines, fair = seat_ranks(ranks, hashlib.sha256(text.encode()).hexdigest())
            side = fair if threads is None else threads
            archive.work_on(own_device(backend, machines, ranks.rank))
        options: dict[str, Any] = {"overwrite": overwrite, "scratch_dir": scratch, "provenance": extra, "team": ranks}
        with FieldWriter(out, field, **options) as writer:
            salvaged = lost if salvage else None
            walk = _Walk(archive, cuts, name, salvaged, progress, usable_cores() if side is None else side)
            walk.prepare(writer, ranks)
            together(ranks, lambda: walk.write(writer, ranks))
            writer.close()
    found = [row for rows in ranks.gather(lost) or () for row in rows]
    # The small variables come last.
    return Salvaged(tuple(ranks.share(sorted(found, key=lambda row: (row[1] < 0, row[1])))))


def select(
    field: Field, variables: tuple[str, ...], window: Mapping[str, tuple[int, int]], *, alone: bool = False
) -> tuple[Field, dict[str, Box]]:
    """Give the part of a field that globs and windows leave, and for every variable the box of the whole it keeps.

    Globs bring along the coordinates of the dimensions, unless ``alone``.

    Raises
    ------
    UnknownNameError
        When a glob or dimension matches nothing.
    ConfigError
        When a window does not fit its dimension.
    """
    keep = {v.path for v in field.variables()}
    if variables:
        keep = set()
        for glob in variables:
            hits = {v.path for v in field.variables() if glob_matches(glob, v.path)}
            if not hits:
                raise UnknownNameError(f"vars: {glob!r} matches no variable")
            keep |= hits
        dims = {d for v in field.variables() if v.path in keep for d in v.dims}
        if not alone:
            keep |= {v.path for v in field.variables() if v.dims == (v.name,) and v.name in dims}
    sizes = {d.name: d.size for g in field.groups for d in g.dims}
    for name, (start, stop) in window.items():
        if name not in sizes:
            raise UnknownNameError(f"window: no dimension {name!r}; known: {', '.join(sizes)}")
        if not 0 <= start < stop <= sizes[name]:
            raise ConfigError(f"window {name}={start}:{stop}: the dimension has length {sizes[name]}")
    cuts: dict[str, Box] = {}
    groups = []
    for g in field.groups:
        kept: list[Variable] = []
        for v in g.variables:
            if v.path not in keep:
                continue
            box = tuple(slice(*window.get(d, (0, n))) for d, n in zip(v.dims, v.shape, strict=True))
            cuts[v.path] = box
            kept.append(replace(v, source=Hollow(box_shape(box), v.dtype)))
        dims_left = tuple(
            Dimension(d.name, window[d.name][1] - window[d.name][0], d.unlimited) if d.name in window else d
            for d in g.dims
        )
        groups.append(replace(g, dims=dims_left, variables=tuple(kept)))
    return replace(field, groups=tuple(groups)), cuts


@dataclass(frozen=True)
class _Walk:
    """Writes what an archive holds, each chunk decoded once.

    ``name``: another name for the only variable. ``lost``: where losses are noted instead of raised. ``threads``:
    chunks decoded side by side.
    """

    archive: Archive
    cuts: dict[str, Box]
    name: str
    lost: list[tuple[str, int, str]] | None
    progress: Progress | None
    threads: int

    def write(self, writer: FieldWriter, team: Team) -> None:
        """Write this rank's share."""
        parts = [p for p in self.archive.parts if any(n in self.cuts for n in p.paths)]
        work = [(p, i) for p in parts for i in share_of(team, len(p.boxes)) if self._wanted(p, i)]
        for done, (place, arrays) in enumerate(zip(work, ahead(self._decode, work, self.threads), strict=True), 1):
            self._write_chunk(writer, *place, arrays)
            if self.progress is not None:
                self.progress("decoding", done / len(work))
        if team.rank == 0:
            chunked = {n for part in self.archive.parts for n in part.paths}
            for name in self.cuts:
                if name not in chunked:
                    self._write_small(writer, name)

    def prepare(self, writer: FieldWriter, team: Team) -> None:
        """Make room, on all ranks together, for boxes that not every rank can put straight into the output."""
        for part in self.archive.parts if team.size > 1 else ():
            for n in part.paths:
                written = self.name or n
                if n in self.cuts and writer.wants_spool(written, part.boxes, self.cuts[n]):
                    writer.spool(written)

    def _wanted(self, part: Part, i: int) -> dict[str, Box]:
        """What of chunk i is asked for, by variable."""
        box = part.boxes[i]
        return {n: cut for n in part.paths if n in self.cuts and (cut := _overlap(box, self.cuts[n])) is not None}

    def _decode(self, part: Part, i: int) -> list[Array] | FormatError:
        try:
            return self.archive.chunk(part, i, keep=False)
        except FormatError as e:
            return e

    def _write_chunk(self, writer: FieldWriter, part: Part, i: int, arrays: list[Array] | FormatError) -> None:
        box, wanted = part.boxes[i], self._wanted(part, i)
        if isinstance(arrays, FormatError):
            if self.lost is None:
                raise arrays
            self.lost.extend((n, part.first + i, str(arrays)) for n in wanted)
        for k, name in enumerate(part.paths):
            if name not in wanted:
                continue
            cut, whole = wanted[name], self.cuts[name]
            src = tuple(slice(c.start - b.start, c.stop - b.start) for c, b in zip(cut, box, strict=True))
            dst = tuple(slice(c.start - w.start, c.stop - w.start) for c, w in zip(cut, whole, strict=True))
            v = self.archive.field.variable(name)
            writer.put(self.name or name, dst, _nothing(v, cut) if isinstance(arrays, FormatError) else arrays[k][src])

    def _write_small(self, writer: FieldWriter, name: str) -> None:
        v, whole = self.archive.field.variable(name), self.cuts[name]
        try:
            values = v.source.read(whole)
        except FormatError as e:
            if self.lost is None:
                raise
            self.lost.append((name, -1, str(e)))
            values = _nothing(v, whole)
        writer.put(self.name or name, tuple(slice(0, n) for n in box_shape(whole)), values)


def _nothing(v: Variable, box: Box) -> Array:
    return np.full(box_shape(box), lost_value(v), v.dtype)


def _overlap(a: Box, b: Box) -> Box | None:
    cut = tuple(slice(max(x.start, y.start), min(x.stop, y.stop)) for x, y in zip(a, b, strict=True))
    return None if any(c.stop <= c.start for c in cut) else cut


def lost_value(v: Variable) -> Any:
    """What a lost point becomes: the declared fill value, else NaN for floats, the lowest value of integers.

    Empty text.
    """
    fills = fill_patterns(v)
    if fills:
        return np.ravel(fills[0])[0]
    if v.dtype.kind in "fc":
        return np.nan
    if v.dtype.kind in "iu":
        return np.iinfo(v.dtype).min
    return "" if v.dtype.kind in "OU" else b"" if v.dtype.kind == "S" else False


def _provenance(archive: Archive, field: Field) -> dict[str, str]:
    """Names that decompress adds to the root's attributes (``--no-provenance`` leaves them out)."""
    bounds = []
    for part in archive.parts:
        if part.group is not None:
            try:
                plan = archive.plan(part.group)
            except FormatError:
                continue
            names = {v.path for v in field.variables()}
            pairs = zip(plan.paths, plan.bounds, strict=True)
            bounds += [f"{p}:{','.join(str(b) for b in bs)}" for p, bs in pairs if p in names]
    values = (str(archive.reader.header.get("package", "")), archive.path.name, "; ".join(bounds))
    return dict(zip(PROVENANCE, values, strict=True))


def load_field(archive: Archive, threads: int) -> Field:
    """Give the field with all values in memory; every chunk is decoded once, so many side by side.

    Raises
    ------
    FieldError
        When memory does not hold them.
    FormatError
        When the archive is damaged.
    """
    field = archive.field
    try:
        arrays = {v.path: np.empty(v.shape, v.dtype) for v in field.variables()}
    except (MemoryError, ValueError) as e:
        raise FieldError(f"the values do not fit into memory ({e}); open the archive lazily, or write a file") from e
    work = [(part, i) for part in archive.parts for i in range(len(part.boxes))]
    decoded = ahead(partial(archive.chunk, keep=False), work, threads)
    for (part, i), values in zip(work, decoded, strict=True):
        for name, a in zip(part.paths, values, strict=True):
            arrays[name][part.boxes[i]] = a
    for v in archive.small_variables():
        arrays[v.path][...] = archive.small(v.path)
    return field.with_sources({p: ArraySource(a) for p, a in arrays.items()})
