# SPDX-License-Identifier: MIT
"""What a variable says about itself: fill values and packing."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from hbae.arrays import Array, Variable
from hbae.io.attributes import PY_ATTRS


def _numbers(variable: Variable, name: str) -> Array | None:
    value: Any = variable.attr(name)
    if isinstance(value, str) and variable.hints.get(PY_ATTRS, {}).get(name) == "json":
        value = json.loads(value)
    if value is None:
        return None
    if isinstance(value, str | bytes):
        if variable.dtype.kind != "S":
            return None
        return np.asarray([value.encode() if isinstance(value, str) else value], variable.dtype)
    try:
        out = np.atleast_1d(np.asarray(value))
    except ValueError:
        return None
    return out if out.dtype.kind in "biufcS" else None


def fill_patterns(variable: Variable) -> list[Array]:
    """Give the declared fill values (``_FillValue``, ``missing_value``), each a scalar of the variable's type.

    A declared value that the type cannot hold marks nothing and is left out. A Dataset that was opened decoded
    keeps such values in its encoding only: its points are NaN and need no pattern.
    """
    found: dict[bytes, Array] = {}
    if variable.dtype.hasobject:
        return []
    for name in ("_FillValue", "missing_value"):
        values = _numbers(variable, name)
        for v in values.ravel() if values is not None else ():
            scalar = _cast(v, variable.dtype)
            if scalar is not None:
                found.setdefault(scalar.tobytes(), scalar)
    return list(found.values())


def _cast(value: Any, dtype: np.dtype[Any]) -> Array | None:
    source = np.asarray(value)
    if source.dtype == dtype:
        return source
    if (source.dtype.kind == "S") != (dtype.kind == "S") or (source.dtype.kind == "c" and dtype.kind != "c"):
        return None
    with np.errstate(all="ignore"):
        out = source.astype(dtype)
        if dtype.kind in "iu" and source != out:
            return None
    # A double 1e20 beside float32 data means the nearest float32, as every reader takes it.
    return None if dtype.kind == "f" and np.isinf(out) and np.isfinite(source) else out


def packing(variable: Variable) -> tuple[float, float] | None:
    """Give (scale_factor, add_offset) of an integer variable, (1, 0) where it names none.

    None for all other types, and where the attributes make no sense.
    """
    if variable.dtype.kind not in "iu":
        return None
    scale, offset = _numbers(variable, "scale_factor"), _numbers(variable, "add_offset")
    if any(x is not None and (x.size != 1 or x.dtype.kind not in "iuf") for x in (scale, offset)):
        return None
    return (1.0 if scale is None else float(scale.ravel()[0]), 0.0 if offset is None else float(offset.ravel()[0]))
