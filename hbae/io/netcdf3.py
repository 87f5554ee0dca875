# SPDX-License-Identifier: MIT
"""NetCDF classic files (netCDF-3, its 64-bit flavour, CDF-5): read and written by positioned I/O.

Byte order is no property of a variable in this format (all is big-endian), so variables carry the machine's order.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from hbae.arrays import Array, Attribute, Dimension, Field, Group, Variable
from hbae.errors import FieldError
from hbae.io.attributes import raw_text, text_or_bytes
from hbae.io.flat import FlatSource, FlatTarget, Layout, c_strides
from hbae.io.netcdf3_header import (
    CODES,
    FORMATS,
    VERSIONS,
    Header,
    RawAttribute,
    RawVariable,
    header_bytes,
    parse_header,
    place,
)


def open_netcdf3(path: Path) -> Field:
    """Open a netCDF classic file.

    Raises
    ------
    FieldError
        When the file is damaged.
    """
    header = _read_header(path)
    dims = tuple(Dimension(n, size or header.numrecs, size == 0) for n, size in header.dims)
    variables = tuple(_variable(path, header, v) for v in header.variables)
    group = Group(dims=dims, attrs=tuple(_attribute(a) for a in header.attrs), variables=variables)
    return Field(format=FORMATS[header.version], groups=(group,))


def _read_header(path: Path) -> Header:
    file_size = path.stat().st_size
    take = 1 << 16
    with path.open("rb") as f:
        while True:
            f.seek(0)
            data = f.read(take)
            try:
                return parse_header(data, file_size)
            except FieldError:
                if take >= file_size:
                    raise
            take *= 8


def _attribute(raw: RawAttribute) -> Attribute:
    if raw.code == 2:
        return Attribute(raw.name, text_or_bytes(raw.data))
    values = _native(raw.array())
    return Attribute(raw.name, values.reshape(()) if values.size == 1 else values)


def _native(values: Array) -> Array:
    return values.astype(values.dtype.newbyteorder("="))


def _layout(header: Header, v: RawVariable) -> Layout:
    shape = tuple(header.dims[i][1] or (header.numrecs if header.is_record(v) else 0) for i in v.dimids)
    strides = c_strides(shape, v.dtype.itemsize)
    if header.is_record(v):
        strides = (header.record_size(), *strides[1:])
    return Layout(v.begin, shape, v.dtype, strides)


def _variable(path: Path, header: Header, v: RawVariable) -> Variable:
    layout = _layout(header, v)
    return Variable(
        name=v.name,
        dims=tuple(header.dims[i][0] for i in v.dimids),
        source=FlatSource(path, layout, v.dtype.newbyteorder("=")),
        kind="char" if v.code == 2 else "number",
        attrs=tuple(_attribute(a) for a in v.attrs),
    )


def build_header(field: Field, flavour: str) -> Header:
    """Give the header that holds a field.

    Raises
    ------
    FieldError
        When the flavour cannot hold something; the message names it.
    """
    if len(field.groups) != 1:
        raise FieldError(f"{field.groups[-1].path}: {flavour} cannot hold groups")
    group, version = field.groups[0], VERSIONS[flavour]
    limit = 11 if version == 5 else 6
    unlimited = [d for d in group.dims if d.unlimited]
    if len(unlimited) > 1:
        raise FieldError(f"dimension {unlimited[1].name!r}: {flavour} holds one unlimited dimension only")
    header = Header(version, unlimited[0].size if unlimited else 0)
    for d in group.dims:
        if d.size == 0 and not d.unlimited:
            raise FieldError(f"dimension {d.name!r}: {flavour} cannot hold a fixed dimension of length 0")
        header.dims.append((d.name, 0 if d.unlimited else d.size))
    header.attrs = [_raw_attribute(a, limit, "global") for a in group.attrs]
    names = [n for n, _ in header.dims]
    for v in group.variables:
        code = CODES.get(v.dtype.newbyteorder(">"))
        if code is None or code > limit or v.kind not in ("number", "char"):
            raise FieldError(f"{v.path}: {flavour} cannot hold {v.kind} values of type {v.dtype}")
        ids = tuple(names.index(d) for d in v.dims)
        if any(header.dims[i][1] == 0 for i in ids[1:]):
            raise FieldError(f"{v.path}: {flavour} wants the unlimited dimension first")
        header.variables.append(RawVariable(v.name, ids, [_raw_attribute(a, limit, v.path) for a in v.attrs], code))
    place(header)
    return header


def _raw_attribute(a: Attribute, limit: int, where: str) -> RawAttribute:
    if isinstance(a.value, str | bytes):
        return RawAttribute(a.name, 2, raw_text(a.value))
    if isinstance(a.value, list):
        raise FieldError(f"{where}: attribute {a.name!r} is a list of strings, which netCDF classic cannot hold")
    code = CODES.get(a.value.dtype.newbyteorder(">"))
    if code is None or code > limit or a.value.ndim > 1:
        raise FieldError(f"{where}: attribute {a.name!r} of type {a.value.dtype} does not fit this netCDF flavour")
    data = np.ascontiguousarray(a.value.astype(a.value.dtype.newbyteorder(">")))
    return RawAttribute(a.name, code, data.tobytes())


class Netcdf3Target(FlatTarget):
    """Writes boxes straight to their places in a netCDF classic file."""

    def __init__(self, path: Path, field: Field, flavour: str, *, attach: bool = False) -> None:
        header = build_header(field, flavour)
        layouts = {v.name: _layout(header, v) for v in header.variables}
        super().__init__(path, layouts, place(header), header_bytes(header), attach=attach)

    def stored(self, array: Array, dtype: np.dtype[Any]) -> Array:
        """Give values in the byte order of the format."""
        return _big(array, dtype)


def _big(array: Array, dtype: np.dtype[Any]) -> Array:
    if array.dtype == dtype:
        return array
    return array.astype(array.dtype.newbyteorder("=")).byteswap().view(dtype) if dtype.itemsize > 1 else array
