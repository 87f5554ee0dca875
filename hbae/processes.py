# SPDX-License-Identifier: MIT
"""Worker processes that start without the caller's script."""

from __future__ import annotations

import multiprocessing
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from types import ModuleType
from typing import Any

_start = threading.RLock()


class WorkerPool(ProcessPoolExecutor):
    """Spawned processes that never run the caller's script, so that it needs no ``if __name__`` guard.

    Functions and arguments must come from modules other than the script itself.
    """

    def __init__(self, workers: int, initializer: Callable[..., object] | None = None, *initargs: Any) -> None:
        context = multiprocessing.get_context("spawn")
        super().__init__(workers, mp_context=context, initializer=initializer, initargs=initargs)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Submit a call; processes start here, when they are first needed."""
        with _without_main():
            return super().submit(fn, *args, **kwargs)

    def kill(self) -> None:
        """End the workers of this pool at once; their work is lost."""
        for worker in list((self._processes or {}).values()):
            worker.kill()


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
