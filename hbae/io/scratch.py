# SPDX-License-Identifier: MIT
"""An array on disk for boxes that come in another order than a file wants them."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from hbae.arrays import Array, Box
from hbae.errors import FieldError
from hbae.io.flat import Layout, c_strides


class ScratchArray:
    """A zero-filled array in a file without a name: it vanishes however the process ends.

    Parameters
    ----------
    shape, dtype
        As of an array; no objects.
    directory
        Where the file lies; the system's temporary folder by default.

    Raises
    ------
    FieldError
        For object types.
    """

    storage: tuple[int, ...] | None = None

    def __init__(
        self, shape: tuple[int, ...], dtype: np.dtype[Any] | str, directory: str | os.PathLike[str] | None = None
    ) -> None:
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        if self.dtype.hasobject:
            raise FieldError("a scratch array cannot hold objects")
        self.shape = tuple(int(n) for n in shape)
        self._layout = Layout(0, self.shape, self.dtype, c_strides(self.shape, self.dtype.itemsize))
        self._fd = -1
        fd, name = tempfile.mkstemp(prefix="hbae-", suffix=".scratch", dir=directory)
        self._fd = fd
        Path(name).unlink()
        os.ftruncate(fd, int(np.prod(self.shape, dtype=object)) * self.dtype.itemsize)

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
