# SPDX-License-Identifier: MIT
"""Zarr folders, versions 2 and 3, written through zarr; metadata of a Zarr source are taken over as they are."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any, Literal

import numpy as np

from hbae.arrays import Array, Attribute, Box, Dimension, Field, Group, Variable
from hbae.errors import FieldError
from hbae.io.attributes import PY_ATTRS, from_python, to_python
from hbae.io.kinds import STORED, to_stored
from hbae.io.marker import MARKER, group_marker, refuse_marker
from hbae.io.zarr_ import V2_DIMS, is_text

# Without hints: chunks of this many bytes, as large as a reader likes to fetch at once.
_CHUNK = 4 << 20


def check_zarr(field: Field) -> None:
    """Refuse what Zarr cannot hold.

    Raises
    ------
    FieldError
        With the name of what does not fit.
    """
    for group in field.groups:
        refuse_marker(group.attrs, group.path)
        names = [v.name for v in group.variables]
        names += [g.path.rpartition("/")[2] for g in field.groups if g.path and g.path.rpartition("/")[0] == group.path]
        for name in names:
            bad = name in ("", ".", "..") or "/" in name or name.startswith("__") or name.lower() == "zarr.json"
            if bad or name in (".zgroup", ".zarray", ".zattrs", ".zmetadata"):
                raise FieldError(f"{group.path or 'root'}: Zarr does not allow the name {name!r}")
        if len({n.casefold() for n in names}) != len(names) and len(set(names)) != len(names):
            raise FieldError(f"{group.path or 'root'}: a group and a variable share a name, which Zarr cannot hold")
        for v in group.variables:
            refuse_marker(v.attrs, v.path)
            if v.attr(V2_DIMS) is not None and field.format == "zarr2":
                raise FieldError(f"{v.path}: the attribute name {V2_DIMS!r} is reserved in Zarr")
            if v.dtype.kind not in "biufcSO":
                raise FieldError(f"{v.path}: Zarr cannot hold {v.kind} values of type {v.dtype}")


class ZarrTarget:
    """Writes boxes into a Zarr folder; ``attach``: into one that another rank has made."""

    def __init__(self, path: Path, field: Field, *, attach: bool = False) -> None:
        self._path, self._field = path, field
        self._version: Literal[2, 3] = 2 if field.format == "zarr2" else 3
        self._own = field.format in ("zarr2", "zarr3")
        self._arrays: dict[str, Any] = {}
        self._root_array = self._own and bool(field.extra.get("root_array"))
        if not attach:
            path.mkdir()
            for group in field.groups:
                if not self._root_array:
                    self._define(group)
                for v in group.variables:
                    self._create(v)
        for v in field.variables():
            self._open(v)

    def _define(self, group: Group) -> None:
        folder = self._path / group.path
        folder.mkdir(parents=True, exist_ok=True)
        parents = self._field.dims_of(group.path.rpartition("/")[0]) if group.path else {}
        doc = group_marker(group, _strictly(parents, group), sorted(v.name for v in group.variables))
        inside = [g.path.rpartition("/") for g in self._field.groups if g.path]
        children = [name for parent, _, name in inside if parent == group.path]
        if children != sorted(children):
            doc["groups"] = children
        attrs = _json_attributes(group.attrs, self._field.extra.get(PY_ATTRS, {}).get(group.path, {}), doc, self._own)
        if self._version == 3:
            _dump(folder / "zarr.json", {"zarr_format": 3, "node_type": "group", "attributes": attrs})
        else:
            _dump(folder / ".zgroup", {"zarr_format": 2})
            if attrs:
                _dump(folder / ".zattrs", attrs)

    def _folder(self, v: Variable) -> Path:
        return self._path if self._root_array else self._path / v.path

    def _create(self, v: Variable) -> None:
        folder = self._folder(v)
        own = self._own and isinstance(v.hints.get("zarr"), dict)
        doc: dict[str, Any] = {}
        if v.hints.get(STORED) and v.kind == "string" and (not own or is_text(v.hints["zarr"])):
            doc[STORED] = v.hints[STORED]
        attrs = _json_attributes(v.attrs, v.hints.get(PY_ATTRS, {}), doc, self._own)
        if own:
            self._copy_metadata(folder, v, attrs)
        else:
            self._new(folder, v, attrs)

    def _open(self, v: Variable) -> None:
        import zarr

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # A chunk that equals the fill value may differ from it in bits (-0.0, NaN payloads): write it.
            self._arrays[v.path] = zarr.open_array(str(self._folder(v)), mode="r+", config={"write_empty_chunks": True})

    def _copy_metadata(self, folder: Path, v: Variable, attrs: dict[str, Any]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        meta = {**v.hints["zarr"], "shape": list(v.shape)}
        if self._version == 3:
            if not v.hints.get("no_dims"):
                meta["dimension_names"] = v.hints.get("dimension_names") or list(v.dims)
            _dump(folder / "zarr.json", {**meta, "attributes": attrs})
            return
        if not v.hints.get("no_dims"):
            attrs = {**attrs, V2_DIMS: list(v.dims)}
        _dump(folder / ".zarray", meta)
        if attrs:
            _dump(folder / ".zattrs", attrs)

    def _new(self, folder: Path, v: Variable, attrs: dict[str, Any]) -> None:
        import zarr
        from zarr.codecs import BytesCodec

        stored = v.hints.get(STORED)
        dtype: Any = v.dtype
        options: dict[str, Any] = {}
        if v.kind == "string":
            dtype = str
        elif isinstance(stored, str):
            dtype = np.dtype(stored)
        if self._version == 3:
            options["dimension_names"] = list(v.dims)
            if v.dtype.str[0] == ">" and v.dtype.kind in "iufc":
                options["serializer"] = BytesCodec(endian="big")
        else:
            attrs = {**attrs, V2_DIMS: list(v.dims)}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            zarr.create_array(
                str(folder), shape=v.shape, dtype=dtype, chunks=_chunks(v), zarr_format=self._version,
                attributes=attrs, config={"write_empty_chunks": True}, **options,
            )  # fmt: skip

    def chunk(self, variable: Variable) -> tuple[int, ...] | None:
        """Give the storage chunk (or shard) of a variable."""
        array = self._arrays[variable.path]
        return tuple(array.shards or array.chunks) if array.shape else None

    def write(self, variable: Variable, box: Box, array: Array) -> None:
        """Put one box."""
        if array.size:
            target = self._arrays[variable.path]
            values = to_stored(array, variable.hints.get(STORED) if variable.kind != "string" else None)
            if variable.kind == "string":
                values = values.astype(target.dtype)
            target[box or ...] = values

    def finish(self) -> None:
        """Write what comes last."""
        if self._own and self._field.extra.get("consolidated") and not self._root_array:
            import zarr

            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                zarr.consolidate_metadata(str(self._path), zarr_format=self._version)

    def leave(self) -> None:
        """Nothing is open."""

    def discard(self) -> None:
        """Nothing is open."""
        self._arrays.clear()


def _strictly(parents: dict[str, Dimension], group: Group) -> dict[str, Dimension]:
    return parents if group.path else {}


def _chunks(v: Variable) -> Any:
    from hbae.io.boxes import box_step

    hinted = v.hints.get("chunks")
    unit = v.source.storage
    if isinstance(hinted, list) and len(hinted) == len(v.shape) and all(isinstance(c, int) and c > 0 for c in hinted):
        unit = tuple(hinted)
    # Every chunk is a file here: those of one record, as netCDF has them, are joined.
    item = 64 if v.dtype.hasobject else v.dtype.itemsize
    return box_step(v.shape, unit, _CHUNK // item) if v.shape else "auto"


def _dump(path: Path, doc: dict[str, Any]) -> None:
    path.write_text(json.dumps(doc, indent=2), "utf-8")


def _json_attributes(
    attrs: tuple[Attribute, ...], markers: dict[str, str], doc: dict[str, Any], own: bool
) -> dict[str, Any]:
    """Give attributes as JSON values; types that JSON does not tell go to the marker."""
    out: dict[str, Any] = {}
    typed: dict[str, Any] = {}
    for a in attrs:
        value = a.value
        if markers.get(a.name) == "json":
            out[a.name] = to_python(a, "json")
        elif isinstance(value, bytes):
            out[a.name] = value.decode("latin-1")
        elif isinstance(value, np.ndarray):
            flat = value.tolist()
            simple = value.dtype.kind in "biuf"
            out[a.name] = flat if simple else str(flat)
        else:
            out[a.name] = value
        back, marker = from_python(a.name, json.loads(json.dumps(out[a.name])))
        if markers.get(a.name) != "json" and (marker == "json" or not back.same(a)):
            typed[a.name] = a.to_json()
    kept = {k: m for k, m in markers.items() if m != "json"}
    if typed:
        doc["attrs"] = typed
    if kept:
        doc[PY_ATTRS] = kept
    return {**out, **({MARKER: doc} if doc else {})}
