# SPDX-License-Identifier: MIT
"""Zarr folders, versions 2 and 3: metadata from the JSON itself, values through zarr."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hbae.arrays import Array, Attribute, Box, Dimension, Field, Group, Variable, box_shape
from hbae.errors import FieldError
from hbae.io.attributes import PY_ATTRS, from_mapping
from hbae.io.handles import Handle
from hbae.io.kinds import shown_type, to_shown
from hbae.io.marker import MARKER, derived_dims, in_order, load, marked_dims

V2_DIMS = "_ARRAY_DIMENSIONS"


def open_raw(path: Path) -> Any:
    """Open one array for reading."""
    import zarr

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return zarr.open_array(str(path), mode="r")


@dataclass(frozen=True)
class ZarrSource:
    """A lazy array of a Zarr folder."""

    handle: Handle
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    storage: tuple[int, ...] | None = None

    def read(self, box: Box) -> Array:
        """Read one box."""
        if 0 in box_shape(box):
            return np.empty(box_shape(box), self.dtype)
        values = np.asarray(self.handle.get()[box or ...])
        return to_shown(values, self.dtype, self.handle.path.name).reshape(box_shape(box))


@dataclass(frozen=True)
class _Node:
    folder: Path
    path: str
    version: int
    meta: dict[str, Any]
    attrs: dict[str, Any]

    @property
    def is_array(self) -> bool:
        return "shape" in self.meta


def is_zarr(path: Path) -> bool:
    """Tell whether a folder is a Zarr group or array."""
    return any((path / n).is_file() for n in ("zarr.json", ".zgroup", ".zarray"))


def _json(path: Path) -> dict[str, Any]:
    try:
        doc = json.loads(path.read_text("utf-8"))
    except ValueError as e:
        raise FieldError(f"{path}: not JSON: {e}") from e
    if not isinstance(doc, dict):
        raise FieldError(f"{path}: not a JSON object")
    return doc


def _node(folder: Path, path: str) -> _Node | None:
    if (folder / "zarr.json").is_file():
        meta = _json(folder / "zarr.json")
        return _Node(folder, path, 3, meta, meta.get("attributes") or {})
    for name in (".zarray", ".zgroup"):
        if (folder / name).is_file():
            attrs = _json(folder / ".zattrs") if (folder / ".zattrs").is_file() else {}
            return _Node(folder, path, 2, _json(folder / name), attrs)
    return None


def _children(node: _Node) -> Iterator[_Node]:
    for folder in sorted(node.folder.iterdir()):
        if folder.is_dir():
            child = _node(folder, f"{node.path}/{folder.name}".strip("/"))
            if child is not None:
                yield child


def open_zarr(path: Path) -> Field:
    """Open a Zarr folder; an array at the root becomes the variable ``data``.

    Raises
    ------
    FieldError
        For types that are neither numbers nor strings; the message names the array.
    """
    root = _node(path, "")
    if root is None:
        raise FieldError(f"{path}: not a Zarr folder")
    phony: dict[tuple[int, int], str] = {}
    extra: dict[str, Any] = {}
    if (path / ".zmetadata").is_file() or root.meta.get("consolidated_metadata"):
        extra["consolidated"] = True
    if root.is_array:
        extra["root_array"] = True
        v = _variable(root, "", "data", phony)
        groups = [Group(dims=derived_dims([v], {}), variables=(v,))]
    else:
        groups = list(_groups(root, phony, extra, {}))
    return Field(format=f"zarr{root.version}", groups=tuple(groups), extra=extra)


def _groups(
    node: _Node, phony: dict[tuple[int, int], str], extra: dict[str, Any], parents: Mapping[str, Dimension]
) -> Iterator[Group]:
    children = list(_children(node))
    attrs, doc = _attributes(node, extra)
    found = [_variable(c, node.path, c.folder.name, phony) for c in children if c.is_array]
    variables = in_order(found, doc)
    dims = marked_dims(doc)
    if dims is None:
        dims = derived_dims(variables, parents)
    yield Group(path=node.path, dims=dims, attrs=attrs, variables=tuple(variables))
    visible = dict(parents) | {d.name: d for d in dims}
    order = {str(n): i for i, n in enumerate(doc.get("groups", ()))}
    for c in sorted(children, key=lambda c: order.get(c.folder.name, len(order))):
        if not c.is_array:
            yield from _groups(c, phony, extra, visible)


def _attributes(node: _Node, extra: dict[str, Any]) -> tuple[tuple[Attribute, ...], dict[str, Any]]:
    attrs, markers, doc = read_attributes(node.attrs, node.path)
    if markers:
        extra.setdefault(PY_ATTRS, {})[node.path] = markers
    return attrs, doc


def read_attributes(
    values: Mapping[str, Any], where: str
) -> tuple[tuple[Attribute, ...], dict[str, str], dict[str, Any]]:
    """Give attributes, markers of those that need one, and what :mod:`hbae.io.marker` says.

    JSON numbers are int64 and float64 unless the marker gives their type.
    """
    doc = load(values[MARKER], where) if MARKER in values else {}
    plain = {k: x for k, x in values.items() if k != MARKER}
    attrs, found = from_mapping(plain, where)
    typed = {name: Attribute.from_json(j) for name, j in doc.get("attrs", {}).items()}
    markers = {k: m for k, m in found.items() if m == "json" and k not in typed} | doc.get(PY_ATTRS, {})
    return tuple(typed.get(a.name, a) for a in attrs), markers, doc


def _variable(node: _Node, group: str, name: str, phony: dict[tuple[int, int], str]) -> Variable:
    meta = dict(node.meta)
    array = open_raw(node.folder)
    shape = tuple(int(n) for n in array.shape)
    dtype = np.dtype(array.dtype)
    if dtype.kind == "O" and not is_text(meta):
        raise FieldError(f"{node.path or name}: objects that are not strings cannot be kept")
    if node.version == 3 and _endian(meta.get("codecs", ())) == "big" and dtype.itemsize > 1 and dtype.kind in "iufcMm":
        dtype = dtype.newbyteorder(">")
    if dtype.kind == "T":
        dtype = np.dtype(object)
    kind, shown, hints = shown_type(dtype, node.path or name)
    attrs, markers, doc = read_attributes(node.attrs, node.path)
    if node.version == 2:
        names = node.attrs.get(V2_DIMS)
        attrs = tuple(a for a in attrs if a.name != V2_DIMS)
        if "dims" in doc:
            names, hints["no_dims"] = doc["dims"], True
    else:
        names = meta.get("dimension_names")
    if not isinstance(names, list) or len(names) != len(shape):
        names = [None] * len(shape)
        hints["no_dims"] = True
    dims = tuple(str(n) if n is not None else _phony(i, shape, phony) for i, n in enumerate(names))
    if node.version == 3 and any(n is None for n in names):
        hints["dimension_names"] = names if meta.get("dimension_names") else None
    for key in ("attributes", "shape", "dimension_names"):
        meta.pop(key, None)
    hints |= {"zarr": meta} | ({PY_ATTRS: markers} if markers else {})
    if "stored_dtype" in doc:
        hints["stored_dtype"] = doc["stored_dtype"]
    storage = tuple(int(c) for c in (getattr(array, "shards", None) or array.chunks))
    source = ZarrSource(Handle(node.folder, open_raw), shape, shown, storage if shape else None)
    return Variable(name=name, dims=dims, source=source, kind=kind, attrs=attrs, hints=hints, group=group)


def _phony(axis: int, shape: tuple[int, ...], phony: dict[tuple[int, int], str]) -> str:
    turn = shape[:axis].count(shape[axis])
    return phony.setdefault((shape[axis], turn), f"phony_dim_{len(phony)}")


def is_text(meta: Mapping[str, Any]) -> bool:
    """Tell whether an array holds strings of variable length."""
    if meta.get("data_type") == "string":
        return True
    return any(isinstance(f, dict) and f.get("id") == "vlen-utf8" for f in meta.get("filters") or ())


def _endian(codecs: Any) -> str | None:
    for codec in codecs:
        conf = codec.get("configuration") or {} if isinstance(codec, dict) else {}
        if "endian" in conf:
            return str(conf["endian"])
        if "codecs" in conf:
            return _endian(conf["codecs"])
    return None
