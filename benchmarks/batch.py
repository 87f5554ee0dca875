# SPDX-License-Identifier: MIT
"""``hbae batch`` on one process and on ranks: wall time, efficiency, equal bytes, and restarts of killed runs.

``python benchmarks/batch.py INPUT... -o FOLDER`` writes ``batch.json`` there. ``--model MODEL`` adds a round in which
the model is weighed for every file that has its variables; ``--kills N`` runs that often on ranks, kills every process
at a seeded random moment, starts the same command again and compares the archives. One process is the plain
command without mpirun; every rank works on one thread.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from _heading import heading
from _launch import launcher


@dataclass(frozen=True)
class Batch:
    """A recipe in a folder of its own, and the archives that it gives."""

    folder: Path

    @property
    def archives(self) -> dict[str, str]:
        """SHA-256 by name."""
        found = sorted((self.folder / "out").glob("*.hbae"))
        return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in found}

    @property
    def notes(self) -> dict[str, list[str]]:
        """What the journal says of each archive."""
        lines = map(json.loads, (self.folder / "out" / "journal.jsonl").read_text().splitlines())
        return {line["archive"]: line["notes"] for line in lines if line["kind"] == "done"}

    def clear(self) -> None:
        """Remove archives and journal."""
        shutil.rmtree(self.folder / "out", ignore_errors=True)

    def start(self, ranks: int) -> subprocess.Popen[str]:
        """Start the batch, under mpirun from two ranks on."""
        command = [sys.executable, "-m", "hbae.cli.main", "batch", str(self.folder / "recipe.yaml"), "--json"]
        if ranks > 1:
            command = [*launcher(ranks), *command]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def run(self, ranks: int) -> tuple[float, dict[str, Any]]:
        """Run it to its end; give seconds and its summary."""
        start = time.monotonic()
        process = self.start(ranks)
        said, errors = process.communicate()
        if process.returncode:
            raise typer.BadParameter(f"hbae batch ended with {process.returncode}: {said[-2000:]}{errors}")
        return time.monotonic() - start, json.loads(said)


def main(
    inputs: Annotated[list[Path], typer.Argument(help="Files to compress.")],
    out: Annotated[Path, typer.Option("-o", help="Folder for archives and the result.")],
    model: Annotated[Path | None, typer.Option(help="A model to weigh.")] = None,
    bound: Annotated[str, typer.Option(help="Bound.")] = "nrmse=1e-3",
    ranks: Annotated[int, typer.Option(help="Number of ranks.")] = 2,
    kills: Annotated[int, typer.Option(help="Runs to kill.")] = 0,
) -> None:
    """Run the benchmark."""
    doc: dict[str, Any] = {
        **heading(),
        "inputs": {p.name: p.stat().st_size for p in inputs},
        "rounds": [],
    }
    for method in ("linear", "auto") if model else ("linear",):
        folder = out / method
        folder.mkdir(parents=True, exist_ok=True)
        recipe = {"inputs": [str(p.resolve()) for p in inputs], "output": "out", "bound": bound, "method": method}
        recipe |= {"threads": 1} | ({"model": str(model.resolve())} if model and method == "auto" else {})
        (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
        doc["rounds"].append({"method": method, **measure(Batch(folder), ranks, kills)})
        (out / "batch.json").write_text(json.dumps(doc, indent=1) + "\n")
    print(json.dumps(doc, indent=1))


def measure(batch: Batch, ranks: int, kills: int) -> dict[str, Any]:
    """One process, then ranks, then killed ranks."""
    batch.clear()
    alone, summary = batch.run(1)
    serial = batch.archives
    batch.clear()
    together, _ = batch.run(ranks)
    doc = {
        "seconds": {"1": round(alone, 2), str(ranks): round(together, 2)},
        "times": round(alone / together, 2),
        "efficiency": round(alone / together / ranks, 3),
        "same_bytes": batch.archives == serial,
        "items": {Path(i["input"]).name: round(i["seconds"], 2) for i in summary.get("slowest", [])},
        "notes": batch.notes,
        "killed": [],
    }
    for seed in range(kills):
        row = kill_and_restart(batch, ranks, serial, random.Random(seed).random() * together)
        print(row, flush=True)
        doc["killed"].append({"seed": seed, **row})
    return doc


def kill_and_restart(batch: Batch, ranks: int, serial: dict[str, str], after: float) -> dict[str, Any]:
    """Kill every process of a run after so many seconds; give what the restart came to."""
    batch.clear()
    process = batch.start(ranks)
    with suppress(subprocess.TimeoutExpired):
        process.wait(after)
    victims = descendants(process.pid)
    for pid in (process.pid, *victims):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.communicate()
    while any(alive(pid) for pid in victims):
        time.sleep(0.05)
    kept = batch.archives
    right = all(serial.get(name) == sha for name, sha in kept.items())
    seconds, _ = batch.run(ranks)
    row = {"killed_after": round(after, 2), "exit": process.returncode, "finished": len(kept), "finished_right": right}
    return {**row, "restart_seconds": round(seconds, 2), "same_bytes": batch.archives == serial}


def descendants(pid: int) -> list[int]:
    """Give all processes below one."""
    found = []
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            for child in map(int, children.read_text().split()):
                found += [child, *descendants(child)]
    return found


def alive(pid: int) -> bool:
    """Tell whether a process still runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


if __name__ == "__main__":
    typer.run(main)
