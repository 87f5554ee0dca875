# SPDX-License-Identifier: MIT
"""What one step of a stream holds: names, types and shapes, fixed by the first step; every later one must fit."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from hbae.arrays import Array, ArraySource, Dimension, Field, Group, Hollow, Source, Variable
from hbae.errors import FieldError, FormatError
from hbae.io import open_field
from hbae.io.attributes import PY_ATTRS, from_mapping
from hbae.io.dataset import ENCODING

TIME = "time"
_LARGEST = 1 << 63


@dataclass(frozen=True)
class Layout:
    """The field of one step, without values, and the values of the variables that no step changes.

    ``step``: type of the coordinate ``time``, int64 or float64. ``fixed``: coordinates of a Dataset, by name.
    """

    template: Field
    step: np.dtype[Any]
    fixed: Mapping[str, Array] = field(default_factory=dict)

    @property
    def moving(self) -> list[Variable]:
        """Variables that every step brings."""
        return [v for v in self.template.variables() if v.path not in self.fixed]

    @property
    def nbytes(self) -> int:
        """Bytes of the fields of one step."""
        return sum(v.nbytes for v in self.moving)

    def check(self, other: Layout) -> None:
        """Compare the layout of a later step with this one.

        Raises
        ------
        FieldError
            When anything differs; the message names it.
        """
        here, there = ({v.path: v for v in k.template.variables()} for k in (self, other))
        for name in here.keys() ^ there.keys():
            raise FieldError(f"{name}: {'missing in' if name in here else 'new in'} this step")
        for name, v in here.items():
            w = there[name]
            for what in ("dtype", "shape", "dims"):
                if getattr(v, what) != getattr(w, what):
                    raise FieldError(
                        f"{name}: its {what} was {getattr(v, what)} and is {getattr(w, what)} in this step"
                    )
            if [a.to_json() for a in v.attrs] != [a.to_json() for a in w.attrs]:
                raise FieldError(f"{name}: its attributes differ from those of the first step")
            if (name in self.fixed) != (name in other.fixed) or not _same(self.fixed.get(name), other.fixed.get(name)):
                raise FieldError(f"{name}: a coordinate changes from step to step; give it as a variable")
        mine, theirs = ([a.to_json() for a in k.template.groups[0].attrs] for k in (self, other))
        if mine != theirs:
            raise FieldError("the attributes differ from those of the first step")

    def pack(self, step: Array, values: Mapping[str, Array]) -> bytes:
        """Give a step as bytes: its number, then the fields, each in its own type."""
        return step.tobytes() + b"".join(np.ascontiguousarray(values[v.path]).tobytes() for v in self.moving)

    def unpack(self, data: bytes) -> tuple[Array, dict[str, Array]]:
        """Undo :meth:`pack`.

        Raises
        ------
        FormatError
            When the length is another one.
        """
        if len(data) != self.step.itemsize + self.nbytes:
            raise FormatError("a step of another length")
        at, out = self.step.itemsize, {}
        for v in self.moving:
            flat = np.frombuffer(data, v.dtype, count=math.prod(v.shape), offset=at)
            out[v.path] = flat.reshape(v.shape)
            at += v.nbytes
        return np.frombuffer(data, self.step, count=1)[0], out

    def field(self, steps: Array, sources: Mapping[str, Source]) -> Field:
        """Give the field of those steps: an axis ``time`` before the axes of all that moves."""
        group, n = self.template.groups[0], len(steps)
        variables = [Variable(name=TIME, dims=(TIME,), source=ArraySource(steps))]
        for v in group.variables:
            if v.path in self.fixed:
                variables.append(replace(v, source=ArraySource(self.fixed[v.path])))
            else:
                source = sources.get(v.path) or Hollow((n, *v.shape), v.dtype)
                variables.append(replace(v, dims=(TIME, *v.dims), source=source))
        dims = (Dimension(TIME, n, True), *group.dims)
        return replace(self.template, groups=(replace(group, dims=dims, variables=tuple(variables)),))

    def to_json(self) -> dict[str, Any]:
        """Give all but the fixed values."""
        return {"field": self.template.to_json(), "step": self.step.str, "fixed": list(self.fixed)}


def layout_from(doc: Mapping[str, Any], fixed: Mapping[str, Array]) -> Layout:
    """Undo :meth:`Layout.to_json`.

    Raises
    ------
    FormatError
        When the description is malformed.
    """
    template, step = Field.from_json(doc["field"]), str(doc["step"])
    if step not in ("<i8", "<f8") or set(doc["fixed"]) != set(fixed) or len(template.groups) != 1:
        raise FormatError("the description of a step is malformed")
    return Layout(template, np.dtype(step), fixed)


def read_step(
    fields: Any, step: np.dtype[Any], dims: Mapping[str, tuple[str, ...]], attrs: Mapping[str, Mapping[str, Any]]
) -> tuple[Layout, dict[str, Array]]:
    """Give layout and values of what a caller appends: arrays by name, or a Dataset of one step.

    Raises
    ------
    FieldError
        For what cannot be kept: text, objects, names or dimensions that do not fit, an axis ``time``.
    """
    whole = _of_arrays(fields, dims, attrs) if isinstance(fields, Mapping) and not hasattr(fields, "coords") else None
    source = whole or open_field(fields)
    names = {v.path for v in source.variables()} | set(source.dims_of(""))
    if TIME in names:
        raise FieldError(f"{TIME}: the number of the step becomes this coordinate; leave it out of the fields")
    if any(v.name.startswith("/") or "/" in v.name for v in source.variables()):
        raise FieldError("names of fields hold no '/'")
    coords = set(source.extra.get("coords", ()))
    values = {v.path: v.source.read(tuple(slice(0, n) for n in v.shape)) for v in source.variables()}
    for v in source.variables():
        if v.path not in coords and (v.dtype.hasobject or v.kind not in ("number", "bool")):
            raise FieldError(f"{v.path}: only numbers can change from step to step, not {v.dtype}")
    if not values.keys() - coords:
        raise FieldError("a step without a field")
    group = source.groups[0]
    plain = tuple(replace(v, source=Hollow(v.shape, v.dtype)) for v in group.variables)
    extra = {**source.extra, **{k: [TIME, *source.extra.get(k, ())] for k in ("coords", "indexes")}}
    extra[ENCODING] = {**source.extra.get(ENCODING, {}), "unlimited_dims": [TIME]}
    template = replace(source, groups=(replace(group, variables=plain),), extra=extra)
    fixed = {n: a for n, a in values.items() if n in coords}
    return Layout(template, step, fixed), {n: a for n, a in values.items() if n not in coords}


def _of_arrays(
    fields: Mapping[str, Any], dims: Mapping[str, tuple[str, ...]], attrs: Mapping[str, Mapping[str, Any]]
) -> Field:
    """Show arrays as a field; axes without names are called by their place and length, so equal shapes share them."""
    sizes: dict[str, int] = {}
    variables = []
    for name, given in fields.items():
        a = np.asarray(given)
        if not isinstance(name, str) or not name:
            raise FieldError(f"the name {name!r} of a field is no text")
        if a.dtype.kind not in "biufc":
            raise FieldError(f"{name}: only numbers can change from step to step, not {a.dtype}")
        axes = tuple(dims.get(name, [f"dim{i}_{n}" for i, n in enumerate(a.shape)]))
        if len(axes) != a.ndim or any(sizes.setdefault(d, n) != n for d, n in zip(axes, a.shape, strict=True)):
            raise FieldError(f"{name}: dimensions {axes} do not fit its shape {a.shape}")
        own, markers = from_mapping(attrs.get(name, {}), name)
        hints = {PY_ATTRS: markers} if markers else {}
        kind = "bool" if a.dtype.kind == "b" else "number"
        variables.append(Variable(name=name, dims=axes, source=ArraySource(a), kind=kind, attrs=own, hints=hints))
    for name in (*dims, *attrs):
        if name and name not in fields:
            raise FieldError(f"{name}: dimensions or attributes are given, but there is no such field")
    top, markers = from_mapping(attrs.get("", {}), "")
    group = Group(dims=tuple(Dimension(d, n) for d, n in sizes.items()), attrs=top, variables=tuple(variables))
    return Field(format="dataset", groups=(group,), extra={PY_ATTRS: {"": markers}} if markers else {})


def step_number(step: Any, last: Array | None, dtype: np.dtype[Any] | None) -> Array:
    """Give the number of a step as int64 or float64, exactly, above the last one.

    Raises
    ------
    FieldError
        When it is no number, not exact in the type of the first one, or not above the last one.
    """
    if isinstance(step, float | np.floating):
        out, exact = np.asarray(step, "<f8"), float(step) == step
        if dtype is not None and dtype.kind == "i":
            raise FieldError(f"step {step!r}: the numbers of the steps before are integers")
    else:
        try:
            number = -_LARGEST - 1 if isinstance(step, bool | np.bool_) else operator.index(step)
        except TypeError:
            number = -_LARGEST - 1
        if not -_LARGEST <= number < _LARGEST:
            raise FieldError(f"step {step!r}: neither a 64-bit integer nor a float")
        out = np.asarray(number, dtype or "<i8")
        exact = int(out) == number
    if not np.isfinite(out) or not exact:
        raise FieldError(f"step {step!r}: not a finite number of 64 bits")
    if last is not None and not out > last:
        raise FieldError(f"step {step!r}: not above the last one, {last}")
    return out


def _same(a: Array | None, b: Array | None) -> bool:
    if a is None or b is None:
        return a is b
    return a.tolist() == b.tolist() if a.dtype.hasobject else a.tobytes() == b.tobytes()
