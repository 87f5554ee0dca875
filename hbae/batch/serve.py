# SPDX-License-Identifier: MIT
"""The queue over ranks: the root serves in a thread of its own and works beside it, the others ask.

rank r -- ASK, last outcome --> root -- TAKE, next item or None --> rank r; END when all have finished
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable

from hbae.batch.board import Board
from hbae.batch.items import Item
from hbae.batch.work import Outcome
from hbae.ranks import MpiTeam, Team
from hbae.ranks.mpi import LONG, SHORT

ASK, TAKE, END = 1, 2, 3
# A line in the journal outlives the process at once; only a crash of the machine takes what this many seconds hold.
SYNC = 0.1
# The interpreter's default of 5 ms would be the wait of every rank while the root computes.
SWITCH = 5e-4
Work = Callable[[Item], Outcome]


def run_queue(team: Team, board: Board | None, job: Work) -> None:
    """Do every item of the root's board once, on whichever rank is free; all ranks call it and leave it together.

    On the root, ``board`` holds the outcomes afterwards.
    """
    if board is None:
        if isinstance(team, MpiTeam):
            _ask(team, job)
        return
    if isinstance(team, MpiTeam):
        _lead(team, board, job)
    else:
        _do_all(board, job)
    board.close()


def _do_all(board: Board, job: Work) -> None:
    while (item := board.take()) is not None:
        board.put(job(item))
        board.sync()


def _ask(team: MpiTeam, job: Work) -> None:
    outcome: Outcome | None = None
    while True:
        team.send(outcome, 0, ASK)
        item = team.receive(TAKE)
        if item is None:
            break
        outcome = job(item)
    team.receive(END)


def _lead(team: MpiTeam, board: Board, job: Work) -> None:
    server = _Server(team, board)
    if team.threaded:
        usual = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH)
        server.start()
        try:
            _do_all(board, job)
        except BaseException:
            server.leave = True
            raise
        finally:
            server.join()
            sys.setswitchinterval(usual)
    else:
        server.run()
    if server.error is not None:
        raise server.error
    for rank in range(1, team.size):
        team.send(None, rank, END)


class _Server(threading.Thread):
    """Answers the ranks until each has been told that there is no more to do."""

    def __init__(self, team: MpiTeam, board: Board) -> None:
        super().__init__(name="hbae-batch-server", daemon=True)
        self._team, self._board = team, board
        self.leave = False
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self._serve()
        except BaseException as e:
            self.error = e
            self._board.stopped = f"the queue failed: {e}"

    def _serve(self) -> None:
        working, delay, synced = self._team.size - 1, SHORT, time.monotonic()
        while working and not self.leave:
            found = self._team.poll(ASK)
            if time.monotonic() - synced > SYNC:
                self._board.sync()
                synced = time.monotonic()
            if found is None:
                time.sleep(delay)
                delay = min(delay * 1.2, LONG)
                continue
            delay = SHORT
            working -= not self._answer(*found)
        self._board.sync()

    def _answer(self, rank: int, outcome: Outcome | None) -> bool:
        if outcome is not None:
            self._board.put(outcome)
        item = self._board.take()
        self._team.send(item, rank, TAKE)
        return item is not None
