# SPDX-License-Identifier: MIT
"""What a scientific file holds, whatever its format: a tree of groups with lazy variables.

Nothing here reads a file; :mod:`hbae.io` fills these classes from files and writes them back.
"""

from __future__ import annotations

import base64
import itertools
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from hbae.errors import FieldError, FormatError

# As NumPy writes it: byte order, kind, size.
_PLAIN_TYPE = re.compile(r"[<>|=]?[A-Za-z?]\d{0,9}")

Box = tuple[slice, ...]
Array = np.ndarray[Any, np.dtype[Any]]


class Source(Protocol):
    """A lazy array: promises to give any box of itself, and the same bits every time."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of all axes."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type as stored, byte order included; object for strings of variable length."""

    @property
    def storage(self) -> tuple[int, ...] | None:
        """Shape of one storage chunk, or None where any box costs only its own bytes."""

    def read(self, box: Box) -> Array:
        """Give the values of one box (half-open slices, one per axis, step 1)."""


@dataclass(frozen=True)
class ArraySource:
    """A source over an array in memory."""

    values: Array
    storage: tuple[int, ...] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.values.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.values.dtype

    def read(self, box: Box) -> Array:
        # The ellipsis keeps an array (with its byte order) where a scalar would come out.
        key: Any = (*box, ...)
        return np.asarray(self.values[key])


@dataclass(frozen=True)
class Attribute:
    """One attribute with its type: a string, a list of strings, bytes, or a numeric array.

    ``value`` is ``str``, ``bytes``, ``list[str]`` or a NumPy array of rank 0 or 1 (byte order kept).
    """

    name: str
    value: str | bytes | list[str] | Array

    def to_json(self) -> list[Any]:
        """Give a JSON form that keeps type, byte order and every bit."""
        v = self.value
        if isinstance(v, str):
            return [self.name, "s", v]
        if isinstance(v, bytes):
            return [self.name, "b", base64.b64encode(v).decode()]
        if isinstance(v, list):
            return [self.name, "l", v]
        if v.dtype.hasobject:
            raise FieldError(f"attribute {self.name!r}: objects cannot be kept")
        data = base64.b64encode(np.ascontiguousarray(v).tobytes()).decode()
        return [self.name, v.dtype.str, list(v.shape), data]

    @staticmethod
    def from_json(doc: list[Any]) -> Attribute:
        """Undo :meth:`to_json`."""
        name, kind = str(doc[0]), str(doc[1])
        if kind == "s":
            return Attribute(name, str(doc[2]))
        if kind == "b":
            return Attribute(name, base64.b64decode(doc[2]))
        if kind == "l":
            return Attribute(name, [str(s) for s in doc[2]])
        raw = base64.b64decode(doc[3])
        return Attribute(name, np.frombuffer(raw, plain_dtype(kind)).reshape(doc[2]).copy())

    def same(self, other: Attribute) -> bool:
        """Tell whether name, type and every bit are equal."""
        return self.to_json() == other.to_json()


@dataclass(frozen=True)
class Dimension:
    """A named dimension of a group."""

    name: str
    size: int
    unlimited: bool = False


@dataclass(frozen=True, kw_only=True)
class Variable:
    """One variable: name, dimensions, type, attributes, storage hints and a lazy source.

    ``kind`` is ``"number"`` (integers, floats, complex), ``"bool"``, ``"char"`` (fixed bytes, dtype ``S1``
    or ``Sn``), ``"string"`` (variable length, dtype object). ``hints`` are JSON values that a writer of the same
    format may follow (chunks, compression, fill mode) and that change no value.
    """

    name: str
    dims: tuple[str, ...]
    source: Source
    kind: str = "number"
    attrs: tuple[Attribute, ...] = ()
    hints: Mapping[str, Any] = field(default_factory=dict)
    group: str = ""

    @property
    def path(self) -> str:
        """Name with its groups: ``"T"``, ``"ocean/T"``."""
        return f"{self.group}/{self.name}" if self.group else self.name

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.source.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.source.dtype

    @property
    def nbytes(self) -> int:
        """Raw bytes in the variable's own type (object strings count as 0)."""
        if self.dtype.hasobject:
            return 0
        return int(np.prod(self.shape, dtype=object)) * self.dtype.itemsize

    def attr(self, name: str) -> str | bytes | list[str] | Array | None:
        """Give an attribute's value, or None."""
        return next((a.value for a in self.attrs if a.name == name), None)


@dataclass(frozen=True, kw_only=True)
class Group:
    """A group with its own dimensions, attributes and variables, in the file's order."""

    path: str = ""
    dims: tuple[Dimension, ...] = ()
    attrs: tuple[Attribute, ...] = ()
    variables: tuple[Variable, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Field:
    """All that a file or Dataset holds. ``format`` names where it came from (``"netcdf4"``, ``"zarr3"``, ...).

    ``extra`` carries JSON values that only that format needs (for example which Dataset variables are coordinates).
    """

    format: str
    groups: tuple[Group, ...]
    extra: Mapping[str, Any] = field(default_factory=dict)

    def variables(self) -> Iterator[Variable]:
        """Walk over the variables of all groups, in order."""
        for group in self.groups:
            yield from group.variables

    def variable(self, path: str) -> Variable:
        """Give the variable of that path."""
        for v in self.variables():
            if v.path == path:
                return v
        raise KeyError(path)

    def dims_of(self, group: str) -> dict[str, Dimension]:
        """Give the dimensions visible in a group: its own and those of its parents."""
        seen: dict[str, Dimension] = {}
        for g in self.groups:
            if g.path == "" or group == g.path or group.startswith(g.path + "/"):
                seen.update({d.name: d for d in g.dims})
        return seen

    def with_sources(self, sources: Mapping[str, Source]) -> Field:
        """Give the same field with other sources, by path."""
        groups = tuple(
            replace(g, variables=tuple(replace(v, source=sources.get(v.path, v.source)) for v in g.variables))
            for g in self.groups
        )
        return replace(self, groups=groups)

    def to_json(self) -> dict[str, Any]:
        """Give all but the values, as JSON."""
        return {"format": self.format, "extra": dict(self.extra), "groups": [_group_json(g) for g in self.groups]}

    @staticmethod
    def from_json(doc: Mapping[str, Any]) -> Field:
        """Undo :meth:`to_json`; sources raise until they are replaced."""
        try:
            groups = tuple(_group_from(g) for g in doc["groups"])
            extra = dict(doc["extra"])
            if not groups or any(not _is_names(extra.get(key, [])) for key in ("coords", "indexes")):
                raise FormatError("field description is malformed: no group, or coordinates that are no names")
            return Field(format=str(doc["format"]), groups=groups, extra=extra)
        except (KeyError, TypeError, ValueError, IndexError, OverflowError, AttributeError) as e:
            raise FormatError(f"field description is malformed: {e!r}") from e


@dataclass(frozen=True)
class Hollow:
    """A source that knows shape and type only."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    storage: tuple[int, ...] | None = None

    def read(self, box: Box) -> Array:
        raise FieldError("this variable has no values attached")


def plain_dtype(text: str) -> np.dtype[Any]:
    """Give a dtype from its string; only plain numbers, bools, bytes and ``O`` (strings) are let through.

    Raises
    ------
    FormatError
        For anything else (structured, dates, void).
    """
    # NumPy parses more, as Python, and fails as that does.
    if not isinstance(text, str) or not _PLAIN_TYPE.fullmatch(text):
        raise FormatError(f"unknown element type {text!r}")
    try:
        dtype = np.dtype(text)
    except (TypeError, ValueError) as e:
        raise FormatError(f"unknown element type {text!r}") from e
    if dtype.kind not in "biufcSUO" or not 1 <= dtype.itemsize <= 1 << 20:
        raise FormatError(f"element type {text!r} is not allowed")
    return dtype


def _is_names(doc: Any) -> bool:
    return isinstance(doc, list) and all(isinstance(n, str) for n in doc)


def _group_json(g: Group) -> dict[str, Any]:
    return {
        "path": g.path,
        "dims": [[d.name, d.size, d.unlimited] for d in g.dims],
        "attrs": [a.to_json() for a in g.attrs],
        "vars": [
            {
                "name": v.name,
                "dims": list(v.dims),
                "dtype": v.dtype.str,
                "shape": list(v.shape),
                "kind": v.kind,
                "attrs": [a.to_json() for a in v.attrs],
                "hints": dict(v.hints),
            }
            for v in g.variables
        ],
    }


def _group_from(doc: Mapping[str, Any]) -> Group:
    path = str(doc["path"])
    variables = tuple(
        Variable(
            name=str(v["name"]),
            dims=tuple(str(d) for d in v["dims"]),
            source=Hollow(tuple(int(n) for n in v["shape"]), plain_dtype(v["dtype"])),
            kind=str(v["kind"]),
            attrs=tuple(Attribute.from_json(a) for a in v["attrs"]),
            hints=dict(v["hints"]),
            group=path,
        )
        for v in doc["vars"]
    )
    dims = tuple(Dimension(str(n), int(s), bool(u)) for n, s, u in doc["dims"])
    attrs = tuple(Attribute.from_json(a) for a in doc["attrs"])
    return Group(path=path, dims=dims, attrs=attrs, variables=variables)


@dataclass(frozen=True)
class Tiling:
    """The boxes of a regular tiling in C order, made one by one when asked for; edge boxes are cut."""

    shape: tuple[int, ...]
    step: tuple[int, ...]

    @property
    def counts(self) -> tuple[int, ...]:
        """Boxes along each axis."""
        return tuple(-(-n // s) if n else 0 for n, s in zip(self.shape, self.step, strict=True))

    def __len__(self) -> int:
        return math.prod(self.counts)

    def __iter__(self) -> Iterator[Box]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, number: int) -> Box:
        index = []
        for n in reversed(self.counts):
            number, i = divmod(number, n)
            index.append(i)
        corner = zip(reversed(index), self.step, self.shape, strict=True)
        return tuple(slice(i * s, min((i + 1) * s, n)) for i, s, n in corner)

    def meeting(self, box: Box) -> Iterator[int]:
        """Walk over the numbers of the boxes that have points in common with ``box``, in order."""
        runs = [range(b.start // s, -(-b.stop // s)) for b, s in zip(box, self.step, strict=True)]
        if any(b.stop <= b.start for b in box):
            return
        for index in itertools.product(*runs):
            number = 0
            for i, n in zip(index, self.counts, strict=True):
                number = number * n + i
            yield number


def boxes_of(shape: tuple[int, ...], step: tuple[int, ...]) -> Iterator[Box]:
    """Walk in C order over the boxes of a regular tiling; edge boxes are cut."""
    return iter(Tiling(shape, step))


def box_shape(box: Box) -> tuple[int, ...]:
    """Lengths of a box."""
    return tuple(s.stop - s.start for s in box)
