# SPDX-License-Identifier: MIT
"""Worker processes that live as long as one run; what they give comes in order and is the same for any number."""

from __future__ import annotations

import os
import pickle
import signal
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any

from threadpoolctl import threadpool_limits

from hbae.processes import WorkerPool

MOST_WORKERS = 8
_loaded: dict[str, Any] = {}


def usable_cores() -> int:
    """Give the number of worker processes that is taken where none is asked for: the cores at hand, at most 8.

    ``OMP_NUM_THREADS`` limits it too.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, min(cores, MOST_WORKERS, int(asked) if asked.isdigit() else cores))


class Workers:
    """Runs functions on worker processes that start when first needed; with a count of 1, in this process.

    Parameters
    ----------
    count : int, optional
        Processes; by default :func:`usable_cores`.
    """

    def __init__(self, count: int | None = None) -> None:
        self.count = count or usable_cores()
        self._pool: WorkerPool | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._shared = 0

    def map(
        self, function: Callable[..., Any], shared: Any, items: Iterable[tuple[Any, ...]], *, alone: bool = False
    ) -> Iterator[Any]:
        """Give ``function(shared, *item)`` for every item, in order; at most two items per worker wait in memory.

        ``function`` is a module's own; ``shared`` goes to each worker once. ``alone``: in this process, where the work
        is less than the start of a process.
        """
        if self.count == 1 or alone:
            for item in items:
                yield function(shared, *item)
            return
        pool, place = self._start(), self._share(shared)
        waiting: deque[Future[Any]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(_call, place, function, item))
                if len(waiting) > 2 * self.count:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BaseException:
            self.kill()
            raise
        finally:
            Path(place).unlink(missing_ok=True)

    def _start(self) -> WorkerPool:
        if self._pool is None:
            self._pool = WorkerPool(self.count, _prepare)
        return self._pool

    def _share(self, shared: Any) -> str:
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="hbae-")
        self._shared += 1
        place = Path(self._folder.name) / str(self._shared)
        with place.open("wb") as f:
            pickle.dump(shared, f, protocol=pickle.HIGHEST_PROTOCOL)
        return str(place)

    def kill(self) -> None:
        """End the workers at once: what they are at is of no use any more."""
        if self._pool is not None:
            self._pool.kill()
        self.close()

    def close(self) -> None:
        """End the workers when they are done."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self.kill()


def _prepare() -> None:
    # Ctrl-C is the parent's business: it cancels the work and removes what was written.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _call(place: str, function: Callable[..., Any], item: tuple[Any, ...]) -> Any:
    if place not in _loaded:
        _loaded.clear()
        with Path(place).open("rb") as f:
            _loaded[place] = pickle.load(f)
    with threadpool_limits(1):
        return function(_loaded[place], *item)
