# SPDX-License-Identifier: MIT
"""Which format a path asks for, what it refuses, and who writes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np

from hbae.arrays import Array, Attribute, Box, Field, Variable
from hbae.errors import ConfigError, FieldError
from hbae.io.attributes import PY_ATTRS
from hbae.io.kinds import STORED

SUFFIXES = {
    ".nc": "netcdf", ".nc4": "netcdf", ".cdf": "netcdf", ".ex2": "netcdf", ".zarr": "zarr", ".h5": "hdf5",
    ".hdf5": "hdf5", ".npy": "npy", ".raw": "raw", ".bin": "raw",
}  # fmt: skip
CLASSIC = ("netcdf3", "netcdf3_64bit", "cdf5")
_UNITS = {
    "ns": "nanoseconds", "us": "microseconds", "ms": "milliseconds", "s": "seconds", "m": "minutes", "h": "hours",
    "D": "days",
}  # fmt: skip


class Target(Protocol):
    """A file being written: takes boxes that lie on whole chunks."""

    def chunk(self, variable: Variable) -> tuple[int, ...] | None:
        """Give the storage chunk of a variable; None takes any box."""

    def write(self, variable: Variable, box: Box, array: Array) -> None:
        """Put one box."""

    def finish(self) -> None:
        """Close the file after the last box."""

    def leave(self) -> None:
        """Close the file after the last box of this rank, all its bytes on disk; another rank finishes it."""

    def discard(self) -> None:
        """Close the file, whatever its state."""


class Elsewhere:
    """Stands for a file that rank 0 alone has open, on the other ranks."""

    def chunk(self, variable: Variable) -> tuple[int, ...] | None:
        """Nothing is known of it here."""
        return None

    def write(self, variable: Variable, box: Box, array: Array) -> None:
        """Refuse it.

        Raises
        ------
        FieldError
            Always.
        """
        raise FieldError(f"{variable.path}: of this format rank 0 alone writes what has no spool")

    def finish(self) -> None:
        """Nothing is open."""

    leave = discard = finish


def shared_format(field: Field, path: Path) -> bool:
    """Tell whether ranks can write such a file side by side: the values of each box have a place of their own.

    The libraries of HDF5 and netCDF-4 take one process.
    """
    return target_format(field, path) in (*CLASSIC, "zarr", "npy", "raw")


def target_format(field: Field, path: Path) -> str:
    """Give the format that a path asks for; a netCDF path keeps the flavour of the field.

    Raises
    ------
    ConfigError
        For an unknown suffix.
    """
    family = SUFFIXES.get(path.suffix.lower())
    if family is None:
        raise ConfigError(f"{path}: unknown suffix {path.suffix!r}; known: {', '.join(SUFFIXES)}")
    if family == "netcdf":
        return field.format if field.format in (*CLASSIC, "netcdf4_classic") else "netcdf4"
    return family


def check_target(field: Field, path: Path) -> None:
    """Refuse, before anything is written, what the target cannot hold.

    Raises
    ------
    FieldError
        With the name of what does not fit.
    """
    form = target_format(field, path)
    for v in field.variables():
        sizes = field.dims_of(v.group)
        for name, n in zip(v.dims, v.shape, strict=True):
            if name not in sizes or sizes[name].size != n:
                raise FieldError(f"{v.path}: dimension {name!r} of length {n} does not agree with its group")
        if len(set(v.dims)) != len(v.dims) and form not in (*CLASSIC, "netcdf4", "netcdf4_classic"):
            raise FieldError(f"{v.path}: a dimension stands twice, which {form} cannot hold")
    if form in CLASSIC:
        from hbae.io.netcdf3 import build_header

        _refuse_json(field)
        build_header(field, form)
    elif form.startswith("netcdf4"):
        from hbae.io.netcdf4_write import check_netcdf4

        _refuse_json(field)
        check_netcdf4(field, form == "netcdf4_classic")
    elif form == "hdf5":
        from hbae.io.hdf5_write import check_hdf5

        check_hdf5(field)
    elif form == "zarr":
        from hbae.io.zarr_write import check_zarr

        check_zarr(field)
    elif form == "npy":
        from hbae.io.npy import check_npy

        check_npy(field)
    else:
        from hbae.io.raw import check_raw

        check_raw(field)


def _refuse_json(field: Field) -> None:
    owners: list[tuple[str, Mapping[str, str]]] = [(v.path, v.hints.get(PY_ATTRS, {})) for v in field.variables()]
    owners += [(g.path or "root", field.extra.get(PY_ATTRS, {}).get(g.path, {})) for g in field.groups]
    for where, markers in owners:
        for name, marker in markers.items():
            if marker == "json":
                raise FieldError(f"{where}: attribute {name!r} is a nested or empty value, which netCDF cannot hold")


def make_target(temporary: Path, field: Field, path: Path, *, attach: bool = False) -> Target:
    """Start the file under its temporary name; ``attach``: another rank has started it."""
    if attach and not shared_format(field, path):
        return Elsewhere()
    form = target_format(field, path)
    if form in CLASSIC:
        from hbae.io.netcdf3 import Netcdf3Target

        return Netcdf3Target(temporary, field, form, attach=attach)
    if form.startswith("netcdf4"):
        from hbae.io.netcdf4_write import Netcdf4Target

        return Netcdf4Target(temporary, field, form == "netcdf4_classic")
    if form == "hdf5":
        from hbae.io.hdf5_write import Hdf5Target

        return Hdf5Target(temporary, field)
    if form == "zarr":
        from hbae.io.zarr_write import ZarrTarget

        return ZarrTarget(temporary, field, attach=attach)
    if form == "npy":
        from hbae.io.npy import NpyTarget

        return NpyTarget(temporary, field, attach=attach)
    from hbae.io.raw import RawTarget

    return RawTarget(temporary, field, attach=attach)


def side_file(path: Path) -> Path | None:
    """Give the second file that a target has (the description of a raw file), or None."""
    return path.with_name(path.name + ".yaml") if SUFFIXES.get(path.suffix.lower()) == "raw" else None


def with_cf_times(field: Field, path: Path) -> Field:
    """Give dates of a Dataset the units under which every reader of files decodes them again.

    Raises
    ------
    FieldError
        When such a variable has units already, or a step that has no name in CF.
    """
    if field.format != "dataset" or SUFFIXES.get(path.suffix.lower()) == "npy":
        return field
    groups = tuple(replace(g, variables=tuple(_with_units(v) for v in g.variables)) for g in field.groups)
    return replace(field, groups=groups)


def _with_units(v: Variable) -> Variable:
    stored = v.hints.get(STORED)
    dtype = np.dtype(stored) if isinstance(stored, str) and stored != "T" else None
    if dtype is None or dtype.kind not in "Mm":
        return v
    unit, step = np.datetime_data(dtype)
    if v.attr("units") is not None or v.attr("calendar") is not None or unit not in _UNITS or step != 1:
        raise FieldError(f"{v.path}: values of type {dtype} with these attributes cannot be written as CF times")
    since = " since 1970-01-01" if dtype.kind == "M" else ""
    new = [Attribute("units", _UNITS[unit] + since)]
    new += [Attribute("calendar", "proleptic_gregorian")] if dtype.kind == "M" else [Attribute("dtype", dtype.name)]
    hints = {k: x for k, x in v.hints.items() if k != STORED}
    return replace(v, attrs=(*v.attrs, *new), hints=hints)
