# SPDX-License-Identifier: MIT
"""NetCDF-4 files, written through netCDF4-python."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hbae.arrays import Array, Attribute, Box, Dimension, Field, Group, Variable
from hbae.errors import FieldError
from hbae.io.attributes import raw_text
from hbae.io.handles import CACHE_BYTES, LIBRARY_LOCK

_TYPES = {"i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"}
_CLASSIC = {"i1", "i2", "i4", "f4", "f8"}
_RESERVED = (
    "CLASS", "NAME", "DIMENSION_LIST", "REFERENCE_LIST", "_NCProperties", "_Netcdf4Dimid", "_Netcdf4Coordinates",
    "_nc3_strict", "_IsNetcdf4", "_SuperblockVersion",
)  # fmt: skip
_NAME = re.compile(r"[^\W]|[\x80-\U0010ffff]")


def check_netcdf4(field: Field, classic: bool) -> None:
    """Refuse what netCDF-4 cannot hold.

    Raises
    ------
    FieldError
        With the name of what does not fit.
    """
    if classic and len(field.groups) > 1:
        raise FieldError(f"{field.groups[-1].path}: netcdf4_classic cannot hold groups")
    types = _CLASSIC if classic else _TYPES
    for group in field.groups:
        where = group.path or "root"
        for d in group.dims:
            check_name(d.name, where)
            if d.size == 0 and not d.unlimited:
                raise FieldError(f"dimension {d.name!r}: netCDF cannot hold a fixed dimension of length 0")
        for a in group.attrs:
            _check_attribute(a, where, types)
        for v in group.variables:
            check_name(v.name, v.path)
            complex_ok = not classic and v.dtype.str[1:] in ("c8", "c16") and v.dtype.isnative
            text = v.dtype == "S1" or (v.kind == "string" and not classic)
            if not (v.dtype.str[1:] in types or complex_ok or text):
                raise FieldError(f"{v.path}: netCDF-4 cannot hold {v.kind} values of type {v.dtype}")
            if classic and len(set(v.dims[1:]) & _unlimited(group)):
                raise FieldError(f"{v.path}: netcdf4_classic wants the unlimited dimension first")
            for a in v.attrs:
                _check_attribute(a, v.path, types)
            _check_fill(v)


def _check_fill(v: Variable) -> None:
    fill = v.attr("_FillValue")
    if fill is None:
        return
    if isinstance(fill, np.ndarray):
        one, kind = fill.size == 1 and fill.dtype.newbyteorder("=") == v.dtype.newbyteorder("="), str(fill.dtype)
    elif isinstance(fill, list):
        one, kind = v.kind == "string" and len(fill) == 1, "string"
    else:
        one, kind = v.kind == "char" and len(raw_text(fill)) == 1, "characters"
    if not one:
        raise FieldError(f"{v.path}: _FillValue of type {kind} beside {v.dtype}; netCDF wants one value of that type")


def _unlimited(group: Group) -> set[str]:
    return {d.name for d in group.dims if d.unlimited}


def check_name(name: str, where: str) -> None:
    """Refuse names that netCDF does not allow.

    Raises
    ------
    FieldError
        Naming it.
    """
    if not _NAME.match(name) or "/" in name or name != name.rstrip() or any(ord(c) < 32 for c in name):
        raise FieldError(f"{where}: netCDF does not allow the name {name!r}")


def _check_attribute(a: Attribute, where: str, types: set[str]) -> None:
    v = a.value
    check_name(a.name, where)
    if a.name in _RESERVED:
        raise FieldError(f"{where}: the attribute name {a.name!r} is reserved in netCDF")
    if isinstance(v, str | bytes):
        return
    if isinstance(v, list):
        if not v or "i8" not in types:
            raise FieldError(f"{where}: attribute {a.name!r}: this netCDF flavour cannot hold that list of strings")
        if any("\0" in s for s in v):
            raise FieldError(f"{where}: attribute {a.name!r}: netCDF strings cannot hold NUL")
    elif v.dtype.str[1:] not in types or v.ndim > 1:
        raise FieldError(f"{where}: attribute {a.name!r}: netCDF cannot hold {v.dtype} of rank {v.ndim}")


class Netcdf4Target:
    """Writes boxes into a netCDF-4 file."""

    def __init__(self, path: Path, field: Field, classic: bool) -> None:
        import netCDF4

        self._path, self._classic = path, classic
        # Characters that the library would cut (trailing NULs, empty texts): written by h5py at the end.
        self._patches: dict[str, list[Attribute]] = {}
        with LIBRARY_LOCK:
            model: Any = "NETCDF4_CLASSIC" if classic else "NETCDF4"
            # With it the library takes a dimension of length 2 for the parts of complex numbers, if its name suits.
            pairs = any(v.dtype.kind == "c" for v in field.variables())
            self._file: Any = netCDF4.Dataset(str(path), "w", clobber=False, format=model, auto_complex=pairs)
            for group in field.groups:
                self._define(group)

    def _define(self, group: Group) -> None:
        node = self._file.createGroup(group.path) if group.path else self._file
        for d in group.dims:
            node.createDimension(d.name, None if d.unlimited else d.size)
        for v in group.variables:
            made = self._create(node, v)
            if made.ndim and made.chunking() != "contiguous":
                # Boxes are whole chunks: nothing is gained by keeping them, and many variables would keep gigabytes.
                made.set_var_chunk_cache(CACHE_BYTES)
            made.set_auto_maskandscale(False)
            made.set_auto_chartostring(False)
            self._attributes(made, v.path, v.attrs)
        self._attributes(node, group.path, group.attrs)

    def _create(self, node: Any, v: Variable) -> Any:
        options = storage_options(v.hints, v.shape, [_find_dim(node, d) for d in v.dims])
        if v.kind == "string":
            return node.createVariable(v.name, str, v.dims)
        fill = v.attr("_FillValue")
        if v.hints.get("fill_off") and fill is None:
            options["fill_value"] = False
        elif self._classic and fill is not None:
            # The classic model leaves define mode after each call, too late for a fill value.
            options["fill_value"] = fill
            if v.attrs[0].name != "_FillValue":
                self._patches[v.path] = list(v.attrs)
        if v.dtype.str[0] == ">":
            options["endian"] = "big"
        return node.createVariable(v.name, v.dtype, v.dims, **options)

    def _attributes(self, node: Any, path: str, attrs: tuple[Attribute, ...]) -> None:
        for i, a in enumerate(attrs):
            v = a.value
            if isinstance(v, list):
                # A one-element list of strings must not become characters.
                node.setncattr_string(a.name, v if len(v) > 1 else v[0])
            elif isinstance(v, str | bytes):
                raw = raw_text(v)
                if a.name == "_FillValue" and self._classic:
                    continue
                if raw == b"\0":
                    node.setncattr(a.name, "")
                    continue
                if (not raw or raw.endswith(b"\0")) and path not in self._patches:
                    self._patches[path] = list(attrs[i:])
                node.setncatts({a.name: raw})
            elif path and a.name == "_FillValue":
                if self._classic:
                    continue
                # Other setters refuse it unless it comes first; this keeps the order of the attributes.
                node.setncatts({a.name: v})
            else:
                node.setncattr(a.name, v)

    def chunk(self, variable: Variable) -> tuple[int, ...] | None:
        """Give the storage chunk of a variable."""
        with LIBRARY_LOCK:
            chunks = self._file[variable.path].chunking()
        return tuple(int(c) for c in chunks) if isinstance(chunks, list) else None

    def write(self, variable: Variable, box: Box, array: Array) -> None:
        """Put one box.

        Raises
        ------
        FieldError
            For a string that netCDF would cut.
        """
        if array.size == 0:
            return
        if variable.kind == "string" and any("\0" in s for s in array.flat):
            raise FieldError(f"{variable.path}: netCDF strings cannot hold NUL")
        with LIBRARY_LOCK, warnings.catch_warnings():
            target = self._file[variable.path]
            if variable.kind == "string" and not box:
                target[...] = array.item()
            else:
                target[box or ...] = array

    def finish(self) -> None:
        """Close the file."""
        self.discard()
        if self._patches:
            _patch(self._path, self._patches)

    def leave(self) -> None:
        """Close the file."""
        self.discard()

    def discard(self) -> None:
        """Close the file."""
        if self._file is not None:
            with LIBRARY_LOCK:
                f, self._file = self._file, None
                f.close()


def _find_dim(node: Any, name: str) -> Dimension:
    while node is not None:
        if name in node.dimensions:
            d = node.dimensions[name]
            return Dimension(name, len(d), bool(d.isunlimited()))
        node = node.parent
    raise FieldError(f"dimension {name!r} is not defined")


def storage_options(hints: Mapping[str, Any], shape: tuple[int, ...], dims: list[Dimension]) -> dict[str, Any]:
    """Give the library's storage keywords from hints; hints that do not fit are dropped."""
    out: dict[str, Any] = {}
    if not shape:
        return out
    chunks = hints.get("chunks")
    if isinstance(chunks, list) and len(chunks) == len(shape) and all(isinstance(c, int) and c > 0 for c in chunks):
        out["chunksizes"] = tuple(c if d.unlimited else min(c, d.size) for c, d in zip(chunks, dims, strict=True))
    elif hints.get("contiguous") and not any(d.unlimited for d in dims):
        return {"contiguous": True}
    name = "zlib" if hints.get("zlib") else "zstd" if hints.get("zstd") and _has_zstd() else None
    if name:
        level = hints.get("complevel", 4)
        out |= {"compression": name, "complevel": level if isinstance(level, int) else 4}
        out["shuffle"] = bool(hints.get("shuffle"))
    if hints.get("fletcher32"):
        out["fletcher32"] = True
    return out


def _has_zstd() -> bool:
    import netCDF4

    return bool(netCDF4.__has_zstandard_support__)


def _patch(path: Path, patches: Mapping[str, list[Attribute]]) -> None:
    """Write attributes anew, in order, from the first one that the library would cut."""
    import h5py

    with LIBRARY_LOCK, h5py.File(path, "r+") as f:
        for where, attrs in patches.items():
            group, _, name = where.rpartition("/")
            hidden = "/".join(p for p in (group, f"_nc4_non_coord_{name}") if p)
            node = f[hidden if hidden in f else where] if where else f
            for a in attrs:
                old = node.attrs.get_id(a.name)
                kind, space, data = old.get_type(), old.get_space(), None
                if isinstance(a.value, str | bytes):
                    raw = raw_text(a.value)
                    kind = h5py.h5t.C_S1.copy()
                    kind.set_size(max(len(raw), 1))
                    kind.set_strpad(h5py.h5t.STR_NULLTERM)
                    space = h5py.h5s.create(h5py.h5s.SCALAR if raw else h5py.h5s.NULL)
                    data = np.array(raw, f"V{len(raw)}") if raw else None
                elif old.shape is None:
                    data = None
                else:
                    data = np.empty(old.shape, old.dtype)
                    old.read(data, mtype=None if data.dtype.hasobject else kind)
                del old
                node.attrs.__delitem__(a.name)
                new = h5py.h5a.create(node.id, a.name.encode(), kind, space)
                if data is not None:
                    new.write(data, mtype=None if data.dtype.hasobject else kind)
