# SPDX-License-Identifier: MIT
"""NumPy types that a field shows as another type: dates as int64, fixed Unicode as strings."""

from __future__ import annotations

from typing import Any

import numpy as np

from hbae.arrays import Array
from hbae.errors import FieldError

STORED = "stored_dtype"


def shown_type(dtype: np.dtype[Any], where: str) -> tuple[str, np.dtype[Any], dict[str, Any]]:
    """Give kind, type and hints under which values of a type are shown.

    Raises
    ------
    FieldError
        For structured, opaque and other types.
    """
    if dtype.kind in "iufc" and dtype.names is None and dtype.itemsize <= 16:
        return "number", dtype, {}
    if dtype.kind == "b":
        return "bool", dtype, {}
    if dtype.kind == "S" and dtype.itemsize:
        return "char", dtype, {}
    if dtype.kind in "Mm":
        return "number", np.dtype(dtype.str[0] + "i8"), {STORED: dtype.str}
    if dtype.kind == "U":
        return "string", np.dtype(object), {STORED: dtype.str}
    if dtype.kind == "T":
        return "string", np.dtype(object), {STORED: "T"}
    if dtype.kind == "O":
        return "string", dtype, {}
    raise FieldError(f"{where}: values of type {dtype} cannot be kept")


def to_shown(values: Array, dtype: np.dtype[Any], where: str) -> Array:
    """Give values in the type under which they are shown.

    Raises
    ------
    FieldError
        When an object array holds something that is not a string.
    """
    if values.dtype.kind in "Mm":
        return values.view(dtype)
    if dtype.hasobject:
        out = values.astype(object)
        for v in out.flat:
            if not isinstance(v, str):
                raise FieldError(f"{where}: an object of type {type(v).__name__} among the strings cannot be kept")
        return np.asarray(out, object)
    return values if values.dtype == dtype else values.astype(dtype)


def to_stored(values: Array, stored: object) -> Array:
    """Undo :func:`to_shown`."""
    if not isinstance(stored, str):
        return values
    dtype = np.dtypes.StringDType() if stored == "T" else np.dtype(stored)
    if dtype.kind in "Mm":
        return np.asarray(values, order="C").view(dtype)
    return np.asarray(values.astype(dtype))
