# SPDX-License-Identifier: MIT
"""Archives to files: chunk by chunk, whole or a window, and what is left of a damaged one."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hbae.arrays import Array, ArraySource, Box, Dimension, Field, Hollow, Variable, box_shape, boxes_of
from hbae.config import glob_matches
from hbae.errors import ConfigError, FieldError, FormatError, UnknownNameError
from hbae.io import FieldWriter, fill_patterns
from hbae.io.npy import NAME, bare
from hbae.pipeline.archive import Archive
from hbae.pipeline.options import Progress

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
) -> Salvaged:
    """Write an archive's variables to a file of the format that the suffix names; every value passed its checks.

    ``window``: half-open index ranges by dimension. ``salvage``: lost chunks become NaN or fill values and are listed.
    A single variable that ``variables`` names goes to ``.npy`` without its attributes and names.

    Raises
    ------
    FormatError
        When the archive is damaged and ``salvage`` is false.
    """
    lost: list[tuple[str, int, str]] = []
    with Archive(path, salvage=salvage, backend=backend, model=model) as archive:
        alone = Path(out).suffix.lower() == ".npy"
        field, cuts = select(archive.field, variables, window or {}, alone=alone)
        stripped = alone and bool(variables) and len(cuts) == 1
        if stripped:
            field = bare(field)
        extra = _provenance(archive, field) if provenance else None
        options: dict[str, Any] = {"overwrite": overwrite, "scratch_dir": scratch, "provenance": extra}
        with FieldWriter(out, field, **options) as writer:
            for name, box, values in _pieces(archive, field, cuts, lost if salvage else None, progress):
                writer.put(NAME if stripped else name, box, values)
            writer.close()
    return Salvaged(tuple(lost))


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


def _pieces(
    archive: Archive,
    field: Field,
    cuts: dict[str, Box],
    lost: list[tuple[str, int, str]] | None,
    progress: Progress | None,
) -> Iterator[tuple[str, Box, Array]]:
    """Walk over everything to write; each chunk is decoded once."""
    chunked: set[str] = set()
    todo = [p for p in archive.parts if any(n in cuts for n in p.paths)]
    total, done = sum(len(p.boxes) for p in todo) or 1, 0
    for part in todo:
        chunked |= set(part.paths)
        for i, box in enumerate(part.boxes):
            done += 1
            wanted = {n: _overlap(box, cuts[n]) for n in part.paths if n in cuts}
            if all(w is None for w in wanted.values()):
                continue
            try:
                arrays: list[Array] | None = archive.chunk(part, i, keep=False)
            except FormatError as e:
                if lost is None:
                    raise
                text = str(e)
                lost.extend((n, part.first + i, text) for n in wanted)
                arrays = None
            for k, name in enumerate(part.paths):
                cut = wanted.get(name)
                if cut is None:
                    continue
                src = tuple(slice(c.start - b.start, c.stop - b.start) for c, b in zip(cut, box, strict=True))
                dst = tuple(slice(c.start - w.start, c.stop - w.start) for c, w in zip(cut, cuts[name], strict=True))
                v = archive.field.variable(name)
                values = arrays[k][src] if arrays is not None else np.full(box_shape(cut), lost_value(v), v.dtype)
                yield name, dst, values
            if progress is not None:
                progress("decoding", done / total)
    for name, whole in cuts.items():
        if name in chunked:
            continue
        v = archive.field.variable(name)
        try:
            values = v.source.read(whole)
        except FormatError as e:
            if lost is None:
                raise
            lost.append((name, -1, str(e)))
            values = np.full(box_shape(whole), lost_value(v), v.dtype)
        yield name, tuple(slice(0, n) for n in box_shape(whole)), values


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


def load_field(field: Field) -> Field:
    """Give the field with all values in memory, read part by part so that every chunk is decoded once.

    Raises
    ------
    FieldError
        When memory does not hold them.
    """
    try:
        arrays = {v.path: np.empty(v.shape, v.dtype) for v in field.variables()}
    except (MemoryError, ValueError) as e:
        raise FieldError(f"the values do not fit into memory ({e}); open the archive lazily, or write a file") from e
    for v in field.variables():
        for box in boxes_of(v.shape, v.source.storage or v.shape or ()):
            arrays[v.path][box] = v.source.read(box)
    return field.with_sources({p: ArraySource(a) for p, a in arrays.items()})
