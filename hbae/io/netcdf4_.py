# SPDX-License-Identifier: MIT
"""NetCDF-4 files, read through netCDF4-python; attributes through h5py, which shows their types and all their bytes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hbae.arrays import Array, Attribute, Box, Dimension, Field, Group, Variable, box_shape
from hbae.errors import FieldError
from hbae.io.attributes import text_or_bytes
from hbae.io.handles import CACHE_BYTES, LIBRARY_LOCK, FileSource, Handle


def open_raw(path: Path) -> Any:
    """Open for reading without masks, scales or character conversion."""
    import netCDF4

    before = netCDF4.get_chunk_cache()
    netCDF4.set_chunk_cache(CACHE_BYTES, before[1], before[2])
    try:
        f = netCDF4.Dataset(str(path), "r")
        if _has_complex(f):
            # Else not: the library takes numbers along a dimension of length 2 called c or ri for complex ones.
            f.close()
            f = netCDF4.Dataset(str(path), "r", auto_complex=True)
    finally:
        netCDF4.set_chunk_cache(*before)
    f.set_auto_maskandscale(False)
    f.set_auto_chartostring(False)
    return f


def _has_complex(group: Any) -> bool:
    """Tell whether a group, or one below, has the compound types of complex numbers."""
    found = any({"r", "i"} == set(t.dtype.names or ()) for t in group.cmptypes.values())
    return found or any(_has_complex(g) for g in group.groups.values())


@dataclass(frozen=True)
class NetcdfSource(FileSource):
    """A lazy variable of a netCDF-4 file."""

    def read(self, box: Box) -> Array:
        """Read one box."""
        if 0 in box_shape(box):
            return np.empty(box_shape(box), self.dtype)
        with LIBRARY_LOCK:
            values = np.ma.getdata(self.handle.get()[self.path][box or ...])
        if self.dtype.hasobject:
            texts = np.asarray(values, object).reshape(box_shape(box))
            _refuse_replaced(list(texts.flat), self.path)
            return texts
        return np.asarray(values).astype(self.dtype, copy=False).reshape(box_shape(box))


def _refuse_replaced(texts: list[str], where: str) -> None:
    # The library puts U+FFFD where bytes are not UTF-8: what stood there is lost.
    if any("\ufffd" in t for t in texts):
        raise FieldError(f"{where}: a string is not UTF-8, so it cannot be kept")


def open_netcdf4(path: Path) -> Field:
    """Open a netCDF-4 file.

    Raises
    ------
    FieldError
        When a variable or an attribute has a user-defined type.
    """
    import h5py

    handle = Handle(path, open_raw)
    with LIBRARY_LOCK, h5py.File(path, "r") as raw:
        root = handle.get()
        groups = tuple(_group(g, raw, handle) for g in _walk(root))
        model = str(root.data_model)
    return Field(format="netcdf4_classic" if model == "NETCDF4_CLASSIC" else "netcdf4", groups=groups)


def _walk(group: Any) -> Iterator[Any]:
    yield group
    for child in group.groups.values():
        yield from _walk(child)


def _group(g: Any, raw: Any, handle: Handle) -> Group:
    path = str(g.path).strip("/")
    node = raw[path] if path else raw
    dims = tuple(Dimension(n, len(d), bool(d.isunlimited())) for n, d in g.dimensions.items())
    variables = tuple(_variable(v, _h5_object(node, n), path, handle) for n, v in g.variables.items())
    attrs = tuple(_attribute(g, n, node, path or "root") for n in g.ncattrs())
    return Group(path=path, dims=dims, attrs=attrs, variables=variables)


def _h5_object(node: Any, name: str) -> Any:
    # netCDF-C renames a variable that has a dimension's name without being its coordinate.
    hidden = f"_nc4_non_coord_{name}"
    return node[hidden] if hidden in node else node[name]


def _variable(v: Any, node: Any, group: str, handle: Handle) -> Variable:
    path = f"{group}/{v.name}" if group else str(v.name)
    kind, dtype = _type(v, path)
    if kind == "string" and str(getattr(v, "_Encoding", "utf-8")).lower() not in ("utf-8", "utf8", "ascii"):
        raise FieldError(f"{path}: strings of the encoding {v._Encoding!r} cannot be kept")
    chunks = v.chunking()
    hints: dict[str, Any] = {}
    if isinstance(chunks, list):
        hints["chunks"] = [int(c) for c in chunks]
    elif v.ndim:
        hints["contiguous"] = True
    filters = v.filters() or {}
    hints.update({k: x for k, x in filters.items() if x})
    if not filters.get("zlib") and not filters.get("zstd"):
        hints.pop("complevel", None)
    if dtype.kind != "O" and v.get_fill_value() is None:
        hints["fill_off"] = True
    storage = tuple(int(c) for c in chunks) if isinstance(chunks, list) else None
    source = NetcdfSource(handle, path, tuple(int(n) for n in v.shape), dtype, storage)
    attrs = tuple(_attribute(v, n, node, path) for n in v.ncattrs())
    return Variable(
        name=str(v.name), dims=tuple(v.dimensions), source=source, kind=kind, attrs=attrs, hints=hints, group=group
    )


def _type(v: Any, path: str) -> tuple[str, np.dtype[Any]]:
    if v.dtype is str:
        return "string", np.dtype(object)
    dtype = np.dtype(v.dtype)
    if v._isenum or v._isvlen or dtype.kind not in "biufcS":
        raise FieldError(f"{path}: the user-defined type {v.datatype!r} cannot be kept".replace("\n", " "))
    if v.endian() == "big" and dtype.itemsize > 1:
        dtype = dtype.newbyteorder(">")
    return ("char" if dtype.kind == "S" else "number"), dtype


def _attribute(owner: Any, name: str, node: Any, where: str) -> Attribute:
    try:
        value = owner.getncattr(name)
    except KeyError:
        raise FieldError(f"{where}: attribute {name!r} has a user-defined type, which cannot be kept") from None
    if not isinstance(value, str | bytes | list):
        array = np.asarray(value)
        if array.dtype.kind not in "biufcS":
            raise FieldError(f"{where}: attribute {name!r} has a user-defined type, which cannot be kept")
        return Attribute(name, array)
    if name not in node.attrs:
        return Attribute(name, value)
    aid = node.attrs.get_id(name)
    if aid.get_type().is_variable_str():
        texts = [value] if isinstance(value, str) else [str(s) for s in value]
        _refuse_replaced(texts, f"{where}: attribute {name!r}")
        return Attribute(name, texts)
    return Attribute(name, text_or_bytes(fixed_bytes(aid)))


def fixed_bytes(aid: Any) -> bytes:
    """Give all bytes of an attribute of fixed length, trailing NULs included."""
    size = int(aid.get_type().get_size())
    count = int(np.prod(aid.shape)) if aid.shape is not None else 0
    if count == 0 or aid.get_space().get_simple_extent_type() == 2:  # H5S_NULL
        return b""
    out = np.zeros(count, f"V{size}")
    aid.read(out, mtype=aid.get_type())
    return out.tobytes()
