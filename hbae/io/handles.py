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
        self._pid = 0

    def get(self) -> Any:
        """Give the open file; hold the library lock while using it."""
        if self._file is None or self._pid != os.getpid():
            self._file, self._pid = self._opener(self.path), os.getpid()
        return self._file

    def close(self) -> None:
        """Close the file now; the next read opens it again."""
        if self._file is not None and self._pid == os.getpid():
            with LIBRARY_LOCK:
                self._file.close()
        self._file = None

    def __del__(self) -> None:
        # Left to the collector, netCDF4 closes files while it opens others, and crashes.
        with suppress(Exception):
            self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_opener": self._opener, "_file": None, "_pid": 0}


@dataclass(frozen=True)
class FileSource:
    """What a lazy variable of an open file knows of itself; its children read."""

    handle: Handle
    path: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    storage: tuple[int, ...] | None = None
