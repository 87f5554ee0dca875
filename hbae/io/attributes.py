# SPDX-License-Identifier: MIT
"""Attributes of files and Datasets as :class:`Attribute`, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from hbae.arrays import Attribute
from hbae.errors import FieldError

PY_ATTRS = "py_attrs"


def text_or_bytes(raw: bytes) -> str | bytes:
    """Give characters as str where they are UTF-8, else the bytes."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw


def raw_text(value: str | bytes) -> bytes:
    """Undo :func:`text_or_bytes`."""
    return value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value


def from_python(name: str, value: Any) -> tuple[Attribute, str | None]:
    """Give an attribute and a marker that says which Python type it was (None: NumPy's or a str).

    Raises
    ------
    FieldError
        When the value has no JSON form either.
    """
    if isinstance(value, str):
        return Attribute(name, str(value)), None
    if isinstance(value, bytes) and not isinstance(value, np.generic):
        return Attribute(name, value), None
    if isinstance(value, np.ndarray | np.generic):
        return _from_numpy(name, np.asarray(value))
    if isinstance(value, bool | int | float | complex):
        try:
            return Attribute(name, np.asarray(value, {bool: "?", int: "i8"}.get(type(value)))), "py"
        except OverflowError:
            pass
    if isinstance(value, list | tuple) and value:
        marker = "tuple" if isinstance(value, tuple) else "py"
        kinds = {type(v) for v in value}
        if kinds == {str}:
            return Attribute(name, [str(v) for v in value]), "tuple" if marker == "tuple" else None
        if kinds in ({bool}, {float}) or (kinds == {int} and all(-(2**63) <= v < 2**63 for v in value)):
            return Attribute(name, np.asarray(value)), marker
    try:
        return Attribute(name, json.dumps(value)), "json"
    except (TypeError, ValueError):
        raise FieldError(f"attribute {name!r}: a value of type {type(value).__name__} cannot be kept") from None


def _from_numpy(name: str, value: Any) -> tuple[Attribute, str | None]:
    if value.dtype.kind in "biufcS":
        return Attribute(name, value), None
    if value.dtype.kind in "MmU" or (value.dtype.kind == "O" and all(isinstance(v, str) for v in value.flat)):
        if value.dtype.kind in "Mm":
            return Attribute(name, value.view("i8")), f"dtype:{value.dtype.str}"
        marker = f"dtype:{value.dtype.str}:{json.dumps(list(value.shape))}"
        return Attribute(name, [str(v) for v in value.flat]), marker
    raise FieldError(f"attribute {name!r}: arrays of type {value.dtype} cannot be kept")


def to_python(attr: Attribute, marker: str | None) -> Any:
    """Undo :func:`from_python`."""
    v = attr.value
    if marker == "json" and isinstance(v, str):
        return json.loads(v)
    if marker in ("py", "tuple"):
        listed = v.tolist() if isinstance(v, np.ndarray) else v
        return tuple(listed) if marker == "tuple" else listed
    if marker and marker.startswith("dtype:"):
        dtype, _, shape = marker[6:].partition(":")
        if isinstance(v, np.ndarray):
            return v.view(dtype)[()]
        return np.asarray(v, dtype).reshape(json.loads(shape or "[]"))
    if isinstance(v, np.ndarray):
        return v[()] if v.ndim == 0 else v
    return v


def from_mapping(values: Mapping[Any, Any], where: str) -> tuple[tuple[Attribute, ...], dict[str, str]]:
    """Give all attributes of a mapping and their markers.

    Raises
    ------
    FieldError
        For a value or a name that cannot be kept; the message names it.
    """
    attrs, markers = [], {}
    for name, value in values.items():
        if not isinstance(name, str):
            raise FieldError(f"{where or 'root'}: attribute name {name!r} is not a string")
        try:
            attr, marker = from_python(name, value)
        except FieldError as e:
            raise FieldError(f"{where or 'root'}: {e}") from None
        attrs.append(attr)
        if marker:
            markers[name] = marker
    return tuple(attrs), markers


def to_mapping(attrs: tuple[Attribute, ...], markers: Mapping[str, str]) -> dict[str, Any]:
    """Give attributes as Python values."""
    return {a.name: to_python(a, markers.get(a.name)) for a in attrs}


def set_attribute(attrs: tuple[Attribute, ...], new: Attribute) -> tuple[Attribute, ...]:
    """Give the attributes with one replaced in place, or added at the end."""
    if any(a.name == new.name for a in attrs):
        return tuple(new if a.name == new.name else a for a in attrs)
    return (*attrs, new)
