# SPDX-License-Identifier: MIT
"""Ranks under MPI: how they are found, talk, and write one file.

Without a launcher there is one process and mpi4py is not loaded.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from hbae.errors import BatchError, MissingExtraError, OutputError
from hbae.ranks.team import FileTeam, Solo, end_all

T = TypeVar("T")

# How launchers tell the number of ranks: Open MPI, MPICH and Slurm's PMI-2, MVAPICH, Slurm's steps.
SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS")
SHORT, LONG = 2e-4, 5e-3


class MpiTeam:
    """The ranks of a communicator of mpi4py."""

    def __init__(self, comm: Any) -> None:
        self.comm = comm
        self.rank, self.size = int(comm.rank), int(comm.size)
        self.failure: BaseException | None = None

    def gather(self, value: T) -> list[T] | None:
        """Give the root everybody's value, in the order of ranks."""
        self._meet()
        values: list[T] | None = self.comm.gather(value, root=0)
        return values

    def share(self, value: T) -> T:
        """Give everybody the root's value."""
        self._meet()
        shared: T = self.comm.bcast(value, root=0)
        return shared

    def below(self, counts: Sequence[int]) -> tuple[list[int], list[int]]:
        """Give sums of counts over the ranks below this one, and over all ranks."""
        self._meet()
        add = _add_lists
        lower: list[int] | None = self.comm.exscan(list(counts), op=add)
        totals: list[int] = self.comm.allreduce(list(counts), op=add)
        return lower if lower is not None else [0] * len(counts), totals

    def _meet(self) -> None:
        """Wait for all ranks without keeping a core busy, as a blocking call would."""
        request, delay = self.comm.Ibarrier(), SHORT
        while not request.Test():
            time.sleep(delay)
            delay = min(delay * 1.2, LONG)

    def write_pieces(self, path: Path, pieces: Iterable[tuple[int, bytes]], rounds: int) -> None:
        """Write (offset, bytes) of every rank into one file that is there, in as many collective rounds.

        A rank that fails takes part to the end, so that no other waits for it.

        Raises
        ------
        OutputError
            When MPI could not write a piece of this rank.
        """
        from mpi4py import MPI

        self._meet()
        failure: Exception | None = None
        left, status = iter(pieces), MPI.Status()
        file = MPI.File.Open(self.comm, os.fspath(path), MPI.MODE_WRONLY)
        for _ in range(rounds):
            offset, data = 0, b""
            try:
                if failure is None:
                    offset, data = next(left, (0, b""))
            except Exception as e:
                failure = e
            try:
                file.Write_at_all(offset, data, status)
                if status.Get_count(MPI.BYTE) != len(data):
                    failure = failure or OutputError(f"{path}: fewer bytes were written than given; is the disk full?")
            except MPI.Exception as e:
                failure = failure or OutputError(f"{path}: MPI could not write: {e}; is the disk full?")
        file.Sync()
        file.Close()
        if failure is not None:
            raise failure

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


def _add_lists(a: list[int], b: list[int]) -> list[int]:
    return [x + y for x, y in zip(a, b, strict=True)]


def launched_size(environment: Mapping[str, str] = os.environ) -> int:
    """Give the number of ranks that a launcher started, 1 without one."""
    for name in SIZES:
        if environment.get(name, "").isdecimal():
            return int(environment[name])
    return 1


def join() -> FileTeam:
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


@contextmanager
def team_of(comm: Any) -> Iterator[FileTeam]:
    """Give the team of a communicator of mpi4py (None: this process alone); all its ranks must enter.

    An exception that not all ranks raise together ends them all, as the others would wait forever. A team is given
    back as it is; who made it sees to its end.
    """
    if isinstance(comm, Solo | MpiTeam):
        yield comm
        return
    if comm is None or comm.size == 1:
        yield Solo()
        return
    own = comm.Dup()
    team = MpiTeam(own)
    try:
        yield team
    except BaseException as e:
        end_all(team, e)
        raise
    own.Free()
