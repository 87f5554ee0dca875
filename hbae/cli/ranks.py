# SPDX-License-Identifier: MIT
"""Commands under a launcher of ranks: who takes part, who speaks, and how all end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from hbae.cli.output import Output
from hbae.errors import ConfigError

if TYPE_CHECKING:
    from hbae.ranks import FileTeam, Team


def team_for(ranks: bool | None) -> FileTeam:
    """Give the team that shares one file: all ranks after ``--ranks``, else this process alone.

    Raises
    ------
    ConfigError
        When several ranks were started and it was not said what they are for: all would write the same output.
    """
    from hbae.ranks import Solo, join, launched_size

    if ranks:
        return join()
    if ranks is None and launched_size() > 1:
        raise ConfigError(
            f"{launched_size()} ranks were started: give --ranks to let them share this file, "
            "or --no-ranks if each has a file of its own"
        )
    return Solo()


def start_output(team: Team, as_json: bool, quiet: bool, verbose: int) -> Output:
    """Give the output of a command; only the root speaks, the others would say the same."""
    return Output.start(as_json and team.rank == 0, quiet or team.rank > 0, verbose)


@contextmanager
def ended_together(team: Team) -> Iterator[None]:
    """End all ranks when one fails, and leave the telling to the root where all of them have raised the same."""
    from hbae.ranks import end_all

    try:
        yield
    except BaseException as e:
        end_all(team, e)
        if team.rank > 0:
            raise typer.Exit(getattr(e, "exit_code", 1)) from None
        raise
