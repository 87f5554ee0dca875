# SPDX-License-Identifier: MIT
"""The ranks of a run as one team: how they are found, agree, and end together.

Without a launcher there is one process and mpi4py is not loaded.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any, Protocol, TypeVar

from hbae.errors import BatchError, HbaeError, MissingExtraError

T = TypeVar("T")

# How launchers tell the number of ranks: Open MPI, MPICH and Slurm's PMI-2, MVAPICH, Slurm's steps.
SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS")
SHORT, LONG = 2e-4, 5e-3


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

    def abort(self, code: int) -> None:
        """Nothing to end."""


class MpiTeam:
    """The ranks of ``MPI.COMM_WORLD``."""

    def __init__(self, comm: Any) -> None:
        self.comm = comm
        self.rank, self.size = int(comm.rank), int(comm.size)
        self.failure: BaseException | None = None

    def gather(self, value: T) -> list[T] | None:
        """Give the root everybody's value, in the order of ranks."""
        values: list[T] | None = self.comm.gather(value, root=0)
        return values

    def share(self, value: T) -> T:
        """Give everybody the root's value."""
        shared: T = self.comm.bcast(value, root=0)
        return shared

    def abort(self, code: int) -> None:
        """End all ranks at once."""
        self.comm.Abort(code)

    def send(self, value: Any, to: int, tag: int) -> None:
        """Send a value to a rank."""
        self.comm.send(value, dest=to, tag=tag)

    def poll(self, tag: int) -> tuple[int, Any] | None:
        """Give the sender and the value of a message that is there, or None."""
        from mpi4py import MPI

        status = MPI.Status()
        message = self.comm.improbe(source=MPI.ANY_SOURCE, tag=tag, status=status)
        return None if message is None else (status.Get_source(), message.recv())

    def receive(self, tag: int) -> Any:
        """Wait for a message without keeping a core busy, as a blocking receive would."""
        delay = SHORT
        while (found := self.poll(tag)) is None:
            time.sleep(delay)
            delay = min(delay * 1.2, LONG)
        return found[1]

    @property
    def threaded(self) -> bool:
        """Tell whether the MPI library lets another thread than the main one call it."""
        from mpi4py import MPI

        return bool(MPI.Query_thread() >= MPI.THREAD_SERIALIZED)


def launched_size(environment: Mapping[str, str] = os.environ) -> int:
    """Give the number of ranks that a launcher started, 1 without one."""
    for name in SIZES:
        if environment.get(name, "").isdecimal():
            return int(environment[name])
    return 1


def join() -> Team:
    """Give the team that this process is part of.

    Raises
    ------
    MissingExtraError
        When a launcher started several ranks and mpi4py is not there.
    BatchError
        When mpi4py does not see them: each rank would do all the work.
    """
    size = launched_size()
    if size == 1 and "PMIX_NAMESPACE" not in os.environ:
        return Solo()
    if find_spec("mpi4py") is None:
        if size == 1:
            return Solo()
        raise MissingExtraError("mpi4py", "mpi")
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as e:
        raise BatchError(f"mpi4py finds no MPI library: {e}") from e
    if MPI.COMM_WORLD.size < size:
        raise BatchError(
            f"the launcher started {size} ranks, mpi4py sees {MPI.COMM_WORLD.size}: "
            "launcher and MPI library do not belong together"
        )
    return MpiTeam(MPI.COMM_WORLD) if MPI.COMM_WORLD.size > 1 else Solo()


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


def end_all(team: Team, error: BaseException) -> None:
    """End the other ranks, unless all of them have raised the same: a rank that left would make them wait forever."""
    if team.size == 1 or error is team.failure:
        return
    code = error.code if isinstance(error, SystemExit) else getattr(error, "exit_code", 1)
    if not isinstance(error, SystemExit):
        logging.getLogger("hbae").error("rank %d: %s: %s; all ranks end", team.rank, type(error).__name__, error)
    team.abort(code if isinstance(code, int) else 1)
