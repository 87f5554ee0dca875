# SPDX-License-Identifier: MIT
"""Arrays on disk for boxes that come in another order than a file wants them."""

from __future__ import annotations

import os
import tempfile
from functools import partial
from typing import Any

import numpy as np

from hbae.arrays import Array, Box
from hbae.errors import FieldError
from hbae.io.flat import Layout, c_strides
from hbae.ranks import Solo, Team, agreed, together


class ScratchFile:
    """A file without a name: it vanishes however the process ends. Arrays lie in it one behind the other.

    Parameters
    ----------
    directory
        Where the file lies; the system's temporary folder by default.
    team
        Ranks that share the file: what one writes, the others read after they have met.

    Raises
    ------
    FieldError
        Of a team, when a rank does not see the folder.
    """

    def __init__(self, directory: str | os.PathLike[str] | None = None, team: Team | None = None) -> None:
        self._team, self._end = team or Solo(), 0
        self._fd = -1
        self._fd = _shared(directory, self._team)

    def array(self, shape: tuple[int, ...], dtype: np.dtype[Any] | str) -> ScratchArray:
        """Give room for an array, filled with zeros; all ranks of a team ask for the same ones, in the same order.

        Raises
        ------
        FieldError
            For object types, and when the file is closed.
        """
        kind = np.dtype(dtype)
        if kind.hasobject:
            raise FieldError("a scratch array cannot hold objects")
        lengths = tuple(int(n) for n in shape)
        layout = Layout(self._end, lengths, kind, c_strides(lengths, kind.itemsize))
        self._end += int(np.prod(lengths, dtype=object)) * kind.itemsize
        # Ranks that grew it for themselves might cut off what another one has written.
        agreed(self._team, partial(os.ftruncate, self.fd, self._end))
        return ScratchArray(self, layout)

    @property
    def fd(self) -> int:
        """The open file.

        Raises
        ------
        FieldError
            When it is closed.
        """
        if self._fd < 0:
            raise FieldError("the scratch file is closed")
        return self._fd

    def close(self) -> None:
        """Give the disk space back; may be called twice."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)

    def __enter__(self) -> ScratchFile:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_fd", -1) >= 0:
            self.close()


class ScratchArray:
    """An array in a scratch file, read and written box by box."""

    storage: tuple[int, ...] | None = None

    def __init__(self, file: ScratchFile, layout: Layout) -> None:
        self._file, self._layout = file, layout
        self.shape, self.dtype = layout.shape, layout.dtype

    def read(self, box: Box) -> Array:
        """Give one box."""
        return self._layout.read(self._file.fd, box)

    def write(self, box: Box, array: Array) -> None:
        """Put one box."""
        self._layout.write(self._file.fd, box, array)


def _shared(directory: str | os.PathLike[str] | None, team: Team) -> int:
    """Make an empty file that all ranks have open, and that has no name any more."""
    fd, name = agreed(team, partial(tempfile.mkstemp, prefix="hbae-", suffix=".scratch", dir=directory))
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
