# SPDX-License-Identifier: MIT
"""Blocks per second of ``hbae train`` on 1 and 2 ranks, and the loss by seconds.

``python benchmarks/training.py FILE -o RESULT.json`` runs the real command, one thread a rank, and reads its logs; for
FILE, ``python scripts/make_s3d.py -o FILE --ny 64 --nx 64``. Speeds are medians over the lines of a log, by wall time:
other work on the machine lowers them, so each number of ranks runs several times in turn and all runs are kept.
"""

from __future__ import annotations

import csv
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer
from _heading import heading
from _launch import launcher

POINTS = 12


def command(ranks: int) -> list[str]:
    """Give the words that start ranks."""
    program = [sys.executable, "-m", "hbae.cli.main", "train"]
    if ranks == 1:
        return program
    return [*launcher(ranks), *program]


def processor_seconds() -> float:
    """Give the processor time of all processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def train(source: Path, ranks: int, budget: str) -> dict[str, Any]:
    """Train once; gives speeds by phase and some points of the loss."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log.csv"
        args = [str(source), "-o", f"{folder}/m.hbm", "--budget", budget, "--log", str(log), "--json"]
        begin = processor_seconds()
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run([*command(ranks), *args], check=True, capture_output=True, text=True, env=environment)
        spent = processor_seconds() - begin
        with log.open() as f:
            rows = list(csv.DictReader(f))
    report = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
    speeds = {
        phase: statistics.median(float(r["blocks_per_second"]) for r in rows if r["phase"] == phase)
        for phase in ("float", "integer")
    }
    shown = rows[:: max(1, len(rows) // POINTS)] + rows[-1:]
    curve = [{k: float(r[k]) for k in ("seconds", "loss", "nrmse")} for r in shown]
    kept = {k: report[k] for k in ("steps", "seconds", "mean_nrmse", "hyper_blocks")}
    return {"ranks": ranks, "blocks_per_second": speeds, "processor_seconds": spent, **kept, "curve": curve}


def main(
    source: Path,
    out: Annotated[Path, typer.Option("-o", help="The result.")],
    budget: Annotated[str, typer.Option(help="In epochs, so that all runs take the same steps.")] = "20ep",
    repeat: Annotated[int, typer.Option(help="Runs for each number of ranks.")] = 3,
    ranks: Annotated[str, typer.Option(help="Numbers of ranks.")] = "1,2",
) -> None:
    """Run the benchmark."""
    head = heading()
    runs = [train(source, int(r), budget) for _ in range(repeat) for r in ranks.split(",")]
    best = {
        r: {p: max(x["blocks_per_second"][p] for x in runs if x["ranks"] == int(r)) for p in ("float", "integer")}
        for r in ranks.split(",")
    }
    doc = {
        **head,
        "source_bytes": source.stat().st_size,
        "best_blocks_per_second": best,
        "runs": runs,
    }
    out.write_text(json.dumps(doc, indent=1) + "\n")
    print(json.dumps(doc, indent=1))


if __name__ == "__main__":
    typer.run(main)
