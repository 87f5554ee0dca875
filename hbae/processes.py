# SPDX-License-Identifier: MIT
"""Processes of our own: workers that start without the caller's script, and memory that is used again."""

from __future__ import annotations

import ctypes
import multiprocessing
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from types import ModuleType
from typing import Any

_start = threading.RLock()
# Parameters of glibc's mallopt: from where on an allocation is a mapping of its own, how much free memory is kept.
_MMAP_THRESHOLD, _TRIM_THRESHOLD = (-3, 1 << 30), (-1, (1 << 31) - 1)


class WorkerPool(ProcessPoolExecutor):
    """Spawned processes that never run the caller's script, so that it needs no ``if __name__`` guard.

    Functions and arguments must come from modules other than the script itself.
    """

    def __init__(self, workers: int, initializer: Callable[..., object] | None = None, *initargs: Any) -> None:
        context = multiprocessing.get_context("spawn")
        super().__init__(workers, mp_context=context, initializer=_begin, initargs=(initializer, initargs))

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Submit a call; processes start here, when they are first needed."""
        with _without_main():
            return super().submit(fn, *args, **kwargs)

    def kill(self) -> None:
        """End the workers of this pool at once; their work is lost."""
        for worker in list((self._processes or {}).values()):
            worker.kill()


def reuse_memory() -> None:
    """Keep freed memory for the next array, where the C library is glibc: a process of our own asks again at once.

    Memory that the system hands out is cleared page by page, each time anew.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(*_TRIM_THRESHOLD)
        mallopt(*_MMAP_THRESHOLD)


def _begin(initializer: Callable[..., object] | None, initargs: tuple[Any, ...]) -> None:
    """Start in a worker."""
    reuse_memory()
    if initializer is not None:
        initializer(*initargs)


@contextmanager
def _without_main() -> Iterator[None]:
    """Hide the caller's script from processes that start now: they would run it again from the top."""
    with _start:
        main = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = main
