# SPDX-License-Identifier: MIT
"""What a format has no place for (unlimited flags, unused dimensions, attribute types), kept in one attribute."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from hbae.arrays import Attribute, Dimension, Group, Variable
from hbae.errors import FieldError

MARKER = "_hbae"


def derived_dims(variables: Iterable[Variable], parents: Mapping[str, Dimension]) -> tuple[Dimension, ...]:
    """Give the dimensions that a reader infers from the variables of a group alone, in order of appearance.

    Raises
    ------
    FieldError
        When one name has two lengths.
    """
    seen: dict[str, Dimension] = {}
    for v in variables:
        for name, size in zip(v.dims, v.shape, strict=True):
            known = seen.get(name)
            if known is None and name in parents and parents[name].size == size:
                continue
            if known is not None and known.size != size:
                raise FieldError(f"{v.path}: dimension {name!r} has length {size} here and {known.size} elsewhere")
            seen.setdefault(name, Dimension(name, size))
    return tuple(seen.values())


def group_marker(
    group: Group,
    parents: Mapping[str, Dimension],
    natural: list[str] | None = None,
    *,
    grown: frozenset[str] = frozenset(),
) -> dict[str, Any]:
    """Give what must be said about a group beyond its variables; empty where nothing is lost.

    ``natural`` is the order in which the format lists the variables, where that is not the order of writing;
    ``grown`` are the dimensions that the reader takes for unlimited.
    """
    names = [v.name for v in group.variables]
    out: dict[str, Any] = {}
    if natural is not None and natural != names:
        out["order"] = names
    derived = tuple(replace(d, unlimited=d.name in grown) for d in derived_dims(group.variables, parents))
    if derived != group.dims:
        out["dims"] = [[d.name, d.size, d.unlimited] for d in group.dims]
    return out


def marked_dims(doc: Mapping[str, Any]) -> tuple[Dimension, ...] | None:
    """Give the dimensions of a marker."""
    if "dims" not in doc:
        return None
    return tuple(Dimension(str(n), int(s), bool(u)) for n, s, u in doc["dims"])


def in_order(variables: list[Variable], doc: Mapping[str, Any]) -> list[Variable]:
    """Give the variables in the order of a marker; unknown ones last."""
    order = {str(n): i for i, n in enumerate(doc.get("order", ()))}
    return sorted(variables, key=lambda v: order.get(v.name, len(order)))


def load(text: object, where: str) -> dict[str, Any]:
    """Read a marker from an attribute's text.

    Raises
    ------
    FieldError
        When it is not a marker.
    """
    try:
        doc = text if isinstance(text, dict) else json.loads(str(text))
    except ValueError:
        doc = None
    if not isinstance(doc, dict):
        raise FieldError(f"{where or 'root'}: attribute {MARKER!r} is not what hbae writes")
    return doc


def refuse_marker(attrs: tuple[Attribute, ...], where: str) -> None:
    """Refuse an attribute with the reserved name.

    Raises
    ------
    FieldError
        Naming it.
    """
    if any(a.name == MARKER for a in attrs):
        raise FieldError(f"{where or 'root'}: the attribute name {MARKER!r} is reserved")
