# SPDX-License-Identifier: MIT
"""What a file says of its origin: global attributes that a writer adds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hbae.arrays import Attribute, Field
from hbae.errors import FieldError
from hbae.io.attributes import from_python, raw_text, set_attribute


def with_provenance(field: Field, history: str | None, provenance: Mapping[str, Any]) -> Field:
    """Give the field with more global attributes, and a line at the end of ``history``.

    Raises
    ------
    FieldError
        When its ``history`` is no text.
    """
    root = field.groups[0]
    attrs = root.attrs
    for name, value in provenance.items():
        attrs = set_attribute(attrs, from_python(name, value)[0])
    if history is not None:
        attrs = set_attribute(attrs, _longer(next((a for a in attrs if a.name == "history"), None), history))
    return replace(field, groups=(replace(root, attrs=attrs), *field.groups[1:]))


def _longer(old: Attribute | None, line: str) -> Attribute:
    value = None if old is None else old.value
    if isinstance(value, list):
        return Attribute("history", [*value[:-1], _joined(value[-1] if value else "", line)])
    if isinstance(value, bytes):
        return Attribute("history", value.rstrip(b"\n\0") + b"\n" + raw_text(line))
    if value is not None and not isinstance(value, str):
        raise FieldError("root: attribute 'history' is no text, so no line can be added")
    return Attribute("history", _joined(value or "", line))


def _joined(text: str, line: str) -> str:
    kept = text.rstrip("\n\0")
    return f"{kept}\n{line}" if kept else line
