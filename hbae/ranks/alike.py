# SPDX-License-Identifier: MIT
"""What each rank runs on; ranks whose bytes could differ are refused, cores are dealt out fairly."""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from hbae import __version__
from hbae.errors import BatchError
from hbae.ranks.team import Team, agreed

# The packages whose version can change an archive's bytes.
PACKAGES = ("numpy", "torch", "constriction", "zstandard")


@dataclass(frozen=True)
class Machine:
    """What a rank tells the others about itself before any work. ``omp``: its ``OMP_NUM_THREADS``."""

    rank: int
    host: str
    versions: dict[str, str]
    cores: tuple[int, ...]
    omp: str = ""


def make_machine(rank: int) -> Machine:
    """Describe this process."""
    return Machine(
        rank=rank,
        host=socket.gethostname(),
        versions={"hbae": __version__} | {p: _version(p) for p in PACKAGES},
        cores=tuple(sorted(os.sched_getaffinity(0))),
        omp=os.environ.get("OMP_NUM_THREADS", ""),
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def check_versions(machines: Sequence[Machine]) -> None:
    """Refuse ranks whose archives could differ.

    Raises
    ------
    BatchError
        When a version differs; it names the rank and its host.
    """
    first = machines[0]
    for m in machines:
        for name, have in m.versions.items():
            want = first.versions.get(name)
            if have != want:
                raise BatchError(f"rank {m.rank} ({m.host}) has {name} {have}, rank 0 ({first.host}) has {want}")


def fair_threads(machines: Sequence[Machine]) -> list[int]:
    """Give every rank its number of threads: ``OMP_NUM_THREADS``, else its cores, shared with the ranks on the same."""
    sharers = Counter((m.host, m.cores) for m in machines)
    return [_omp(m) or max(1, len(m.cores) // sharers[m.host, m.cores]) for m in machines]


def place_of(machines: Sequence[Machine], rank: int) -> int:
    """Give the number of a rank among those of its host."""
    host = next(m.host for m in machines if m.rank == rank)
    return sum(m.host == host and m.rank < rank for m in machines)


def _omp(machine: Machine) -> int:
    head = machine.omp.partition(",")[0].strip()
    return int(head) if head.isdecimal() else 0


def seat_ranks(team: Team, what: str) -> tuple[list[Machine], int]:
    """Check that all ranks run the same and are about the same; give their machines and this one's number of threads.

    Parameters
    ----------
    what : str
        A digest of all that must be equal on all ranks: input, options.

    Raises
    ------
    BatchError
        The same on all ranks, when a version or ``what`` differs; it names the rank and its host.
    """
    cards = team.gather((make_machine(team.rank), what))

    def judge() -> list[Machine]:
        machines = [m for m, _ in cards or ()]
        check_versions(machines)
        for m, digest in cards or ():
            if digest != what:
                raise BatchError(f"rank {m.rank} ({m.host}) has another input or other options than rank 0")
        return machines

    machines = agreed(team, judge)
    return machines, fair_threads(machines)[team.rank]
