# SPDX-License-Identifier: MIT
"""Open any supported source as a field; the format is told by the contents, not by the name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from hbae.arrays import Field
from hbae.errors import FieldError, InputError, told_as_input
from hbae.io.targets import SUFFIXES

_HDF5 = b"\x89HDF\r\n\x1a\n"


def open_field(source: Any, *, description: str | os.PathLike[str] | None = None) -> Field:
    """Open a file, a Zarr folder, a Dataset or a named DataArray; values are read when they are asked for.

    Parameters
    ----------
    source
        A path, or an xarray object. A raw binary file is opened by its YAML description (``x.yaml``), or by its own
        path when the description lies beside it or is given.
    description
        The YAML description of a raw file.

    Raises
    ------
    FieldError
        When the format is not known, or the source holds something that cannot be kept; the message names it.
    InputError
        When there is no such file, or it cannot be read.
    """
    if not isinstance(source, str | os.PathLike):
        return _open_object(source)
    path = Path(source)
    if description is not None:
        from hbae.io.raw import open_raw

        return open_raw(Path(description), path)
    with told_as_input(path):
        form = detect(path)
    if form == "zarr":
        from hbae.io.zarr_ import open_zarr

        return open_zarr(path)
    if form == "netcdf3":
        from hbae.io.netcdf3 import open_netcdf3

        return open_netcdf3(path)
    if form == "npy":
        from hbae.io.npy import open_npy

        return open_npy(path)
    if form == "raw":
        from hbae.io.raw import open_raw

        return open_raw(*_raw_pair(path))
    return _open_hdf5(path)


def _open_object(source: Any) -> Field:
    import xarray as xr

    from hbae.io.dataset import open_dataset

    if isinstance(source, xr.Dataset | xr.DataArray):
        return open_dataset(source)
    raise FieldError(f"a source of type {type(source).__name__} cannot be opened: give a path, Dataset or DataArray")


def _open_hdf5(path: Path) -> Field:
    from hbae.io.hdf5 import is_netcdf4, open_hdf5
    from hbae.io.netcdf4_ import open_netcdf4

    try:
        if not is_netcdf4(path):
            return open_hdf5(path)
        try:
            return open_netcdf4(path)
        except InputError:
            raise
        except (FieldError, OSError):
            # Some libraries write types into netCDF-4 files that netCDF-C does not know (bool, float16).
            try:
                return open_hdf5(path)
            except FieldError:
                pass
            raise
    except FieldError as e:
        raise FieldError(f"{path}: {e}") from e
    except InputError:
        raise
    except OSError as e:
        raise FieldError(f"{path}: the file is damaged: {e}") from e


def detect(path: Path) -> str:
    """Tell ``zarr``, ``netcdf3``, ``hdf5``, ``npy`` or ``raw`` (a description, or a file that has one).

    Raises
    ------
    FieldError
        When it is none of them.
    """
    if path.is_dir():
        from hbae.io.zarr_ import is_zarr

        if is_zarr(path):
            return "zarr"
        raise FieldError(f"{path}: a folder that is no Zarr store")
    described = path.suffix.lower() in (".yaml", ".yml") or _raw_pair(path)[1] is not None
    # Raw bytes may look like anything, so a description decides where the suffix names no other format.
    if described and SUFFIXES.get(path.suffix.lower(), "raw") == "raw" and path.is_file():
        return "raw"
    with path.open("rb") as f:
        head = f.read(8)
        if head[:3] == b"CDF" and head[3:4] in (b"\x01", b"\x02", b"\x05"):
            return "netcdf3"
        if head[:6] == b"\x93NUMPY":
            return "npy"
        # HDF5 allows a user block before its signature.
        at, size = 512, path.stat().st_size
        while head != _HDF5 and at < min(size, 1 << 26):
            f.seek(at)
            head = f.read(8)
            at *= 2
    if head == _HDF5:
        return "hdf5"
    raise FieldError(f"{path}: unknown format (a raw binary file needs a description: {path.name}.yaml beside it)")


def _raw_pair(path: Path) -> tuple[Path, Path | None]:
    if path.suffix.lower() in (".yaml", ".yml"):
        return path, None
    for suffix in (".yaml", ".yml"):
        beside = path.with_name(path.name + suffix)
        if beside.is_file():
            return beside, path
    return path, None
