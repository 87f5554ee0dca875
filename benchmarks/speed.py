# SPDX-License-Identifier: MIT
"""Speed of one core: hbae and SPERR in turn on the same variables, several times, as machines are noisy.

``python benchmarks/speed.py FILE -o RESULT.json`` compresses at each bound, decodes into memory, and lets SPERR (its
own PSNR mode) encode and decode every variable at the RMSE that hbae achieved on it, ``--repeat`` times over. hbae's
encoding includes reading the file, choosing the plan and judging what it decodes; SPERR gets arrays in memory. MB/s are
10^6 raw bytes of the lossy variables per second of the clock; a ratio is of one turn, and its median counts. Freed
memory is used again, by both, as in the commands; with ``--fresh`` it is given back, as in a caller's own process.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"

import typer  # noqa: E402
from _heading import heading  # noqa: E402

import hbae  # noqa: E402
from hbae.compare.filters import Sperr  # noqa: E402
from hbae.io import open_field  # noqa: E402
from hbae.processes import reuse_memory  # noqa: E402


def main(
    source: Annotated[Path, typer.Argument(help="File to compress.")],
    out: Annotated[Path, typer.Option("-o", help="Result.")],
    bounds: Annotated[str, typer.Option(help="NRMSE bounds.")] = "1e-2,1e-3,1e-4",
    repeat: Annotated[int, typer.Option(help="Turns.")] = 3,
    fast: Annotated[bool, typer.Option("--fast", help="Plans that are quick to decode only.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Freed memory is not used again.")] = False,
) -> None:
    """Run the benchmark."""
    if not fresh:
        reuse_memory()
    doc: dict[str, Any] = {**heading(), "rows": []}
    for bound in bounds.split(","):
        doc["rows"].append({"bound": float(bound), **measure(source, bound, repeat, fast)})
        print(doc["rows"][-1], flush=True)
        out.write_text(json.dumps(doc, indent=1) + "\n")


def measure(source: Path, bound: str, repeat: int, fast: bool) -> dict[str, Any]:
    """Take turns at one bound."""
    turns = []
    with tempfile.TemporaryDirectory(prefix="hbae-speed-") as folder:
        path = Path(folder) / "a.hbae"
        for _ in range(repeat):
            turns.append(turn(source, path, bound, fast))
    medians = {k: round(statistics.median(t[k] for t in turns), 1) for k in turns[0] if k.endswith("mb_s")}
    ratios = {
        f"{way}_over_sperr": round(statistics.median(t[f"hbae_{way}_mb_s"] / t[f"sperr_{way}_mb_s"] for t in turns), 2)
        for way in ("in", "out")
    }
    return {"bytes": turns[0]["bytes"], **medians, **ratios, "turns": turns}


def turn(source: Path, path: Path, bound: str, fast: bool) -> dict[str, Any]:
    """Give MB/s of both, once, and of hbae's encoding without the choice."""
    encode, report = timed(
        lambda: hbae.compress(source, path, f"nrmse={bound}", method="linear", threads=1, fast=fast, overwrite=True)
    )
    decode, ds = timed(lambda: hbae.decompress(path, threads=1))
    del ds
    raw = report.raw_bytes / 1e6
    row = {"hbae_in_mb_s": raw / encode, "hbae_out_mb_s": raw / decode}
    row["hbae_in_without_choosing_mb_s"] = raw / (encode - report.seconds["choose"])
    sperr, spent_in, spent_out, read = Sperr(), 0.0, 0.0, 0
    field = open_field(source)
    for v in report.variables:
        if not v.nrmse > 0:
            continue
        x = field.variable(v.path).source.read(tuple(slice(0, n) for n in field.variable(v.path).shape))
        seconds, coded = timed(lambda x=x, v=v: sperr.encode(x, v.nrmse * v.span))
        spent_in += seconds
        spent_out += timed(lambda x=x, coded=coded: sperr.decode(coded, x.shape, x.dtype))[0]
        read += x.nbytes
    row |= {"sperr_in_mb_s": read / 1e6 / spent_in, "sperr_out_mb_s": read / 1e6 / spent_out}
    return {k: round(x, 1) for k, x in row.items()} | {"bytes": report.size}


def timed(job: Callable[[], Any]) -> tuple[float, Any]:
    """Give seconds and result."""
    begin = time.perf_counter()
    result = job()
    return time.perf_counter() - begin, result


if __name__ == "__main__":
    typer.run(main)
