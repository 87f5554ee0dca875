# SPDX-License-Identifier: MIT
"""The ranks of a run as one team: how they agree, share work, and end together."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from hbae.errors import BatchError, HbaeError

T = TypeVar("T")


class Team(Protocol):
    """Ranks 0 to ``size`` - 1; ``failure`` is what all of them have raised together."""

    rank: int
    size: int
    failure: BaseException | None

    def gather(self, value: T) -> list[T] | None:
        """Give the root everybody's value, in the order of ranks."""

    def share(self, value: T) -> T:
        """Give everybody the root's value."""

    def abort(self, code: int) -> None:
        """End all ranks at once."""


class FileTeam(Team, Protocol):
    """Ranks that can write one file together."""

    def below(self, counts: Sequence[int]) -> tuple[list[int], list[int]]:
        """Give sums of counts over the ranks below this one, and over all ranks."""

    def write_pieces(self, path: Path, pieces: Iterable[tuple[int, bytes]], rounds: int) -> None:
        """Write (offset, bytes) of every rank into one file that is there, in as many collective rounds."""


class Solo:
    """One process alone."""

    rank, size = 0, 1

    def __init__(self) -> None:
        self.failure: BaseException | None = None

    def gather(self, value: T) -> list[T] | None:
        """Give a list of one."""
        return [value]

    def share(self, value: T) -> T:
        """Give the value back."""
        return value

    def below(self, counts: Sequence[int]) -> tuple[list[int], list[int]]:
        """Give zeros, and the counts back."""
        return [0] * len(counts), list(counts)

    def write_pieces(self, path: Path, pieces: Iterable[tuple[int, bytes]], rounds: int) -> None:
        """Write (offset, bytes) into a file that is there."""
        with path.open("r+b") as f:
            for offset, data in pieces:
                f.seek(offset)
                f.write(data)

    def abort(self, code: int) -> None:
        """Nothing to end."""


def agreed(team: Team, job: Callable[[], T]) -> T:
    """Run a job on the root; all ranks get its result, or all raise its failure.

    Raises
    ------
    HbaeError, OSError
        What the job raised; on other ranks a :class:`BatchError` with its message and exit code.
    """
    value, error = None, None
    if team.rank == 0:
        try:
            value = job()
        except (HbaeError, OSError) as e:
            error = e
    told = (str(error), getattr(error, "exit_code", 1)) if error is not None else None
    told, value = team.share((told, value))
    if told is None:
        return value  # type: ignore[return-value]
    if error is None:
        error = BatchError(told[0])
        error.exit_code = told[1]
    team.failure = error
    raise error


def together(team: Team, job: Callable[[], T]) -> T:
    """Run a job on every rank; each gets its own result, or all raise the failure of the lowest rank that has one.

    The job must not wait for other ranks.

    Raises
    ------
    Exception
        What the job raised on this rank, if it is the lowest; else a :class:`BatchError` that names the rank, its host
        and what it raised, with its exit code.
    """
    if team.size == 1:
        return job()
    value, error = None, None
    try:
        value = job()
    except Exception as e:
        error = e
    mine = (_text(error), getattr(error, "exit_code", 1), socket.gethostname()) if error is not None else None
    failures = [(rank, *t) for rank, t in enumerate(team.gather(mine) or ()) if t is not None]
    first = team.share(failures[0] if failures else None)
    if first is None:
        return value  # type: ignore[return-value]
    rank, text, code, host = first
    if rank != team.rank or error is None:
        told = BatchError(f"rank {rank} ({host}): {text}")
        told.exit_code, error = code, told
    team.failure = error
    raise error


def _text(e: Exception) -> str:
    return str(e) if isinstance(e, HbaeError | OSError) else f"{type(e).__name__}: {e}"


def share_of(team: Team, count: int, *, ahead: int = 0) -> range:
    """Give the numbers, out of ``count``, that are this rank's, or the rank's so many ahead (around the end).

    Shares are runs in the order of ranks, nearly equally long.
    """
    rank = (team.rank + ahead) % team.size
    return range(count * rank // team.size, count * (rank + 1) // team.size)


def total_of(team: Team, value: int) -> int:
    """Give everybody the sum of all ranks' values."""
    return team.share(sum(team.gather(value) or ()))


def end_all(team: Team, error: BaseException) -> None:
    """End the other ranks, unless all of them have raised the same: a rank that left would make them wait forever."""
    if team.size == 1 or error is team.failure:
        return
    code: Any = error.code if isinstance(error, SystemExit) else getattr(error, "exit_code", 1)
    if not isinstance(error, SystemExit):
        logging.getLogger("hbae").error("rank %d: %s: %s; all ranks end", team.rank, type(error).__name__, error)
    team.abort(code if isinstance(code, int) else 1)
