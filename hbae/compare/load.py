# SPDX-License-Identifier: MIT
"""Loads one variable in a worker process; a partial of it can be pickled."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hbae.arrays import Array
from hbae.errors import UnknownNameError


def read_variable(path: str | Path, name: str) -> Array:
    """Give a variable of a NetCDF file by name or ``group/name``, unpacked; a masked array where points are missing.

    Raises
    ------
    UnknownNameError
        If the file has no such variable.
    OSError
        If the file cannot be read.
    """
    import netCDF4

    with netCDF4.Dataset(str(path)) as ds:
        try:
            variable = ds[name]
        except (IndexError, KeyError):
            variable = None
        if not isinstance(variable, netCDF4.Variable):
            raise UnknownNameError(f"{path} has no variable {name!r}")
        x = variable[...]
    return x if np.ma.is_masked(x) else np.asarray(np.ma.getdata(x))
