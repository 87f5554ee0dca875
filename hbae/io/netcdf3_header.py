# SPDX-License-Identifier: MIT
"""The header of netCDF classic files (CDF-1, CDF-2, CDF-5), read and written byte by byte.

Done here and not through a library because libraries drop what the format holds: NUL bytes and empty texts in
attributes. Names follow the format's specification.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hbae.arrays import Array
from hbae.errors import FieldError

TYPES = {
    1: ">i1", 2: "S1", 3: ">i2", 4: ">i4", 5: ">f4", 6: ">f8",
    7: ">u1", 8: ">u2", 9: ">u4", 10: ">i8", 11: ">u8",
}  # fmt: skip
CODES = {np.dtype(text): code for code, text in TYPES.items()}
VERSIONS = {"netcdf3": 1, "netcdf3_64bit": 2, "cdf5": 5}
FORMATS = {v: k for k, v in VERSIONS.items()}
_DIMENSION, _VARIABLE, _ATTRIBUTE = 10, 11, 12


@dataclass
class RawAttribute:
    """An attribute as stored: its type and its bytes."""

    name: str
    code: int
    data: bytes

    def array(self) -> Array:
        """Give the values, big-endian."""
        return np.frombuffer(self.data, TYPES[self.code])


@dataclass
class RawVariable:
    """A variable of the header. ``begin`` is the offset of its first byte."""

    name: str
    dimids: tuple[int, ...]
    attrs: list[RawAttribute]
    code: int
    begin: int = 0

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(TYPES[self.code])


@dataclass
class Header:
    """All of a header. A dimension of length 0 is the record dimension."""

    version: int
    numrecs: int
    dims: list[tuple[str, int]] = field(default_factory=list)
    attrs: list[RawAttribute] = field(default_factory=list)
    variables: list[RawVariable] = field(default_factory=list)

    def is_record(self, v: RawVariable) -> bool:
        """Tell whether the variable grows along the record dimension."""
        return bool(v.dimids) and self.dims[v.dimids[0]][1] == 0

    def slab(self, v: RawVariable) -> int:
        """Bytes of the variable, or of one of its records."""
        lengths = [self.dims[i][1] for i in v.dimids]
        return int(np.prod(lengths[1:] if self.is_record(v) else lengths, dtype=object)) * v.dtype.itemsize

    def record_size(self) -> int:
        """Bytes from one record to the next; a single record variable is not padded."""
        slabs = [self.slab(v) for v in self.variables if self.is_record(v)]
        return slabs[0] if len(slabs) == 1 else sum(_padded(s) for s in slabs)


def _padded(count: int) -> int:
    return -(-count // 4) * 4


class _Cursor:
    def __init__(self, data: bytes, version: int) -> None:
        self.data, self.at, self.version = data, 4, version

    def take(self, count: int) -> bytes:
        if count < 0 or self.at + count > len(self.data):
            raise FieldError("netCDF classic: the header ends early")
        self.at += count
        return self.data[self.at - count : self.at]

    def int4(self) -> int:
        return int(struct.unpack(">i", self.take(4))[0])

    def count(self) -> int:
        return int(struct.unpack(">q", self.take(8))[0]) if self.version == 5 else self.int4()

    def padded(self, count: int) -> bytes:
        out = self.take(count)
        self.take(_padded(count) - count)
        return out

    def name(self) -> str:
        return self.padded(self.count()).decode("utf-8", "surrogateescape")

    def items(self, tag: int) -> int:
        found, count = self.int4(), self.count()
        if found == 0 and count == 0:
            return 0
        if found != tag or count < 0 or count > len(self.data):
            raise FieldError("netCDF classic: the header is damaged")
        return count

    def attributes(self) -> list[RawAttribute]:
        out = []
        for _ in range(self.items(_ATTRIBUTE)):
            name, code, count = self.name(), self.int4(), self.count()
            if code not in TYPES:
                raise FieldError(f"netCDF classic: attribute {name!r} has the unknown type {code}")
            out.append(RawAttribute(name, code, self.padded(count * np.dtype(TYPES[code]).itemsize)))
        return out

    def variable(self, dims: int) -> RawVariable:
        name, rank = self.name(), self.count()
        ids = tuple(int(self.count()) for _ in range(min(rank, 1 << 16)))
        attrs, code = self.attributes(), self.int4()
        if code not in TYPES or any(not 0 <= i < dims for i in ids):
            raise FieldError(f"netCDF classic: variable {name!r} is damaged")
        self.count()  # vsize: derived, and wrong by design for large variables
        begin = self.int4() if self.version == 1 else int(struct.unpack(">q", self.take(8))[0])
        return RawVariable(name, ids, attrs, code, begin)


def parse_header(data: bytes, file_size: int) -> Header:
    """Read a header from the first bytes of a file.

    Raises
    ------
    FieldError
        When it is damaged or ``data`` is too short for it.
    """
    version = data[3] if len(data) > 3 and data[:3] == b"CDF" else 0
    if version not in FORMATS:
        raise FieldError("not a netCDF classic file")
    cur = _Cursor(data, version)
    streaming = data[4 : 12 if version == 5 else 8].strip(b"\xff") == b""
    header = Header(version, cur.count())
    for _ in range(cur.items(_DIMENSION)):
        name = cur.name()
        header.dims.append((name, cur.count()))
    header.attrs = cur.attributes()
    for _ in range(cur.items(_VARIABLE)):
        header.variables.append(cur.variable(len(header.dims)))
    if streaming:
        first = min((v.begin for v in header.variables if header.is_record(v)), default=file_size)
        header.numrecs = (file_size - first) // header.record_size() if header.record_size() else 0
    return header


def place(header: Header) -> int:
    """Give every variable its offset; return the length of the whole file.

    Raises
    ------
    FieldError
        When an offset or a size does not fit the flavour of the format.
    """
    at = _padded(len(header_bytes(header)))
    fixed = [v for v in header.variables if not header.is_record(v)]
    records = [v for v in header.variables if header.is_record(v)]
    for v in fixed + records:
        v.begin = at
        slab = header.slab(v)
        if header.version == 1 and at > 2**31 - 1:
            raise FieldError(f"{v.name}: offset {at} does not fit netcdf3 (CDF-1); write netCDF-4 instead")
        last = v is (fixed + records)[-1]
        if header.version < 5 and slab > 2**32 - 4 and not last:
            raise FieldError(f"{v.name}: {slab} bytes do not fit this netCDF-3 flavour; write netCDF-4 instead")
        at += _padded(slab)
    if records:
        first = records[0].begin
        at = max(first, first + header.record_size() * header.numrecs)
    return at


def header_bytes(header: Header) -> bytes:
    """Give the header as it stands in the file; its length does not depend on offsets."""

    def count(n: int) -> bytes:
        return struct.pack(">q" if header.version == 5 else ">i", n)

    def text(raw: bytes) -> bytes:
        return count(len(raw)) + raw + b"\0" * (_padded(len(raw)) - len(raw))

    def name(value: str) -> bytes:
        return text(value.encode("utf-8", "surrogateescape"))

    def tagged(tag: int, items: list[bytes]) -> bytes:
        return struct.pack(">i", tag if items else 0) + count(len(items)) + b"".join(items)

    def attributes(attrs: list[RawAttribute]) -> bytes:
        items = []
        for a in attrs:
            n = len(a.data) // np.dtype(TYPES[a.code]).itemsize
            pad = b"\0" * (_padded(len(a.data)) - len(a.data))
            items.append(name(a.name) + struct.pack(">i", a.code) + count(n) + a.data + pad)
        return tagged(_ATTRIBUTE, items)

    def variable(v: RawVariable) -> bytes:
        head = name(v.name) + count(len(v.dimids)) + b"".join(count(i) for i in v.dimids)
        size = _padded(header.slab(v))
        vsize = struct.pack(">q", size) if header.version == 5 else struct.pack(">I", min(size, 2**32 - 1))
        begin = struct.pack(
            ">i" if header.version == 1 else ">q", min(v.begin, 2**31 - 1) if header.version == 1 else v.begin
        )
        return head + attributes(v.attrs) + struct.pack(">i", v.code) + vsize + begin

    return (
        b"CDF"
        + bytes([header.version])
        + count(header.numrecs)
        + tagged(_DIMENSION, [name(n) + count(size) for n, size in header.dims])
        + attributes(header.attrs)
        + tagged(_VARIABLE, [variable(v) for v in header.variables])
    )
