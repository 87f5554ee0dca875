# SPDX-License-Identifier: MIT
"""Where two fields differ, by name."""

from __future__ import annotations

from collections.abc import Iterator

from hbae.arrays import Array, Attribute, Field, Group, Variable
from hbae.io.attributes import PY_ATTRS
from hbae.io.boxes import reading_boxes

# Hints that are part of what a value is, not of how it is stored.
_MEANING = ("stored_dtype", PY_ATTRS)


def same_field(a: Field, b: Field) -> list[str]:
    """Give the differences between two fields, by name; an empty list means identical.

    Compared: groups, dimensions with their order and unlimited flags, attributes with their types, variables with
    their order, dimensions, types and every bit of their values. Storage hints are not.
    """
    return list(_differences(a, b))


def _differences(a: Field, b: Field) -> Iterator[str]:
    ga, gb = {g.path: g for g in a.groups}, {g.path: g for g in b.groups}
    if list(ga) != list(gb):
        yield f"groups: {list(ga)} against {list(gb)}"
    for key in ("coords", PY_ATTRS):
        if a.format == b.format and a.extra.get(key) != b.extra.get(key):
            yield f"{key}: {a.extra.get(key)} against {b.extra.get(key)}"
    for path, group in ga.items():
        if path in gb:
            yield from _group(group, gb[path])


def _group(a: Group, b: Group) -> Iterator[str]:
    where = a.path or "root"
    if a.dims != b.dims:
        yield f"{where}: dimensions {a.dims} against {b.dims}"
    yield from _attributes(where, a.attrs, b.attrs)
    names_a, names_b = [v.name for v in a.variables], [v.name for v in b.variables]
    if names_a != names_b:
        yield f"{where}: variables {names_a} against {names_b}"
    others = {v.name: v for v in b.variables}
    for v in a.variables:
        if v.name in others:
            yield from _variable(v, others[v.name])


def _attributes(where: str, a: tuple[Attribute, ...], b: tuple[Attribute, ...]) -> Iterator[str]:
    left, right = {x.name: x for x in a}, {x.name: x for x in b}
    if list(left) != list(right):
        yield f"{where}: attributes {list(left)} against {list(right)}"
    for name, attr in left.items():
        if name in right and not attr.same(right[name]):
            yield f"{where}: attribute {name!r} {attr.value!r} against {right[name].value!r}"


def _variable(a: Variable, b: Variable) -> Iterator[str]:
    before = [f"{k} {x!r} against {y!r}" for k, x, y in _facts(a, b) if x != y]
    yield from (f"{a.path}: {text}" for text in before)
    yield from _attributes(a.path, a.attrs, b.attrs)
    if a.shape == b.shape and a.dtype == b.dtype:
        # Boxes follow the storage chunks of the first; the second reads what it must.
        count = sum(_unlike(a.source.read(box), b.source.read(box)) for box in reading_boxes(a, 16 << 20))
        if count:
            yield f"{a.path}: {count} values differ"


def _facts(a: Variable, b: Variable) -> Iterator[tuple[str, object, object]]:
    yield "dimensions", a.dims, b.dims
    yield "shape", a.shape, b.shape
    yield "type", a.dtype.str, b.dtype.str
    yield "kind", a.kind, b.kind
    for key in _MEANING:
        yield key, a.hints.get(key) or None, b.hints.get(key) or None


def _unlike(x: Array, y: Array) -> int:
    if x.dtype.hasobject:
        return int((x != y).sum())
    if x.tobytes() == y.tobytes():
        return 0
    width = x.dtype.itemsize
    bits = x.tobytes(), y.tobytes()
    return sum(bits[0][i : i + width] != bits[1][i : i + width] for i in range(0, len(bits[0]), width))
