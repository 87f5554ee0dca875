# SPDX-License-Identifier: MIT
"""One big field on one and on several ranks: wall time, efficiency, peak memory of each rank, and whether all agree.

``python benchmarks/ranks.py -o FOLDER --steps 2000`` writes ``ranks.json`` there. The field is made (E3SM-like, three
variables on 180 x 360 points), plain and deflated; the archive goes back to each of ``--outputs``. One rank is the
plain command without mpirun. Peaks are ru_maxrss of each rank; every rank works on one thread.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from _heading import heading
from _launch import launcher

from hbae.io import open_field, reading_boxes
from hbae.synth import E3SMConfig, e3sm_stream, write_stream

# Runs the command in this process, then says on stderr what it took.
WRAP = (
    "import resource, sys; from hbae.cli.main import run; code = run(sys.argv[1:]);"
    "r = resource.getrusage(resource.RUSAGE_SELF);"
    "print('used', r.ru_maxrss, r.ru_utime + r.ru_stime, file=sys.stderr, flush=True); sys.exit(code)"
)


def main(
    out: Annotated[Path, typer.Option("-o", help="Folder for data and results.")],
    steps: Annotated[int, typer.Option(help="Time steps of the field, 0.26 MB a variable each.")] = 400,
    ranks: Annotated[str, typer.Option(help="Numbers of ranks.")] = "1,2",
    bound: Annotated[str, typer.Option(help="Bound.")] = "nrmse=1e-3",
    deflate: Annotated[str, typer.Option(help="Levels of deflate of the data; 0 is contiguous.")] = "0,1",
    outputs: Annotated[str, typer.Option(help="Suffixes to decompress to.")] = ".zarr,.nc,.raw",
    keep: Annotated[bool, typer.Option(help="Keep the data.")] = False,
) -> None:
    """Run the benchmark."""
    out.mkdir(exist_ok=True)
    stream = e3sm_stream(E3SMConfig(steps=steps))
    doc: dict[str, Any] = {
        **heading(),
        "raw_bytes": stream.nbytes,
        "rows": [],
    }
    for level in (int(k) for k in deflate.split(",")):
        data = out / f"field-{steps}-deflate{level}.nc"
        if not data.exists():
            write_stream(stream, data, deflate=level)
        for count in (int(r) for r in ranks.split(",")):
            doc["rows"] += measure(data, out, count, bound, outputs.split(","))
            (out / "ranks.json").write_text(json.dumps(doc, indent=1) + "\n")
        if not keep:
            data.unlink()
    doc["rows"] = [compared(row, doc["rows"]) for row in doc["rows"]]
    (out / "ranks.json").write_text(json.dumps(doc, indent=1) + "\n")
    print(json.dumps(doc, indent=1))


def measure(data: Path, out: Path, ranks: int, bound: str, outputs: list[str]) -> list[dict[str, Any]]:
    """Compress, verify and decompress; archives, and the values of what comes back, are compared by their hashes."""
    archive = out / "a.hbae"
    commands = {
        "compress": [
            "compress",
            data,
            "-o",
            archive,
            "--bound",
            bound,
            "--method",
            "linear",
            "--threads",
            1,
            "-f",
            "-q",
        ],
        "verify": ["verify", archive, "--against", data, "-q"],
    }
    commands |= {f"decompress {s}": ["decompress", archive, "-o", out / f"back{s}", "-f", "-q"] for s in outputs}
    rows = []
    for name, args in commands.items():
        row = {"file": data.name, "bytes": data.stat().st_size, "command": name, "ranks": ranks, **run(args, ranks)}
        back = Path(args[3]) if name.startswith("decompress") else None
        row["sha256"] = values_hash(back) if back else hashlib.sha256(archive.read_bytes()).hexdigest()
        print(row, flush=True)
        rows.append(row)
        remove(out)
    rows[-1]["archive_bytes"] = archive.stat().st_size
    return rows


def values_hash(path: Path) -> str:
    """Hash every value of a file, variable by variable."""
    found = hashlib.sha256()
    for v in open_field(path).variables():
        for box in reading_boxes(v):
            found.update(np.ascontiguousarray(v.source.read(box)).tobytes())
    return found.hexdigest()


def remove(out: Path) -> None:
    """Remove what was decompressed."""
    for path in out.glob("back.*"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def run(args: list[Any], ranks: int) -> dict[str, Any]:
    """Run one command on that many ranks; give wall and processor seconds, and the peak of each rank in MB."""
    command = [sys.executable, "-c", WRAP, *map(str, args)]
    if ranks > 1:
        command = [*launcher(ranks), *command, "--ranks"]
    start = time.monotonic()
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    wall = time.monotonic() - start
    if done.returncode:
        raise typer.BadParameter(f"{command}: {done.stderr}")
    used = [line.split()[1:] for line in done.stderr.splitlines() if line.startswith("used ")]
    return {
        "seconds": round(wall, 2),
        "cpu_seconds": round(sum(float(s) for _, s in used), 2),
        "peak_mb": sorted(round(int(kb) / 1024) for kb, _ in used),
    }


def compared(row: dict[str, Any], rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Add the efficiency against the fewest ranks of the same command, and whether archive or values are the same."""
    same = [r for r in rows if (r["file"], r["command"]) == (row["file"], row["command"])]
    base = min(same, key=lambda r: int(r["ranks"]))
    efficiency = base["seconds"] * base["ranks"] / (row["seconds"] * row["ranks"])
    return {**row, "efficiency": round(efficiency, 3), "same": row["sha256"] == base["sha256"]}


if __name__ == "__main__":
    typer.run(main)
