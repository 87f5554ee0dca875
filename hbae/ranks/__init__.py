# SPDX-License-Identifier: MIT
"""The processes that a launcher started, as one team; mpi4py is loaded only where there is more than one."""

from hbae.ranks.alike import Machine, check_versions, fair_threads, make_machine, place_of, seat_ranks
from hbae.ranks.mpi import MpiTeam, join, launched_size, team_of
from hbae.ranks.team import FileTeam, Solo, Team, agreed, end_all, share_of, together, total_of

__all__ = [
    "FileTeam",
    "Machine",
    "MpiTeam",
    "Solo",
    "Team",
    "agreed",
    "check_versions",
    "end_all",
    "fair_threads",
    "join",
    "launched_size",
    "make_machine",
    "place_of",
    "seat_ranks",
    "share_of",
    "team_of",
    "together",
    "total_of",
]
