# SPDX-License-Identifier: MIT
"""Speed of one core: hbae and SPERR in turn on the same variables, several times, as machines are noisy.

``python benchmarks/speed.py FILE... -o RESULT.json`` compresses each at each bound, decodes into memory, and lets SPERR
(its own PSNR mode) encode and decode every variable at the RMSE that hbae achieved on it, ``--repeat`` times over.
hbae's encoding includes reading the file, choosing the plan and judging what it decodes; its decoding includes opening
the file, checks and variables without a bound; SPERR gets arrays in memory, missing points filled. MB/s are 10^6 raw
bytes of the compared variables per second of the clock (``all``: of all values that hbae gives back, meshes and what
else it keeps exactly among them); decoding is done once before the clock starts, so that what a
process loads once does not count, and then again and again for at least ``SPAN`` seconds. A ratio
is of one turn, and its median counts. Freed memory is used again, by both, as in the commands; with ``--fresh`` it is
given back, as in a caller's own process.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"

import typer  # noqa: E402
from _heading import heading  # noqa: E402

import hbae  # noqa: E402
from hbae.arrays import Array  # noqa: E402
from hbae.compare.filters import Sperr  # noqa: E402
from hbae.compare.load import read_variable  # noqa: E402
from hbae.compare.tune import prepare  # noqa: E402
from hbae.errors import FieldError  # noqa: E402
from hbae.pipeline.report import Report  # noqa: E402
from hbae.processes import reuse_memory  # noqa: E402

SPAN = 0.25


def main(
    sources: Annotated[list[Path], typer.Argument(help="Files to compress.")],
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
    for source in sources:
        for bound in bounds.split(","):
            row = measure(source, bound, repeat, fast)
            if row is None:
                continue
            doc["rows"].append({"file": source.name, "bound": float(bound), **row})
            print({k: v for k, v in doc["rows"][-1].items() if k != "turns"}, flush=True)
            out.write_text(json.dumps(doc, indent=1) + "\n")


def measure(source: Path, bound: str, repeat: int, fast: bool) -> dict[str, Any] | None:
    """Take turns at one bound; nothing where no variable is for SPERR, or all came back without an error."""
    turns: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="hbae-speed-") as folder:
        path = Path(folder) / "a.hbae"
        for _ in range(repeat):
            found = turn(source, path, bound, fast)
            if found is None:
                return None
            turns.append(found)
    medians = {k: round(statistics.median(t[k] for t in turns), 1) for k in turns[0] if k.endswith("mb_s")}
    ratios = {
        f"{way}_over_sperr": round(statistics.median(t[f"hbae_{way}_mb_s"] / t[f"sperr_{way}_mb_s"] for t in turns), 2)
        for way in ("in", "out")
    }
    return {"bytes": turns[0]["bytes"], **medians, **ratios, "turns": turns}


def turn(source: Path, path: Path, bound: str, fast: bool) -> dict[str, Any] | None:
    """Give MB/s of both, once, and of hbae's encoding without the choice; nothing where nothing is compared."""
    encode, report = timed(
        lambda: hbae.compress(source, path, f"nrmse={bound}", method="linear", threads=1, fast=fast, overwrite=True)
    )
    decode = long_timed(lambda: hbae.decompress(path, threads=1))
    spent_in = spent_out = raw = 0.0
    for x, rmse in compared(source, report):
        seconds, coded = timed(lambda x=x, rmse=rmse: Sperr().encode(x, rmse))
        spent_in += seconds
        spent_out += long_timed(lambda x=x, coded=coded: Sperr().decode(coded, x.shape, x.dtype))
        raw += x.nbytes / 1e6
    if not raw:
        return None
    row = {"hbae_in_mb_s": raw / encode, "hbae_out_mb_s": raw / decode}
    row["hbae_out_all_mb_s"] = hbae.open(path).nbytes / 1e6 / decode
    row["hbae_in_without_choosing_mb_s"] = raw / (encode - report.seconds["choose"])
    row |= {"sperr_in_mb_s": raw / spent_in, "sperr_out_mb_s": raw / spent_out}
    return {k: round(x, 1) for k, x in row.items()} | {"bytes": report.size}


def compared(source: Path, report: Report) -> Iterator[tuple[Array, float]]:
    """Give the variables that SPERR takes and that came back with an error, and that error."""
    for v in report.variables:
        if v.nrmse > 0:
            try:
                x = prepare(read_variable(source, v.path))[0]
                Sperr().encode(x, v.nrmse * v.span)
            except FieldError:
                continue
            yield x, v.nrmse * v.span


def timed(job: Callable[[], Any]) -> tuple[float, Any]:
    """Give seconds and result."""
    begin = time.perf_counter()
    result = job()
    return time.perf_counter() - begin, result


def long_timed(job: Callable[[], Any]) -> float:
    """Give seconds of one of as many runs as fill the span, after one that does not count."""
    job()
    begin, runs = time.perf_counter(), 0
    while runs == 0 or time.perf_counter() - begin < SPAN:
        job()
        runs += 1
    return (time.perf_counter() - begin) / runs


if __name__ == "__main__":
    typer.run(main)
