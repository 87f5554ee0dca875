# SPDX-License-Identifier: MIT
"""One batch from recipe to summary, on every rank."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from hbae import __version__
from hbae.batch.board import Board
from hbae.batch.folder import locked, sweep, weigh
from hbae.batch.items import Item, find_items
from hbae.batch.journal import NAME, Journal, read_journal
from hbae.batch.machine import Seat, check_alike, make_card, seats
from hbae.batch.recipe import Campaign, load_recipe
from hbae.batch.serve import run_queue
from hbae.batch.summary import Summary
from hbae.batch.work import Outcome, journal_line, work
from hbae.errors import HbaeError
from hbae.ranks import Team, agreed

Tell = Callable[[Outcome], None]


@dataclass(frozen=True)
class Setup:
    """A batch that all ranks agree on, and what this rank works with."""

    campaign: Campaign
    seat: Seat


def set_up(team: Team, path: Path) -> Setup:
    """Read the recipe on every rank and refuse ranks whose archives could differ.

    Raises
    ------
    HbaeError, OSError
        The same on all ranks: what the root found wrong, or a :class:`BatchError` that names the rank.
    """
    campaign, error = None, None
    try:
        campaign = load_recipe(path)
    except (HbaeError, OSError) as e:
        error = e
    cards = team.gather(make_card(team.rank, campaign, error))

    def judge() -> list[Seat]:
        if error is not None:
            raise error
        if cards is None or campaign is None:
            raise RuntimeError("only the root judges")
        check_alike(cards)
        return seats(cards, campaign)

    dealt = agreed(team, judge)
    if campaign is None:
        raise RuntimeError("a rank without a recipe was let through")
    return Setup(campaign, dealt[team.rank])


def plan(campaign: Campaign, *, force: bool = False) -> list[Item]:
    """Give the items in the order of work, as the journal stands now; nothing is written.

    Raises
    ------
    ConfigError, OutputExistsError
        When inputs or output folder make no sense.
    """
    state = read_journal(campaign.output / NAME)
    return weigh(find_items(campaign), state, campaign.digest, force=force)


def run_batch(team: Team, path: Path, *, force: bool, tell: Tell) -> Summary | None:
    """Write the archives of a batch, on all ranks; the root gives the summary.

    ``tell`` hears of each outcome, on the root. Failing items are skipped and listed.

    Raises
    ------
    HbaeError, OSError
        Before any work, the same on all ranks.
    """
    begin = time.monotonic()
    setup = set_up(team, path)
    with ExitStack() as stack:
        board = agreed_board(team, setup, stack, force, tell)
        run_queue(team, board, lambda item: work(item, setup.campaign, setup.seat))
    if board is None:
        return None
    spent = time.monotonic() - begin
    return Summary(str(setup.campaign.output), team.size, spent, board.outcomes, board.left, board.stopped)


def agreed_board(team: Team, setup: Setup, stack: ExitStack, force: bool, tell: Tell) -> Board | None:
    """Lock the output folder and open its journal on the root, while the others wait for its word."""
    boards: list[Board] = []

    def start() -> None:
        boards.append(stack.enter_context(_opened(setup.campaign, team.size, force, tell)))

    agreed(team, start)
    return boards[0] if boards else None


@contextmanager
def _opened(campaign: Campaign, ranks: int, force: bool, tell: Tell) -> Iterator[Board]:
    items = find_items(campaign)
    with locked(campaign.output):
        state = read_journal(campaign.output / NAME)
        items = weigh(items, state, campaign.digest, force=force)
        sweep(items)
        journal = Journal(campaign.output / NAME)
        try:
            claims = [i.name for i in items if state.claimed.get(i.name) != campaign.digest]
            journal.write(
                {"kind": "run", "recipe": campaign.digest, "version": __version__, "ranks": ranks, "claims": claims}
            )
            journal.sync()
            yield Board(items, Notes(journal, campaign.digest), tell)
        finally:
            journal.close()


@dataclass(frozen=True)
class Notes:
    """Writes outcomes into the journal; what was finished before stands there already."""

    journal: Journal
    digest: str

    def write(self, outcome: Outcome) -> None:
        if outcome.status != "kept":
            self.journal.write(journal_line(outcome, self.digest, __version__))

    def sync(self) -> None:
        self.journal.sync()
