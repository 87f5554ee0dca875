# SPDX-License-Identifier: MIT
"""NumPy's .npy files: one array, no names."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hbae.arrays import Array, Box, Dimension, Field, Group, Variable, box_shape
from hbae.errors import FieldError
from hbae.io.flat import FlatSource, FlatTarget, Layout, c_strides
from hbae.io.kinds import STORED, shown_type, to_shown, to_stored

NAME = "data"


def phony_dims(shape: tuple[int, ...]) -> tuple[str, ...]:
    """Name the axes of an array without names."""
    return tuple(f"dim_{i}" for i in range(len(shape)))


class TextSource:
    """A lazy array whose values are shown in another type (dates, fixed Unicode)."""

    storage: tuple[int, ...] | None = None

    def __init__(self, inner: FlatSource, dtype: np.dtype[Any]) -> None:
        self._inner, self.dtype = inner, dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return self._inner.shape

    def read(self, box: Box) -> Array:
        """Read one box."""
        return to_shown(self._inner.read(box), self.dtype, self._inner.path.name).reshape(box_shape(box))


def fortran_strides(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """Give the byte strides of an F-ordered array."""
    return tuple(reversed(c_strides(tuple(reversed(shape)), itemsize)))


def open_npy(path: Path) -> Field:
    """Open a .npy file as a field with the one variable ``data``.

    Raises
    ------
    FieldError
        When the file is damaged or holds objects or records.
    """
    with path.open("rb") as f:
        try:
            version = np.lib.format.read_magic(f)
            reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = reader(f)
        except ValueError as e:
            raise FieldError(f"{path}: {e}") from e
        offset = f.tell()
    if dtype.hasobject or dtype.names is not None:
        raise FieldError(f"{path}: arrays of type {dtype} cannot be kept")
    kind, shown, hints = shown_type(dtype, path.name)
    strides = (fortran_strides if fortran else c_strides)(shape, dtype.itemsize)
    inner = FlatSource(path, Layout(offset, shape, dtype, strides), dtype)
    source = inner if not hints else TextSource(inner, shown)
    hints |= {"order": "F"} if fortran else {}
    dims = phony_dims(shape)
    variable = Variable(name=NAME, dims=dims, source=source, kind=kind, hints=hints)
    group = Group(dims=tuple(Dimension(n, s) for n, s in zip(dims, shape, strict=True)), variables=(variable,))
    return Field(format="npy", groups=(group,))


def bare(field: Field) -> Field:
    """Give a field of one variable as .npy holds it: its values, without attributes and names."""
    (v,) = field.variables()
    hints = {k: x for k, x in v.hints.items() if k in ("order", STORED)}
    dims = phony_dims(v.shape)
    only = replace(v, name=NAME, dims=dims, attrs=(), hints=hints, group="")
    return Field(format="npy", groups=(Group(dims=tuple(map(Dimension, dims, v.shape)), variables=(only,)),))


def check_npy(field: Field) -> None:
    """Refuse what .npy cannot hold.

    Raises
    ------
    FieldError
        With the name of what does not fit.
    """
    variables = list(field.variables())
    if len(variables) != 1:
        names = ", ".join(v.path for v in variables[:5])
        raise FieldError(f".npy holds exactly one variable, not {len(variables)} ({names})")
    v = variables[0]
    if v.dtype.hasobject and not str(v.hints.get(STORED, "")).startswith(("<U", ">U")):
        raise FieldError(f"{v.path}: .npy cannot hold strings of variable length")
    attrs = [a.name for g in field.groups for a in g.attrs] + [a.name for a in v.attrs]
    if attrs:
        raise FieldError(f".npy cannot hold attributes ({', '.join(attrs[:5])})")
    plain = v.path == NAME and v.dims == phony_dims(v.shape)
    dims = tuple(Dimension(n, s) for n, s in zip(v.dims, v.shape, strict=True))
    if not plain or len(field.groups) != 1 or field.groups[0].dims != dims:
        raise FieldError(f"{v.path}: .npy cannot hold names of variables and dimensions")


class NpyTarget(FlatTarget):
    """Writes boxes straight to their places in a .npy file."""

    def __init__(self, path: Path, field: Field, *, attach: bool = False) -> None:
        v = next(iter(field.variables()))
        self._stored = v.hints.get(STORED)
        dtype = np.dtype(self._stored) if isinstance(self._stored, str) else v.dtype
        fortran = v.hints.get("order") == "F"
        doc = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": fortran, "shape": v.shape}
        head = io.BytesIO()
        np.lib.format.write_array_header_1_0(head, doc)
        strides = (fortran_strides if fortran else c_strides)(v.shape, dtype.itemsize)
        offset = head.tell()
        size = offset + int(np.prod(v.shape, dtype=object)) * dtype.itemsize
        layouts = {v.path: Layout(offset, v.shape, dtype, strides)}
        super().__init__(path, layouts, size, head.getvalue(), attach=attach)

    def stored(self, array: Array, dtype: np.dtype[Any]) -> Array:
        """Give values in the type of the file (dates, fixed Unicode)."""
        return to_stored(array, self._stored)
