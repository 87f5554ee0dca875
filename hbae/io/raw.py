# SPDX-License-Identifier: MIT
"""Raw binary files with a small YAML description beside them.

A description::

    file: wmag.raw            # beside the description; default: its name without .yaml
    attributes: {title: box}
    variables:                # one after the other in the file
      - name: wmag
        dtype: float32
        shape: [91, 91, 91]
        dims: [z, y, x]       # default: dim_0, dim_1, ...
        order: C              # or F
        endian: little        # or big
        offset: 0             # default: where the variable before ends
        attributes: {units: 1/s}

A description of one variable may give its keys at the top level. Attribute types follow YAML (int64, float64, text,
lists of them); ``{dtype: float32, value: [1.5]}`` gives another type, ``{json: [...]}`` any type that hbae keeps.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import yaml

from hbae.arrays import Attribute, Dimension, Field, Group, Variable
from hbae.errors import FieldError
from hbae.io.attributes import PY_ATTRS, from_python, to_python
from hbae.io.flat import FlatSource, FlatTarget, Layout, c_strides
from hbae.io.marker import derived_dims
from hbae.io.npy import fortran_strides, phony_dims

_KEYS = {"name", "dtype", "shape", "dims", "order", "endian", "offset", "attributes"}
_TOP = {"file", "variables", "attributes", "dimensions"}


def open_raw(description: Path, data: Path | None = None) -> Field:
    """Open the raw file that a description names.

    Raises
    ------
    FieldError
        When the description is wrong (the message names the key) or the file is too short.
    """
    try:
        doc = yaml.safe_load(description.read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as e:
        raise FieldError(f"{description}: not YAML: {e}") from e
    if not isinstance(doc, dict):
        raise FieldError(f"{description}: expected a mapping")
    short = "variables" not in doc
    allowed = _TOP | _KEYS if short else _TOP
    unknown = [k for k in doc if k not in allowed]
    if unknown:
        raise FieldError(f"{description}: unknown key {unknown[0]!r}; known: {', '.join(sorted(allowed))}")
    target = data or description.parent / str(doc.get("file", description.stem))
    if not target.is_file():
        raise FieldError(f"{description}: file: {target} does not exist")
    items = [{k: x for k, x in doc.items() if k in _KEYS}] if short else doc["variables"]
    if short:
        items[0].setdefault("name", target.stem)
    variables, end = [], 0
    for item in items:
        v, end = _variable(item, target, end, description, short)
        variables.append(v)
    attrs, markers = _attributes({} if short else doc.get("attributes") or {}, str(description))
    dims = derived_dims(variables, {})
    if doc.get("dimensions"):
        dims = tuple(Dimension(str(n), int(s), bool(u)) for n, s, u in doc["dimensions"])
    extra = {"file": str(doc["file"])} if "file" in doc else {}
    return Field(
        format="raw",
        groups=(Group(dims=dims, attrs=attrs, variables=tuple(variables)),),
        extra=extra | ({PY_ATTRS: {"": markers}} if markers else {}),
    )


def _variable(item: Any, target: Path, end: int, where: Path, short: bool) -> tuple[Variable, int]:
    if not isinstance(item, dict):
        raise FieldError(f"{where}: variables: expected a list of mappings")
    name = str(item.get("name", ""))
    unknown = [k for k in item if k not in _KEYS]
    missing = [k for k in ("name", "dtype", "shape") if k not in item]
    if unknown or missing:
        what = f"unknown key {unknown[0]!r}" if unknown else f"{missing[0]} is missing"
        raise FieldError(f"{where}: variable {name!r}: {what}")
    dtype = _dtype(item, f"{where}: variable {name!r}")
    shape, order = item["shape"], item.get("order", "C")
    if not isinstance(shape, list) or not all(isinstance(n, int) and n >= 0 for n in shape):
        raise FieldError(f"{where}: variable {name!r}: shape must be a list of lengths, not {shape!r}")
    if order not in ("C", "F"):
        raise FieldError(f"{where}: variable {name!r}: order must be C or F, not {order!r}")
    dims = item.get("dims") or list(phony_dims(tuple(shape)))
    if not isinstance(dims, list) or len(dims) != len(shape):
        raise FieldError(f"{where}: variable {name!r}: dims {dims!r} do not fit the shape {shape!r}")
    offset = int(item.get("offset", end))
    strides = (fortran_strides if order == "F" else c_strides)(tuple(shape), dtype.itemsize)
    stop = offset + int(np.prod(shape, dtype=object)) * dtype.itemsize
    size = target.stat().st_size
    if stop > size or offset < 0 or (short and "offset" not in item and stop != size):
        raise FieldError(f"{where}: variable {name!r}: {stop} bytes are described, {target.name} has {size}")
    attrs, markers = _attributes(item.get("attributes") or {}, name)
    kind = {"b": "bool", "S": "char"}.get(dtype.kind, "number")
    hints: dict[str, Any] = {"order": order} | ({PY_ATTRS: markers} if markers else {})
    source = FlatSource(target, Layout(offset, tuple(shape), dtype, strides), dtype)
    variable = Variable(name=name, dims=tuple(str(d) for d in dims), source=source, kind=kind, attrs=attrs, hints=hints)
    return variable, stop


def _dtype(item: dict[str, Any], where: str) -> np.dtype[Any]:
    endian = item.get("endian", "little")
    if endian not in ("little", "big"):
        raise FieldError(f"{where}: endian must be little or big, not {endian!r}")
    try:
        dtype = np.dtype(str(item["dtype"]))
    except TypeError:
        raise FieldError(f"{where}: dtype {item['dtype']!r} is unknown") from None
    if dtype.kind not in "biufcS" or not dtype.itemsize:
        raise FieldError(f"{where}: dtype {item['dtype']!r} cannot be kept")
    if str(item["dtype"])[:1] in "<>" and "endian" not in item:
        return dtype
    return dtype.newbyteorder("<" if endian == "little" else ">")


def _attributes(values: Any, where: str) -> tuple[tuple[Attribute, ...], dict[str, str]]:
    if not isinstance(values, dict):
        raise FieldError(f"{where}: attributes must be a mapping")
    out, markers = [], {}
    for name, value in values.items():
        if isinstance(value, dict) and set(value) == {"dtype", "value"}:
            out.append(Attribute(str(name), np.asarray(value["value"], np.dtype(str(value["dtype"])))))
        elif isinstance(value, dict) and set(value) == {"json"}:
            out.append(Attribute.from_json(value["json"]))
        else:
            attr, marker = from_python(str(name), value)
            out.append(attr)
            if marker == "json":
                markers[str(name)] = marker
    return tuple(out), markers


def check_raw(field: Field) -> None:
    """Refuse what a raw file with a description cannot hold.

    Raises
    ------
    FieldError
        With the name of what does not fit.
    """
    if len(field.groups) != 1:
        raise FieldError(f"{field.groups[-1].path}: raw files cannot hold groups")
    for v in field.variables():
        if v.dtype.kind not in "biufcS":
            raise FieldError(f"{v.path}: raw files cannot hold {v.kind} values of type {v.dtype}")
    for key in (PY_ATTRS, "stored_dtype"):
        for v in field.variables():
            markers = v.hints.get(key)
            if key == "stored_dtype" and markers:
                raise FieldError(f"{v.path}: raw files cannot hold values of type {markers}")


def describe(field: Field, file: str) -> str:
    """Give the YAML description of a field's raw file."""
    group = field.groups[0]
    doc: dict[str, Any] = {"file": file}
    attrs = _plain(group.attrs, field.extra.get(PY_ATTRS, {}).get("", {}))
    if attrs:
        doc["attributes"] = attrs
    if derived_dims(group.variables, {}) != group.dims:
        doc["dimensions"] = [[d.name, d.size, d.unlimited] for d in group.dims]
    doc["variables"] = []
    for v in group.variables:
        item: dict[str, Any] = {"name": v.name, "dtype": v.dtype.name if v.dtype.kind != "S" else v.dtype.str[1:]}
        item |= {"shape": list(v.shape), "dims": list(v.dims), "order": v.hints.get("order", "C")}
        item["endian"] = "big" if v.dtype.str[0] == ">" else "little"
        attrs = _plain(v.attrs, v.hints.get(PY_ATTRS, {}))
        doc["variables"].append(item | ({"attributes": attrs} if attrs else {}))
    return str(yaml.safe_dump(doc, sort_keys=False, allow_unicode=False))


def _plain(attrs: tuple[Attribute, ...], markers: dict[str, str]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for a in attrs:
        value = to_python(a, markers.get(a.name) if markers.get(a.name) == "json" else None)
        if isinstance(value, np.ndarray | np.generic):
            value = value.tolist()
        faithful = not isinstance(value, bytes | complex) and not (
            isinstance(value, dict) and markers.get(a.name) != "json"
        )
        if faithful and markers.get(a.name) != "json":
            faithful = _faithful(a, value)
        out[a.name] = value if faithful else {"json": a.to_json()}
    return out


def _faithful(a: Attribute, value: Any) -> bool:
    again = yaml.safe_load(yaml.safe_dump(value)) if "\0" not in str(value) else None
    back, marker = from_python(a.name, again)
    return marker != "json" and back.same(a)


class RawTarget(FlatTarget):
    """Writes boxes straight to their places in a raw file."""

    def __init__(self, path: Path, field: Field, *, attach: bool = False) -> None:
        layouts: dict[str, Layout] = {}
        end = 0
        for v in field.variables():
            make = fortran_strides if v.hints.get("order") == "F" else c_strides
            layouts[v.path] = Layout(end, v.shape, v.dtype, make(v.shape, v.dtype.itemsize))
            end += v.nbytes
        super().__init__(path, layouts, end, b"", attach=attach)
