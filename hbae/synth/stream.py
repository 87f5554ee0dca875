# SPDX-License-Identifier: MIT
"""A made-up data set as a stream of boxes, and its writer: memory holds one box, whatever the size of the file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hbae.arrays import Array, Box
from hbae.errors import ConfigError, FieldError, MissingExtraError, OutputExistsError

Piece = tuple[Box, Mapping[str, Array]]


@dataclass(frozen=True, kw_only=True)
class StreamVariable:
    """One variable of a stream: name, element type, attributes; ``fill`` marks invalid points (None: none)."""

    name: str
    units: str
    long_name: str
    dtype: str = "f4"
    fill: float | None = None


@dataclass(frozen=True, kw_only=True)
class Stream:
    """A data set that is made piece by piece; all variables share ``dims``.

    ``pieces()`` starts anew at every call and gives the same bits each time: boxes over all dims with the values of
    every variable there. ``coords`` maps a dimension to (values, units). ``seed`` and friends are in ``attrs``.
    """

    dims: Mapping[str, int]
    variables: tuple[StreamVariable, ...]
    coords: Mapping[str, tuple[Array, str]]
    pieces: Callable[[], Iterator[Piece]]
    count: int
    attrs: Mapping[str, str | int | float] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of all dimensions, in order."""
        return tuple(self.dims.values())

    @property
    def nbytes(self) -> int:
        """Raw bytes of all variables."""
        points = 1
        for n in self.shape:
            points *= n
        return points * sum(np.dtype(v.dtype).itemsize for v in self.variables)

    def whole(self) -> dict[str, Array]:
        """Give every variable as one array (small streams only: all of it is in memory)."""
        out = {v.name: np.empty(self.shape, v.dtype) for v in self.variables}
        for box, values in self.pieces():
            for name, x in values.items():
                out[name][box] = x
        return out


def write_stream(
    stream: Stream,
    path: str | os.PathLike[str],
    *,
    deflate: int = 0,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write a stream as NetCDF-4 under a temporary name and rename it: the file is complete or it does not exist.

    Parameters
    ----------
    deflate : int
        0 stores every variable contiguously; 1 to 9 is the zlib level of one storage chunk per step of the first axis.
    progress : callable, optional
        Called with (pieces done, pieces in all).

    Raises
    ------
    OutputExistsError
        If the file exists and ``overwrite`` is off.
    ConfigError
        For a deflate level outside 0 to 9.
    """
    if not 0 <= deflate <= 9:
        raise ConfigError(f"deflate: the level must be 0 to 9, not {deflate}")
    target = Path(path)
    if target.exists() and not overwrite:
        raise OutputExistsError(f"{target} exists")
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        _write(stream, part, deflate, progress)
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)
    return target


def _write(stream: Stream, part: Path, deflate: int, progress: Callable[[int, int], None] | None) -> None:
    try:
        import netCDF4
    except ImportError as e:
        raise MissingExtraError("netCDF4", "demo") from e
    with netCDF4.Dataset(part, "w", format="NETCDF4") as out:
        out.set_fill_off()
        for key, value in stream.attrs.items():
            out.setncattr(key, value)
        for name, size in stream.dims.items():
            out.createDimension(name, size)
        for name, (values, units) in stream.coords.items():
            coord = out.createVariable(name, values.dtype, (name,))
            coord.units = units
            coord[:] = values
        layout = {"contiguous": True} if not deflate else _chunked(stream, deflate)
        handles = {}
        for v in stream.variables:
            handle = out.createVariable(v.name, v.dtype, tuple(stream.dims), fill_value=v.fill, **layout)
            handle.units, handle.long_name = v.units, v.long_name
            handle.set_auto_maskandscale(False)
            handle.set_var_chunk_cache(0) if deflate else None
            handles[v.name] = handle
        for done, (box, piece) in enumerate(stream.pieces(), 1):
            _check(stream, piece)
            for name, x in piece.items():
                handles[name][box] = x
            if progress is not None:
                progress(done, stream.count)


def _chunked(stream: Stream, deflate: int) -> dict[str, object]:
    """Give the storage of one chunk per step of the first axis, cut to at most 16 MiB."""
    chunk = [1, *stream.shape[1:]]
    for axis in range(1, len(chunk)):
        while chunk[axis] > 1 and 8 * int(np.prod(chunk)) > 16 << 20:
            chunk[axis] = -(-chunk[axis] // 2)
    return {"chunksizes": tuple(chunk), "compression": "zlib", "complevel": deflate, "shuffle": True}


def _check(stream: Stream, values: Mapping[str, Array]) -> None:
    names = {v.name for v in stream.variables}
    if set(values) != names:
        raise FieldError(f"a piece must hold every variable of the stream; differing: {sorted(set(values) ^ names)}")
