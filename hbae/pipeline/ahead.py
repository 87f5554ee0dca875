# SPDX-License-Identifier: MIT
"""Runs a function on threads, ahead of the one who takes the results: decoding is done outside the interpreter."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from threadpoolctl import threadpool_limits

from hbae.errors import ConfigError

_R = TypeVar("_R")


def ahead(function: Callable[..., _R], items: Iterable[tuple[Any, ...]], threads: int) -> Iterator[_R]:
    """Give ``function(*item)`` for every item, in order; at most one more than ``threads`` are under way or waiting.

    What an item raises is raised in its place, and the rest is left out.

    Raises
    ------
    ConfigError
        For less than one thread.
    """
    if threads < 1:
        raise ConfigError("threads: must be at least 1")
    if threads == 1:
        for item in items:
            yield function(*item)
        return
    waiting: deque[Future[_R]] = deque()
    # Products on several threads each would wait for each other.
    with threadpool_limits(1), ThreadPoolExecutor(threads, "hbae") as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, *item))
                if len(waiting) > threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
