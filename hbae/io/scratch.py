# SPDX-License-Identifier: MIT
"""An array on disk for boxes that come in another order than a file wants them."""

from __future__ import annotations

import os
import tempfile
from typing import Any

import numpy as np

from hbae.arrays import Array, Box
from hbae.errors import FieldError
from hbae.io.flat import Layout, c_strides
from hbae.ranks import Solo, Team, agreed, together


class ScratchArray:
    """A zero-filled array in a file without a name: it vanishes however the process ends.

    Parameters
    ----------
    shape, dtype
        As of an array; no objects.
    directory
        Where the file lies; the system's temporary folder by default.
    team
        Ranks that share the file: what one writes, the others read after they have met.

    Raises
    ------
    FieldError
        For object types; of a team also when a rank does not see the folder.
    """

    storage: tuple[int, ...] | None = None

    def __init__(
        self,
        shape: tuple[int, ...],
        dtype: np.dtype[Any] | str,
        directory: str | os.PathLike[str] | None = None,
        team: Team | None = None,
    ) -> None:
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        if self.dtype.hasobject:
            raise FieldError("a scratch array cannot hold objects")
        self.shape = tuple(int(n) for n in shape)
        self._layout = Layout(0, self.shape, self.dtype, c_strides(self.shape, self.dtype.itemsize))
        self._fd = -1
        nbytes = int(np.prod(self.shape, dtype=object)) * self.dtype.itemsize
        self._fd = _shared(directory, nbytes, team or Solo())

    def read(self, box: Box) -> Array:
        """Give one box."""
        return self._layout.read(self._open(), box)

    def write(self, box: Box, array: Array) -> None:
        """Put one box."""
        self._layout.write(self._open(), box, array)

    def _open(self) -> int:
        if self._fd < 0:
            raise FieldError("the scratch array is closed")
        return self._fd

    def close(self) -> None:
        """Give the disk space back; may be called twice."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)

    def __enter__(self) -> ScratchArray:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_fd", -1) >= 0:
            self.close()


def _shared(directory: str | os.PathLike[str] | None, nbytes: int, team: Team) -> int:
    """Make a file of zeros that all ranks have open, and that has no name any more."""

    def make() -> tuple[int, str]:
        fd, name = tempfile.mkstemp(prefix="hbae-", suffix=".scratch", dir=directory)
        try:
            os.ftruncate(fd, nbytes)
        except OSError:
            os.close(fd)
            os.unlink(name)
            raise
        return fd, name

    fd, name = agreed(team, make)
    try:
        if team.rank == 0:
            together(team, lambda: None)
        else:
            fd = together(team, lambda: _open_again(name))
    finally:
        if team.rank == 0:
            os.unlink(name)
    return fd


def _open_again(name: str) -> int:
    try:
        return os.open(name, os.O_RDWR)
    except OSError as e:
        raise FieldError(f"scratch: {name}: {e.strerror}; give a folder that all ranks see") from e
