# SPDX-License-Identifier: MIT
"""Journal, board and queue in one process: what is written stays, what is damaged says nothing."""

from __future__ import annotations

import json
import resource
from pathlib import Path

import pytest

from hbae.batch.board import Board
from hbae.batch.items import Identity, Item
from hbae.batch.journal import Journal, read_journal
from hbae.batch.machine import Card, check_alike, seats
from hbae.batch.recipe import Campaign, Recipe
from hbae.batch.replay import replay
from hbae.batch.summary import Summary
from hbae.batch.work import Outcome
from hbae.errors import BatchError, ConfigError
from hbae.ranks import launched_size

DONE = {"kind": "done", "archive": "a.hbae", "recipe": "r"}


def test_torn_last_line_is_cut_and_damage_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "j"
    path.write_bytes(b'{"kind":"run","recipe":"r","claims":["a.hbae"]}\nno json\n[1]\n{"kind":"done","archive":"b')
    journal = Journal(path)
    assert journal.state.claimed == {"a.hbae": "r"}
    assert journal.state.done == {}
    journal.write(DONE)
    journal.close()
    assert read_journal(path).done == {"a.hbae": DONE}
    assert json.loads(path.read_bytes().splitlines()[-1]) == DONE


def test_a_line_that_does_not_fit_leaves_no_trace(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j")
    journal.write(DONE)
    before = (tmp_path / "j").read_bytes()
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 10, old[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            journal.write(DONE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert (tmp_path / "j").read_bytes() == before
    journal.write(DONE)
    journal.close()
    assert (tmp_path / "j").read_bytes() == 2 * before


def item(name: str) -> Item:
    return Item(Identity(f"/{name}", 1, 1), f"/out/{name}.hbae")


def outcome(name: str, code: int = 0, *, stop: bool = False) -> Outcome:
    return Outcome(item=item(name), status="failed" if code else "kept", seconds=1, code=code, error="e", stop=stop)


class FullOnce:
    """A sink that has no room the first time."""

    def __init__(self) -> None:
        self.kept: list[str] = []
        self.full = True

    def write(self, outcome: Outcome) -> None:
        if self.full:
            self.full = False
            raise OSError(28, "No space left on device")
        self.kept.append(outcome.item.name)

    def sync(self) -> None:
        pass


def test_full_journal_stops_the_queue_and_the_line_is_tried_again() -> None:
    sink = FullOnce()
    board = Board([item("a"), item("b")], sink, lambda _: None)
    assert board.take() == item("a")
    board.put(outcome("a"))
    assert board.take() is None
    board.close()
    assert sink.kept == ["a.hbae"]
    assert [i.name for i in board.left] == ["b.hbae"]
    assert "No space left" in board.stopped


@pytest.mark.parametrize(("codes", "code"), [((0, 0), 0), ((0, 3), 3), ((3, 3), 3), ((3, 1), 1), ((0, 4), 1)], ids=str)
def test_exit_codes(codes: tuple[int, ...], code: int) -> None:
    assert Summary("o", 1, 1.0, [outcome(str(n), c) for n, c in enumerate(codes)], []).exit_code == code


def campaign(**keys: object) -> Campaign:
    recipe = Recipe.model_validate({"inputs": "x", "output": "o", "bound": "abs=1", **keys})
    return Campaign(recipe, Path("/r.yaml"), None, "d")


def card(rank: int, host: str = "n0", cores: int = 8, gpus: int = 0, omp: str = "") -> Card:
    return Card(rank, host, {"hbae": "1"}, tuple(range(cores)), omp=omp, gpus=gpus, digest="d")


def test_devices_and_threads_by_host() -> None:
    cards = [card(0, gpus=2), card(1, gpus=2), card(2, gpus=2), card(3, "n1", cores=3, gpus=1)]
    dealt = seats(cards, campaign(device="cuda"))
    assert [s.device for s in dealt] == ["cuda:0", "cuda:1", "cuda:0", "cuda:0"]
    assert [s.threads for s in dealt] == [2, 2, 2, 3]
    assert [s.threads for s in seats([card(0, omp="5")], campaign())] == [5]
    assert [s.threads for s in seats([card(0, omp="5")], campaign(threads=7))] == [7]


def test_auto_is_cuda_only_for_all() -> None:
    assert {s.device for s in seats([card(0, gpus=1), card(1)], campaign())} == {"cpu"}
    with pytest.raises(ConfigError, match=r"device: cuda: rank 1 \(n0\) finds 0 GPUs"):
        seats([card(0, gpus=1), card(1)], campaign(device="cuda"))


def test_a_rank_that_differs_is_named() -> None:
    with pytest.raises(BatchError, match=r"rank 1 \(n1\) has numpy 2, rank 0 \(n0\) has 1"):
        check_alike([Card(0, "n0", {"numpy": "1"}, ()), Card(1, "n1", {"numpy": "2"}, ())])


def test_launchers_are_recognised() -> None:
    assert launched_size({}) == 1
    assert launched_size({"OMPI_COMM_WORLD_SIZE": "4", "SLURM_STEP_NUM_TASKS": "2"}) == 4
    assert launched_size({"PMI_SIZE": "3"}) == 3


def test_replay() -> None:
    assert replay([4, 3, 2, 1], 2).duration == 5
    assert replay([4, 3, 2, 1], 2).efficiency == 1
    assert replay([1.0] * 100, 200).duration == 1
    bound = replay([1.0] * 1000, 1000, service=0.01)
    assert bound.duration == pytest.approx(10 + 1)
    with pytest.raises(ValueError, match="ranks"):
        replay([1.0], 0)
