# SPDX-License-Identifier: MIT
"""Encodes chunks one after the other or in worker processes; the bytes are the same."""

from __future__ import annotations

import multiprocessing
import signal
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from threadpoolctl import threadpool_limits

from hbae.arrays import Array
from hbae.bound import Target
from hbae.exact import get_backend
from hbae.pipeline.encode import BlockEncoder, Coded, quiet
from hbae.pipeline.plan import GroupPlan
from hbae.pipeline.regions import encode_by_region

_work: dict[str, Any] = {}


@dataclass(frozen=True)
class Job:
    """Everything about a group's chunks that does not change from chunk to chunk."""

    plan: GroupPlan
    targets: list[Target]
    model: BlockEncoder | None
    backend: str
    lossless: bool
    fine: int = 0

    def run(self, raw: Array, invalid: Array, targets: list[Target]) -> Coded:
        """Encode one chunk on one thread (the number of threads must not show in the bytes).

        ``targets``: the job's, with the points of regions.
        """
        with quiet(), threadpool_limits(1):
            return encode_by_region(
                raw,
                invalid,
                self.plan,
                targets,
                model=self.model,
                backend=get_backend(self.backend),
                lossless=self.lossless,
                fine=self.fine,
            )


def encode_all(job: Job, chunks: Iterable[tuple[Array, Array, list[Target]]], workers: int) -> Iterator[Coded]:
    """Give the coded chunks in order; at most two per worker wait in memory."""
    if workers <= 1:
        for chunk in chunks:
            yield job.run(*chunk)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_set_job, initargs=(job,)) as pool:
        waiting: deque[Future[Coded]] = deque()
        try:
            for chunk in chunks:
                with _without_main():
                    waiting.append(pool.submit(_run, *chunk))
                if len(waiting) > 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BaseException:
            # Leaving the pool waits for its workers: end them, their work is of no use any more.
            for worker in multiprocessing.active_children():
                worker.kill()
            raise


@contextmanager
def _without_main() -> Iterator[None]:
    """Hide the caller's script from workers that start now.

    They would run it again from the top, and a script without an ``if __name__`` guard would start more workers.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _set_job(job: Job) -> None:
    # Ctrl-C is the parent's business: it cancels the work and removes what was written.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _work["job"] = job


def _run(raw: Array, invalid: Array, targets: list[Target]) -> Coded:
    result: Coded = _work["job"].run(raw, invalid, targets)
    return result
