# SPDX-License-Identifier: MIT
"""What ranks put together is what one process finds: statistics, shares, files, failures."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hbae.container import ArchiveWriter, SharedWriter, Writer
from hbae.errors import BatchError, FieldError, OutputError, OutputExistsError
from hbae.pipeline.crew import led
from hbae.pipeline.stats import StatsWalk, Validity
from hbae.pipeline.workers import Workers
from hbae.ranks import Solo, agreed, share_of, together


class Threads:
    """Ranks as threads of this process: the same promises, without MPI."""

    def __init__(self, rank: int, size: int, board: dict[str, Any]) -> None:
        self.rank, self.size, self._board = rank, size, board
        self.failure: BaseException | None = None

    def _exchange(self, value: Any) -> list[Any]:
        self._board["values"][self.rank] = value
        self._board["barrier"].wait(20)
        values = list(self._board["values"])
        self._board["barrier"].wait(20)
        return values

    def gather(self, value: Any) -> list[Any] | None:
        values = self._exchange(value)
        return values if self.rank == 0 else None

    def share(self, value: Any) -> Any:
        return self._exchange(value)[0]

    def below(self, counts: Sequence[int]) -> tuple[list[int], list[int]]:
        values = self._exchange(list(counts))
        lower, total = np.sum([[0] * len(counts), *values[: self.rank]], axis=0), np.sum(values, axis=0)
        return [int(x) for x in np.atleast_1d(lower)], [int(x) for x in np.atleast_1d(total)]

    def write_pieces(self, path: Path, pieces: Iterable[tuple[int, bytes]], rounds: int) -> None:
        todo = list(pieces)
        assert len(todo) <= rounds
        Solo().write_pieces(path, todo, rounds)
        self._exchange(None)

    def abort(self, code: int) -> None:
        self._board["barrier"].abort()


def on_ranks(size: int, job: Callable[[Threads], Any]) -> list[Any]:
    """Run a job on that many ranks; give results or exceptions."""
    board = {"values": [None] * size, "barrier": threading.Barrier(size)}
    out: list[Any] = [None] * size

    def run(rank: int) -> None:
        try:
            out[rank] = job(Threads(rank, size, board))
        except Exception as e:
            out[rank] = e

    threads = [threading.Thread(target=run, args=(r,)) for r in range(size)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60)
    return out


def walk(values: list[np.ndarray[Any, Any]]) -> StatsWalk:
    """Walk over boxes of stored values."""
    w = StatsWalk(Validity((-9.0,)))
    for v in values:
        w.take(v)
    return w


@pytest.mark.parametrize("seed", range(8))
def test_partial_statistics_join_to_the_same_bits(seed: int) -> None:
    """Ties, signed zeros, few distinct values, sentinels, NaN and fill values, split anywhere."""
    rng = np.random.default_rng(seed)
    pool = np.array([0.0, -0.0, 1.0, -1.0, 2.0, -9.0, np.nan, 1e30] if seed % 2 else [0.0, -0.0, -1.0, np.nan], "f4")
    boxes = [rng.choice(pool, rng.integers(1, 40)) for _ in range(6)]
    whole = walk(boxes).result(None)
    for a in range(7):
        for b in range(a, 7):
            joined = walk([])
            for part in (boxes[:a], boxes[a:b], boxes[b:]):
                joined.join(walk(part))
            assert repr(joined.result(None)) == repr(whole)


def fill(w: Writer, count: int) -> int:
    """Write sections and two runs of chunks, the first of them again after a change of mind."""
    w.redundant = True
    w.add_section("values", b"v" * 5000)
    mark = w.mark()
    for attempt in range(2):
        w.rewind(mark)
        w.add_section("group 0", b"plan" * (attempt + 1))
        mine = w.share(count)
        inner = w.mark()
        for i in mine:
            w.add_chunk(bytes([i]) * (70_000 + i))
        kept = list(w.payloads(inner))
        assert kept == [bytes([i]) * (70_000 + i) for i in mine]
        w.rewind(inner)
        for i, payload in zip(mine, kept, strict=True):
            w.add_chunk(payload[: 60_000 + 100 * i])
    for _ in w.share(3):
        w.add_chunk(b"exact")
    return w.finish()


@pytest.mark.parametrize("count", [1, 30])
@pytest.mark.parametrize("ranks", [1, 2, 5])
def test_shared_writer_writes_the_same_file(ranks: int, count: int, tmp_path: Path) -> None:
    """Small files have no second header and index; files over 1 MiB do."""
    header = {"package": "x", "names": ["T"] * 9}
    with ArchiveWriter(tmp_path / "a.hbae", header) as alone:
        size = fill(alone, count)
        sizes = alone.sizes()

    def job(team: Threads) -> tuple[int, dict[str, int]]:
        with SharedWriter(tmp_path / "s.hbae", header, team) as w:
            return fill(w, count), w.sizes()

    assert on_ranks(ranks, job) == [(size, sizes)] * ranks
    assert (tmp_path / "s.hbae").read_bytes() == (tmp_path / "a.hbae").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.hbae", "s.hbae"]


def test_what_others_wrote_is_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that loses a piece of one rank is noticed, and nothing gets the archive's name."""
    right = Threads.write_pieces

    def lose(self: Threads, path: Path, pieces: Iterable[tuple[int, bytes]], rounds: int) -> None:
        todo = list(pieces)
        right(self, path, todo[:-1] if self.rank == 2 else todo, rounds)

    monkeypatch.setattr(Threads, "write_pieces", lose)

    def job(team: Threads) -> None:
        with SharedWriter(tmp_path / "s.hbae", {}, team) as w:
            fill(w, 30)

    found = on_ranks(3, job)
    assert [type(e) for e in found] == [BatchError, OutputError, BatchError]
    assert "not what the ranks wrote is in the file" in str(found[1])
    assert list(tmp_path.iterdir()) == []


def test_shared_writer_replaces_nothing(tmp_path: Path) -> None:
    (tmp_path / "s.hbae").write_bytes(b"old")
    found = on_ranks(2, lambda team: SharedWriter(tmp_path / "s.hbae", {}, team))
    assert [type(e) for e in found] == [OutputExistsError, BatchError]
    assert [p.name for p in tmp_path.iterdir()] == ["s.hbae"]


def test_all_ranks_raise_the_failure_of_the_lowest() -> None:
    def job(team: Threads) -> None:
        def fail() -> None:
            if team.rank:
                raise FieldError(f"no room on {team.rank}")

        together(team, fail)

    found = on_ranks(3, job)
    assert isinstance(found[1], FieldError)
    assert str(found[1]) == "no room on 1"
    assert all(isinstance(found[r], BatchError) and str(found[r]).endswith("): no room on 1") for r in (0, 2))
    assert {e.exit_code for e in found} == {FieldError.exit_code}


def add(shared: int, x: int) -> int:
    """Add; 13 brings bad luck."""
    if x == 13:
        raise FieldError("thirteen")
    return shared + x


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_all_ranks_work_for_the_root(ranks: int) -> None:
    def job(team: Threads) -> list[int]:
        def lead(workers: Any) -> list[int]:
            first = list(workers.map(add, 100, [(i,) for i in range(7)]))
            return first + list(workers.map(add, 0, [])) + list(workers.map(add, 1, [(1,)], alone=True))

        return led(team, Workers(1), lead)

    assert on_ranks(ranks, job) == [[*range(100, 107), 2]] * ranks


def test_a_failure_of_a_helper_reaches_the_root_as_it_is() -> None:
    def job(team: Threads) -> str:
        def lead(workers: Any) -> str:
            with pytest.raises(FieldError, match="thirteen"):
                list(workers.map(add, 0, [(1,), (13,), (2,)]))
            return "healed"

        return led(team, Workers(1), lead)

    assert on_ranks(2, job) == ["healed", "healed"]


def test_shares_cover_everything_once() -> None:
    for count in (0, 1, 3, 10):
        for size in (1, 3, 4):
            for ahead in (0, 1):
                teams = [Threads(r, size, {}) for r in range(size)]
                assert sorted(i for t in teams for i in share_of(t, count, ahead=ahead)) == list(range(count))


def test_agreed_gives_all_the_roots_word() -> None:
    assert on_ranks(3, lambda team: agreed(team, lambda: 40 + team.rank)) == [40, 40, 40]
