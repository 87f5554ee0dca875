# SPDX-License-Identifier: MIT
"""Plain HDF5 files, read through h5py. Dimensions come from scales or labels, else they are numbered."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hbae.arrays import Array, Attribute, Box, Dimension, Field, Group, Variable, box_shape
from hbae.errors import FieldError
from hbae.io.attributes import PY_ATTRS
from hbae.io.handles import CACHE_BYTES, LIBRARY_LOCK, FileSource, Handle
from hbae.io.marker import MARKER, derived_dims, in_order, load, marked_dims

# Attributes by which HDF5 itself ties datasets to dimension scales.
STRUCTURE = ("CLASS", "NAME", "DIMENSION_LIST", "REFERENCE_LIST", "DIMENSION_LABELS")


def open_raw(path: Path) -> Any:
    """Open for reading."""
    import h5py

    # The default is 8 MiB for every dataset that is read.
    return h5py.File(path, "r", rdcc_nbytes=CACHE_BYTES)


@dataclass(frozen=True)
class Hdf5Source(FileSource):
    """A lazy dataset of an HDF5 file."""

    def read(self, box: Box) -> Array:
        """Read one box."""
        with LIBRARY_LOCK:
            data = self.handle.get()[self.path]
            if self.dtype.hasobject:
                data = data.asstr(errors="surrogateescape")
            values = data[box or ()]
        if self.dtype.hasobject:
            return np.asarray(values, object).reshape(box_shape(box))
        return np.asarray(values).astype(self.dtype, copy=False).reshape(box_shape(box))


def is_netcdf4(path: Path) -> bool:
    """Tell whether an HDF5 file follows the netCDF-4 conventions and netCDF can hold all of its types."""
    import h5py

    with LIBRARY_LOCK, h5py.File(path, "r") as f:
        if "_NCProperties" in f.attrs or "_nc3_strict" in f.attrs:
            return True
        found: list[bool] = []

        def look(_: str, node: Any) -> None:
            if isinstance(node, h5py.Dataset) and not found:
                marks = "_Netcdf4Dimid" in node.attrs or "_Netcdf4Coordinates" in node.attrs
                if marks or (node.is_scale and _netcdf_scale(node)):
                    found.append(True)

        f.visititems(look)
    return bool(found)


def _netcdf_scale(node: Any) -> bool:
    """Tell whether a dimension scale bears the name that netCDF-C gives it (also long ago, without other marks)."""
    name = node.attrs.get("NAME", b"")
    text = name if isinstance(name, str) else bytes(name).decode("utf-8", "replace")
    return text == str(node.name).rsplit("/", 1)[-1] or text.startswith("This is a netCDF dimension")


def open_hdf5(path: Path) -> Field:
    """Open a plain HDF5 file.

    Raises
    ------
    FieldError
        For references, compounds, enumerations, opaque and ragged types, links out of the tree, null dataspaces.
    """
    handle = Handle(path, open_raw)
    phony: dict[tuple[int, bool, int], str] = {}
    groups: list[Group] = []
    extra: dict[str, Any] = {}
    seen: dict[str, dict[str, Dimension]] = {}
    with LIBRARY_LOCK:
        for node in _walk(handle.get()):
            name = str(node.name).strip("/")
            attrs, doc = _attributes(node, name)
            if doc.get(PY_ATTRS):
                extra.setdefault(PY_ATTRS, {})[name] = doc[PY_ATTRS]
            parents = {k: d for p, ds in seen.items() if p == "" or name.startswith(p + "/") for k, d in ds.items()}
            variables = in_order([_variable(d, name, handle, phony) for d in _datasets(node)], doc)
            dims = marked_dims(doc) or _dims(variables, parents, handle.get())
            seen[name] = {d.name: d for d in dims}
            groups.append(Group(path=name, dims=dims, attrs=attrs, variables=tuple(variables)))
    return Field(format="hdf5", groups=tuple(groups), extra=extra)


def _children(node: Any) -> Iterator[Any]:
    import h5py

    for name in node:
        where = f"{node.name}/{name}".strip("/")
        if isinstance(node.get(name, getlink=True), h5py.SoftLink | h5py.ExternalLink):
            raise FieldError(f"{where}: soft and external links cannot be kept")
        child = node[name]
        if isinstance(child, h5py.Datatype):
            raise FieldError(f"{where}: named types cannot be kept")
        yield child


def _walk(node: Any, above: tuple[Any, ...] = ()) -> Iterator[Any]:
    import h5py

    yield node
    for child in _children(node):
        if isinstance(child, h5py.Group):
            if any(child == g for g in (*above, node)):
                raise FieldError(f"{child.name.strip('/')}: a link back to a group above cannot be kept")
            yield from _walk(child, (*above, node))


def _datasets(node: Any) -> Iterator[Any]:
    import h5py

    return (c for c in _children(node) if isinstance(c, h5py.Dataset))


def _dims(variables: list[Variable], parents: Mapping[str, Dimension], f: Any) -> tuple[Dimension, ...]:
    out = []
    for d in derived_dims(variables, parents):
        unlimited = [
            f[v.path].maxshape[axis] is None for v in variables for axis, name in enumerate(v.dims) if name == d.name
        ]
        out.append(Dimension(d.name, d.size, any(unlimited)))
    return tuple(out)


def _variable(d: Any, group: str, handle: Handle, phony: dict[tuple[int, bool, int], str]) -> Variable:
    path = str(d.name).strip("/")
    name = path.rsplit("/", 1)[-1]
    if d.shape is None:
        raise FieldError(f"{path}: a null dataspace cannot be kept")
    kind, dtype, hints = _type(d.dtype, path)
    dims, axes = _dim_names(d, name, phony)
    hints |= {"axes": axes} | _storage_hints(d)
    if d.is_scale:
        hints["scale"] = str(d.attrs.get("NAME", b""), "utf-8") if isinstance(d.attrs.get("NAME"), bytes) else ""
    attrs, doc = _attributes(d, path, skip=STRUCTURE)
    hints |= {k: x for k, x in doc.items() if k in (PY_ATTRS, "stored_dtype")}
    source = Hdf5Source(handle, path, tuple(d.shape), dtype, d.chunks)
    return Variable(name=name, dims=dims, source=source, kind=kind, attrs=attrs, hints=hints, group=group)


def _storage_hints(d: Any) -> dict[str, Any]:
    out: dict[str, Any] = {}
    if d.chunks is not None:
        out["chunks"] = [int(c) for c in d.chunks]
        out["maxshape"] = [None if m is None else int(m) for m in d.maxshape]
    if d.compression in ("gzip", "lzf"):
        out["compression"] = d.compression
        if d.compression == "gzip":
            out["complevel"] = int(d.compression_opts)
    out |= {k: True for k in ("shuffle", "fletcher32") if getattr(d, k)}
    fill = np.asarray(d.fillvalue)
    if fill.dtype.kind in "biufcS" and fill.tobytes().strip(b"\0"):
        out["h5_fill"] = Attribute("", fill).to_json()
    return out


def _type(dtype: Any, path: str) -> tuple[str, np.dtype[Any], dict[str, Any]]:
    import h5py

    text = h5py.check_string_dtype(dtype)
    if text is not None:
        hints = {"charset": text.encoding} if text.encoding != ("utf-8" if text.length is None else "ascii") else {}
        return (
            ("string", np.dtype(object), hints) if text.length is None else ("char", np.dtype(f"S{text.length}"), hints)
        )
    plain = np.dtype(dtype.str) if dtype.names is None and dtype.subdtype is None and dtype.kind in "biufc" else None
    if plain is None or h5py.check_enum_dtype(dtype) is not None:
        raise FieldError(f"{path}: the HDF5 type {dtype} cannot be kept")
    return ("bool" if plain.kind == "b" else "number"), plain, {}


def _dim_names(d: Any, name: str, phony: dict[tuple[int, bool, int], str]) -> tuple[tuple[str, ...], list[Any]]:
    """Name the axes; the second result says per axis where its name is stored."""
    names: list[str] = []
    axes: list[Any] = []
    for i, size in enumerate(d.shape):
        scales = [str(s.name).strip("/") for s in d.dims[i].values()]
        label = d.dims[i].label
        chosen = scales[0].rsplit("/", 1)[-1] if scales else label or (name if d.is_scale and d.ndim == 1 else "")
        axes.append({k: x for k, x in (("scales", scales), ("label", label)) if x})
        if not chosen or chosen in names:
            key = (int(size), d.maxshape[i] is None)
            turn = sum(1 for n in names if n in {p for k, p in phony.items() if k[:2] == key})
            chosen = phony.setdefault((*key, turn), f"phony_dim_{len(phony)}")
        names.append(chosen)
    return tuple(names), axes


def _attributes(node: Any, where: str, skip: tuple[str, ...] = ()) -> tuple[tuple[Attribute, ...], dict[str, Any]]:
    out, doc = [], {}
    for name in node.attrs:
        if name in skip:
            continue
        if name == MARKER:
            doc = load(node.attrs[name], where)
            continue
        out.append(_attribute(node, name, where or "root"))
    typed = {name: Attribute.from_json(j) for name, j in doc.get("attrs", {}).items()}
    return tuple(typed.get(a.name, a) for a in out), doc


def _attribute(node: Any, name: str, where: str) -> Attribute:
    import h5py

    aid = node.attrs.get_id(name)
    dtype = aid.dtype
    text = h5py.check_string_dtype(dtype)
    if aid.shape is None:
        if text is not None and text.length is None:
            return Attribute(name, [])
        plain = _type(dtype, f"{where}: attribute {name!r}")[1]
        return Attribute(name, np.empty(0, plain))
    if text is not None and text.length is None:
        value = node.attrs[name]
        if aid.shape == ():
            return Attribute(name, value if isinstance(value, str) else value.decode("utf-8", "surrogateescape"))
        if len(aid.shape) == 1:
            return Attribute(name, [s if isinstance(s, str) else s.decode("utf-8", "surrogateescape") for s in value])
        raise FieldError(f"{where}: attribute {name!r}: strings of rank {len(aid.shape)} cannot be kept")
    plain = np.dtype(f"S{text.length}") if text is not None else _type(dtype, f"{where}: attribute {name!r}")[1]
    raw = np.empty(aid.shape, plain if text is not None else dtype)
    aid.read(raw, mtype=aid.get_type() if text is not None else None)
    if text is not None and aid.shape == ():
        return Attribute(name, raw.tobytes())
    return Attribute(name, raw.astype(plain, copy=False))
