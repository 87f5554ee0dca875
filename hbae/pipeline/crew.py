# SPDX-License-Identifier: MIT
"""The workers of all ranks of a team behind one interface, for what the root decides: it leads, the others serve."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from hbae.pipeline.workers import Workers
from hbae.ranks import Team, agreed

T = TypeVar("T")
_Job = tuple[Callable[..., Any], Any, list[tuple[Any, ...]]]


class Mapper(Protocol):
    """What runs functions over items: the workers of one process, or of all ranks."""

    def map(
        self, function: Callable[..., Any], shared: Any, items: Iterable[tuple[Any, ...]], *, alone: bool = False
    ) -> Iterator[Any]:
        """Give ``function(shared, *item)`` for every item, in order."""


@dataclass(frozen=True)
class _Failed:
    error: Exception


def led(team: Team, workers: Workers, job: Callable[[Mapper], T]) -> T:
    """Run a job on the root with the workers of all ranks; all get its result, or all raise its failure.

    Raises
    ------
    HbaeError, OSError
        What the job raised; on other ranks a :class:`BatchError` with its message and exit code.
    """
    if team.size == 1:
        return job(workers)
    crew = _Crew(team, workers)
    if team.rank:
        crew.serve()
    return agreed(team, lambda: crew.lead(job))


class _Crew:
    """Deals items out in turn; what they give comes back in order, failures too."""

    def __init__(self, team: Team, workers: Workers) -> None:
        self._team, self._workers = team, workers

    def lead(self, job: Callable[[Mapper], T]) -> T:
        """Run the job on the root and dismiss the others."""
        try:
            value = job(self)
        except Exception:
            self._team.share(None)
            raise
        self._team.share(None)
        return value

    def serve(self) -> None:
        """Work for the root until it dismisses this rank."""
        while (job := self._team.share(None)) is not None:
            self._work(job)

    def map(
        self, function: Callable[..., Any], shared: Any, items: Iterable[tuple[Any, ...]], *, alone: bool = False
    ) -> Iterator[Any]:
        """Give ``function(shared, *item)`` for every item, in order; only the root calls it."""
        if alone:
            return self._workers.map(function, shared, items, alone=True)
        return iter(self._spread((function, shared, list(items))))

    def _spread(self, job: _Job) -> list[Any]:
        self._team.share(job)
        by_rank = self._work(job) or []
        found = [by_rank[i % self._team.size][i // self._team.size] for i in range(len(job[2]))]
        for value in found:
            if isinstance(value, _Failed):
                raise value.error
        return found

    def _work(self, job: _Job) -> list[list[Any]] | None:
        """Do this rank's items; the root gets those of all."""
        function, shared, items = job
        mine = items[self._team.rank :: self._team.size]
        found: list[Any] = []
        try:
            found.extend(self._workers.map(function, shared, mine, alone=len(mine) == 1))
        except Exception as e:
            found += [_Failed(e)] * (len(mine) - len(found))
        return self._team.gather(found)
