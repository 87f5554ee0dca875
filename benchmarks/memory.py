# SPDX-License-Identifier: MIT
"""Peak memory and speed of compress, verify and decompress on an S3D-like file, in both layouts that occur in practice.

``python benchmarks/memory.py -o FOLDER --size 640`` writes ``memory.json`` there. Each command runs in a process of
its own; the peak is its VmHWM (ru_maxrss of a process that a large one started counts the parent's memory too) and, for
worker processes, ru_maxrss of the largest child.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from _heading import heading

from hbae.synth import S3DConfig, s3d_stream, write_stream


def main(
    out: Annotated[Path, typer.Option("-o", help="Folder for data and results.")],
    size: Annotated[int, typer.Option(help="Cells along each side.")] = 192,
    bound: Annotated[str, typer.Option(help="Bound.")] = "nrmse=1e-3",
    threads: Annotated[int, typer.Option(help="Worker processes.")] = 1,
    layout: Annotated[
        str, typer.Option(help="contiguous, deflated (a storage chunk for each time step), or both.")
    ] = "both",
) -> None:
    """Run the benchmark."""
    out.mkdir(exist_ok=True)
    rows: list[dict[str, Any]] = []
    doc = {**heading(), "rows": rows}
    for deflate in {"contiguous": (0,), "deflated": (1,), "both": (0, 1)}[layout]:
        data = out / f"s3d-{size}-deflate{deflate}.nc"
        if not data.exists():
            write_stream(s3d_stream(S3DConfig(ny=size, nx=size)), data, deflate=deflate)
        archive, back = out / "a.hbae", out / "back.nc"
        commands = {
            "compress": ["compress", data, "-o", archive, "--bound", bound, "--method", "linear", "-f", "--json"],
            "verify": ["verify", archive, "--against", data, "--json"],
            "decompress": ["decompress", archive, "-o", back, "-f", "--json"],
        }
        commands["compress"] += ["--threads", str(threads)]
        for name, args in commands.items():
            rows.append({"layout": f"deflate {deflate}", "bytes": data.stat().st_size, "command": name, **run(args)})
            print(rows[-1], flush=True)
        rows[-1]["archive"] = archive.stat().st_size
        back.unlink()
    (out / "memory.json").write_text(json.dumps(doc, indent=1) + "\n")


def run(args: list[Any]) -> dict[str, Any]:
    """Run one command; give seconds, exit code and peak memory in MB."""
    code = (
        "import re, resource, sys; from hbae.cli.main import run; code = run(sys.argv[1:]);"
        "r = int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]);"
        "c = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss; print(r, c, file=sys.stderr); sys.exit(code)"
    )
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code, *map(str, args)], capture_output=True, text=True, check=False)
    own, child = (int(x) for x in done.stderr.split()[-2:])
    return {
        "seconds": round(time.monotonic() - start, 1),
        "exit": done.returncode,
        "peak_mb": round(own / 1024),
        "peak_child_mb": round(child / 1024),
    }


if __name__ == "__main__":
    typer.run(main)
