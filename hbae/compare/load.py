# SPDX-License-Identifier: MIT
"""Loads one variable in a worker process; a partial of it can be pickled."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hbae.arrays import Array, Box, Variable
from hbae.errors import UnknownNameError
from hbae.io import fill_patterns, open_field


def read_variable(path: str | Path, name: str, limits: tuple[float, float] | None = None) -> Array:
    """Give a variable of any file that hbae reads, by name or ``group/name``, as stored.

    It is a masked array where points are missing: declared fill values, and values outside ``limits``.

    Raises
    ------
    UnknownNameError
        If the file has no such variable.
    OSError
        If the file cannot be read.
    """
    try:
        variable = open_field(path).variable(name)
    except KeyError:
        raise UnknownNameError(f"{path} has no variable {name!r}") from None
    x = np.asarray(variable.source.read(whole(variable.shape)))
    missing = invalid(x, variable, limits)
    return np.ma.masked_array(x, missing) if missing.any() else x


def invalid(x: Array, variable: Variable, limits: tuple[float, float] | None) -> Array:
    """Give the points of stored values that do not count."""
    missing = np.zeros(x.shape, bool)
    for fill in (f for pattern in fill_patterns(variable) for f in np.ravel(pattern)):
        missing |= x == fill
    if limits is not None:
        with np.errstate(invalid="ignore"):
            missing |= ~((x >= limits[0]) & (x <= limits[1]))
    return missing


def whole(shape: tuple[int, ...]) -> Box:
    """Give the box of everything."""
    return tuple(slice(0, n) for n in shape)
