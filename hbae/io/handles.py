# SPDX-License-Identifier: MIT
"""Open files that sources share: opened at the first read, once per process, closed with their last user."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

# Neither netCDF-C nor HDF5 may be entered by two threads at once.
LIBRARY_LOCK = threading.RLock()
CACHE_BYTES = 1 << 20
"""Chunk cache of a variable. Boxes follow the stored chunks; the libraries' own 8 to 64 MiB for each of many variables
would be gigabytes."""

# Process, opener, device, inode, size, time of change.
_Key = tuple[int, Callable[[Path], Any], int, int, int, int]
# Open files and how many handles use each. HDF5 crashes where a file with strings is opened twice and one is closed
# (Unidata/netcdf4-python#1444).
_OPEN: dict[_Key, tuple[Any, int]] = {}


class Handle:
    """A file that opens itself when it is first needed and again in every new process.

    Parameters
    ----------
    path
        Of the file.
    opener
        A function at module level (so that handles pickle) from the path to an open file.
    """

    def __init__(self, path: Path, opener: Callable[[Path], Any]) -> None:
        self.path, self._opener = Path(path), opener
        self._file: Any = None
        self._key: _Key | None = None

    def get(self) -> Any:
        """Give the open file; hold the library lock while using it."""
        with LIBRARY_LOCK:
            if self._key is None or self._key[0] != os.getpid():
                there = self.path.stat()
                key = (os.getpid(), self._opener, there.st_dev, there.st_ino, there.st_size, there.st_mtime_ns)
                if key not in _OPEN:
                    _OPEN[key] = self._opener(self.path), 0
                self._file, users = _OPEN[key]
                _OPEN[key] = self._file, users + 1
                self._key = key
        return self._file

    def close(self) -> None:
        """Close the file now, unless others use it; the next read opens it again."""
        with LIBRARY_LOCK:
            key, self._key, self._file = self._key, None, None
            if key is None or key[0] != os.getpid():
                return
            file, users = _OPEN.pop(key)
            if users > 1:
                _OPEN[key] = file, users - 1
            else:
                file.close()

    def __del__(self) -> None:
        # Left to the collector, netCDF4 closes files while it opens others, and crashes.
        with suppress(Exception):
            self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_opener": self._opener, "_file": None, "_key": None}


@dataclass(frozen=True)
class FileSource:
    """What a lazy variable of an open file knows of itself; its children read."""

    handle: Handle
    path: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    storage: tuple[int, ...] | None = None
