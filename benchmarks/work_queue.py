# SPDX-License-Identifier: MIT
"""What the work queue of ``hbae batch`` costs per item, and how far recorded batches would scale on it.

``python benchmarks/work_queue.py main JOURNAL... -o RESULT.json`` measures, with empty items under mpirun, the time of
a trip to the root and back while the root is free and while it works, and the root's own time for an answer, journal
line included. Then it replays the items of the journals, drawn again with a seed, on 10 to 10,000 ranks. (The file
is not called queue.py: that would hide Python's own module of that name.)
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from _heading import heading
from _launch import launcher

from hbae.batch.board import Board
from hbae.batch.items import Identity, Item
from hbae.batch.journal import Journal
from hbae.batch.replay import replay
from hbae.batch.run import Notes
from hbae.batch.serve import SYNC, run_queue
from hbae.batch.work import Outcome
from hbae.ranks import join

RANKS = (10, 30, 100, 300, 1000, 3000, 10_000)
TARGET = 0.9
app = typer.Typer()


def items(count: int) -> list[Item]:
    """Give items without inputs."""
    return [Item(Identity(f"/inputs/file-{n:06d}.nc", 1, 1), f"/outputs/file-{n:06d}.hbae") for n in range(count)]


def outcome(item: Item) -> Outcome:
    """Give an outcome with a report of a usual size: ten variables."""
    errors = {f"VARIABLE_{v}": {"nrmse": 9.876543210987e-4, "max_error": 0.01234567890123} for v in range(10)}
    report = {"raw_bytes": 10**9, "cr": 12.3456789, "errors": errors}
    return Outcome(item=item, status="done", seconds=1.0, size=10**8, sha256="0" * 64, report=report)


@app.command()
def trips(
    folder: Path, count: int, busy: Annotated[bool, typer.Option(help="The root works beside serving.")] = False
) -> None:
    """Time empty items under mpirun, on the ranks that ask; a busy root multiplies matrices for seconds."""
    team = join()
    journal = Journal(folder / "journal.jsonl") if team.rank == 0 else None
    board = Board(items(count), Notes(journal, "digest"), lambda _: None) if journal is not None else None
    matrix, stamps = np.ones((1500, 1500)), []

    def job(item: Item) -> Outcome:
        stamps.append(time.monotonic())
        while team.rank == 0 and time.monotonic() - stamps[-1] < 60 and board is not None and board.left:
            if busy:
                matrix @ matrix
            else:
                time.sleep(0.01)
        return outcome(item)

    begin = time.process_time()
    run_queue(team, board, job)
    spent = time.process_time() - begin
    times = team.gather((stamps[-1] - stamps[0]) / max(len(stamps) - 1, 1))
    if times is not None and journal is not None:
        journal.close()
        print(json.dumps({"trip": sum(times[1:]) / (team.size - 1), "root": spent / count}))


def measure_trips(ranks: int, count: int, busy: bool) -> dict[str, float]:
    """Start :func:`trips`; gives seconds per trip, and the root's processor seconds per item."""
    with tempfile.TemporaryDirectory() as folder:
        args = [sys.executable, __file__, "trips", folder, str(count), "--busy" if busy else "--no-busy"]
        done = subprocess.run([*launcher(ranks), *args], check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout))


def measure_sync() -> float:
    """Time a sync of a journal, median of 50."""
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(Path(folder) / "journal.jsonl")
        spent = []
        for _ in range(50):
            journal.write({"kind": "nothing"})
            begin = time.perf_counter()
            journal.sync()
            spent.append(time.perf_counter() - begin)
        journal.close()
    return sorted(spent)[len(spent) // 2]


def recorded(journals: list[Path]) -> list[float]:
    """Give the seconds of every finished item."""
    lines = [json.loads(line) for path in journals for line in path.read_text().splitlines()]
    return [line["seconds"] for line in lines if line["kind"] == "done"]


def scale(seconds: list[float], count: int, service: float, latency: float) -> dict[str, Any]:
    """Replay; saturation is the largest number of ranks at which nine tenths of their time are work."""
    draw = random.Random(0)
    queue = sorted((draw.choice(seconds) for _ in range(count)), reverse=True)
    rows = [replay(queue, r, service=service, latency=latency) for r in RANKS]
    good = [r.ranks for r in rows if r.efficiency >= TARGET]
    return {
        "items": count,
        "mean_item_seconds": sum(queue) / count,
        "rows": [{"ranks": r.ranks, "seconds": r.duration, "efficiency": r.efficiency, "root": r.root} for r in rows],
        "ranks_at_90_percent": max(good, default=0),
        "root_limit_ranks": sum(queue) / count / service,
    }


@app.command()
def main(
    journals: list[Path],
    out: Annotated[Path, typer.Option("-o", help="The result.")],
    count: Annotated[int, typer.Option(help="Items of the replay.")] = 100_000,
    stretch: Annotated[str, typer.Option(help="Factors on the recorded times.")] = "1,10,100",
) -> None:
    """Run the benchmark."""
    head = heading()
    trip = {f"{r} ranks, root {'works' if b else 'free'}": measure_trips(r, 2000, b) for r in (2, 4) for b in (0, 1)}
    sync, seconds = measure_sync(), recorded(journals)
    latency = trip["2 ranks, root works"]["trip"] / 2
    # Processor time of a root that only serves, polling included; a sync every SYNC seconds holds answers up.
    cost = trip["4 ranks, root free"]["root"] / max(1e-3, 1 - sync / SYNC)
    doc = {
        **head,
        "trips": trip,
        "sync_seconds": sync,
        "root_seconds_per_answer": cost,
        "recorded_items": len(seconds),
        "replay": {f: scale([s * float(f) for s in seconds], count, cost, latency) for f in stretch.split(",")},
    }
    out.write_text(json.dumps(doc, indent=1) + "\n")
    print(json.dumps(doc, indent=1))


if __name__ == "__main__":
    app()
