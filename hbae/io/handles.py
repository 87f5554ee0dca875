# SPDX-License-Identifier: MIT
"""Open files that sources share: opened at the first read, once per process, closed with their last user."""

from __future__ import annotations

import gc
import os
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hbae.errors import InputError

# Neither netCDF-C nor HDF5 may be entered by two threads at once.
LIBRARY_LOCK = threading.RLock()
CACHE_BYTES = 1 << 20
"""Chunk cache of a variable. Boxes follow the stored chunks; the libraries' own 8 to 64 MiB for each of many variables
would be gigabytes."""

# Process, opener, device, inode.
_Key = tuple[int, Callable[[Path], Any], int, int]


@dataclass
class _Open:
    """An open file, its size and time of change when it was opened, and how many handles use it."""

    file: Any
    stamp: tuple[int, int]
    users: int = 0


# HDF5 crashes where a file with strings is opened twice and one is closed (Unidata/netcdf4-python#1444).
_OPEN: dict[_Key, _Open] = {}
# Keys of handles that were dropped while another thread was in a library.
_DROPPED: deque[_Key] = deque()


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
        """Give the open file; hold the library lock while using it.

        Raises
        ------
        InputError
            When it has changed while others have it open: HDF5 would go on with what it knows of it.
        """
        with LIBRARY_LOCK:
            _close_dropped()
            if self._key is None or self._key[0] != os.getpid():
                self._file, self._key = self._open()
        return self._file

    def _open(self) -> tuple[Any, _Key]:
        there = self.path.stat()
        key = (os.getpid(), self._opener, there.st_dev, there.st_ino)
        stamp = (there.st_size, there.st_mtime_ns)
        if key in _OPEN and _OPEN[key].stamp != stamp:
            # What holds it may be waiting for the collector only.
            gc.collect()
            _close_dropped()
        if key not in _OPEN:
            _OPEN[key] = _Open(self._opener(self.path), stamp)
        found = _OPEN[key]
        if found.stamp != stamp:
            raise InputError(f"{self.path}: the file has changed while it is open")
        found.users += 1
        return found.file, key

    def close(self) -> None:
        """Close the file now, unless others use it; the next read opens it again."""
        with LIBRARY_LOCK:
            key, self._key, self._file = self._key, None, None
            if key is not None:
                _leave(key)
            _close_dropped()

    def __del__(self) -> None:
        # The collector runs anywhere, also where another thread waits for what this one holds.
        if self._key is None:
            return
        _DROPPED.append(self._key)
        self._file = None
        if LIBRARY_LOCK.acquire(blocking=False):
            try:
                with suppress(Exception):
                    _close_dropped()
            finally:
                LIBRARY_LOCK.release()

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_opener": self._opener, "_file": None, "_key": None}


def _close_dropped() -> None:
    while _DROPPED:
        _leave(_DROPPED.popleft())


def _leave(key: _Key) -> None:
    """Close a file whose last user leaves; what another process opened is not ours to close."""
    if key[0] != os.getpid():
        return
    found = _OPEN[key]
    found.users -= 1
    if not found.users:
        del _OPEN[key]
        found.file.close()


@dataclass(frozen=True)
class FileSource:
    """What a lazy variable of an open file knows of itself; its children read."""

    handle: Handle
    path: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    storage: tuple[int, ...] | None = None
