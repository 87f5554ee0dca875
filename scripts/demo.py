# SPDX-License-Identifier: MIT
"""The demo: make a combustion run, train, compress it and two climate files, decode elsewhere, verify, compare, draw.

Everything that is printed was measured in this run; tables and picture land in ``demo-output/``.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

import hbae
from hbae.compare import Row, compare_variables, read_variable
from hbae.compare.environment import machine, versions
from hbae.synth import S3DConfig, s3d_stream, write_stream

BOUNDS = (1e-2, 1e-3, 1e-4)
console = Console(width=None if sys.stdout.isatty() else 130)


@dataclass(frozen=True)
class Input:
    """One file of the demo."""

    title: str
    path: Path
    model: Path | None = None


def main(
    out: Annotated[Path, typer.Option("-o", help="Folder for everything that is made.")] = Path("demo-output"),
    size: Annotated[int, typer.Option(help="Cells along each side of the combustion run.")] = 192,
    budget: Annotated[str, typer.Option(help="Training budget.")] = "75s",
    threads: Annotated[int, typer.Option(help="Processes for compression and for the rivals.")] = 2,
    rivals: Annotated[bool, typer.Option(help="Run SZ3, SPERR and ZFP as well.")] = True,
) -> None:
    """Run the demo."""
    begin = time.monotonic()
    out.mkdir(exist_ok=True)
    with Progress(TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=console) as progress:
        inputs = prepare(out, size, budget, progress)
        results = [run_one(item, bound, out, threads, progress) for item in inputs for bound in BOUNDS]
        if rivals:
            for item in inputs:
                add_rivals(item, [r for r in results if r["title"] == item.title], threads, progress)
    doc = {
        "command": " ".join(["python scripts/demo.py", *sys.argv[1:]]),
        "date": date.today().isoformat(),
        "seconds": round(time.monotonic() - begin),
        "configuration": {"size": size, "budget": budget, "threads": threads, "rivals": rivals},
        "versions": versions(),
        "machine": machine(),
        "results": results,
    }
    (out / "results.json").write_text(json.dumps(doc, indent=1) + "\n")
    for item in inputs:
        show(item.title, [r for r in results if r["title"] == item.title])
    picture(inputs[0], out)
    console.print(f"picture: {out / 'picture.png'}, numbers: {out / 'results.json'}")
    console.print(f"{time.monotonic() - begin:.0f} s in all")
    if any(not r["verified"] for r in results):
        sys.exit(3)


def prepare(out: Path, size: int, budget: str, progress: Progress) -> list[Input]:
    """Make the combustion run, find the climate files, train the model."""
    run, model = out / "combustion.nc", out / "combustion.hbm"
    task = progress.add_task("combustion run (Cantera, GRI-3.0)", total=1.0)
    config = S3DConfig(ny=size, nx=size)
    write_stream(s3d_stream(config), run, overwrite=True, progress=lambda k, n: progress.update(task, completed=k / n))
    task = progress.add_task(f"training for {budget}", total=1.0)
    hbae.train(
        [run],
        model,
        preset="s3d",
        budget=budget,
        overwrite=True,
        progress=lambda stage, part: progress.update(task, completed=part, description=stage),
    )
    import iris_sample_data

    climate = Path(iris_sample_data.path)
    return [
        Input("combustion, 54 variables", run, model),
        Input("A1B temperature, North America", climate / "A1B_north_america.nc"),
        Input("OSTIA sea surface temperature", climate / "ostia_monthly.nc"),
    ]


def run_one(item: Input, bound: float, out: Path, threads: int, progress: Progress) -> dict[str, Any]:
    """Compress at one bound, then verify against the original in a fresh process."""
    archive = out / f"{item.path.stem}-{bound:g}.hbae"
    task = progress.add_task(f"{item.path.stem} at NRMSE {bound:g}", total=1.0)
    options: dict[str, Any] = {"model": item.model} if item.model else {"method": "linear"}
    start = time.monotonic()
    report = hbae.compress(
        item.path,
        archive,
        f"nrmse={bound}",
        overwrite=True,
        threads=threads,
        progress=lambda stage, part: progress.update(task, completed=part, description=f"{bound:g}: {stage}"),
        **options,
    )
    middle = time.monotonic()
    command = [sys.executable, "-m", "hbae.cli.main", "verify", str(archive), "--against", str(item.path), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    verified = done.returncode == 0
    progress.update(task, completed=1.0, description=f"{item.path.stem} at NRMSE {bound:g}: {report.cr:.1f} x")
    if not verified:
        console.print(done.stdout, done.stderr)
    return {
        "title": item.title,
        "bound": bound,
        "verified": verified,
        "rows": [
            {
                "name": "hbae (" + ", ".join(sorted({v.method for v in report.variables})) + ")",
                "bytes": archive.stat().st_size,
                "cr": report.cr,
                "nrmse": report.mean_nrmse,
                "max_nrmse": report.max_nrmse,
                "max_error": max(v.max_error / v.span for v in report.variables if v.span > 0),
                "encode_s": middle - start,
                "decode_s": time.monotonic() - middle,
                "model_bytes": report.model_size,
            }
        ],
        "targets": {v.path: v.nrmse for v in report.variables if v.span > 0 and v.nrmse > 0},
    }


def add_rivals(item: Input, results: list[dict[str, Any]], threads: int, progress: Progress) -> None:
    """Tune each rival, variable by variable, to the NRMSE that hbae achieved, and add its rows."""
    task = progress.add_task(f"rivals on {item.path.stem}", total=len(results))
    starts: dict[str, dict[str, float]] | None = None
    last = 0.0
    for r in results:
        arrays = {name: partial(read_variable, str(item.path), name) for name in r["targets"]}
        if starts is not None:
            starts = {k: {n: s * r["bound"] / last for n, s in v.items()} for k, v in starts.items()}
        rows: list[Row] = compare_variables(arrays, r["targets"], processes=threads, starts=starts)
        starts, last = {row.rival: dict(row.settings) for row in rows}, r["bound"]
        r["rows"] += [
            {
                "name": row.rival,
                "bytes": row.nbytes,
                "cr": row.cr,
                "nrmse": row.mean_nrmse,
                "max_error": row.max_error,
                "encode_mb_s": row.encode_mb_s,
                "decode_mb_s": row.decode_mb_s,
            }
            for row in rows
        ]
        progress.advance(task)


def show(title: str, results: list[dict[str, Any]]) -> None:
    """Print the table of one file."""
    table = Table(title=title)
    for name in ("bound", "coder", "bytes", "CR", "mean NRMSE", "max error / range", "seconds or MB/s in, out"):
        table.add_column(name, justify="left" if name == "coder" else "right")
    for r in results:
        for row in r["rows"]:
            if "encode_s" in row:
                speed = f"{row['encode_s']:.1f} s, {row['decode_s']:.1f} s"
            else:
                speed = f"{row['encode_mb_s']:.0f}, {row['decode_mb_s']:.0f} MB/s"
            table.add_row(
                f"{r['bound']:g}",
                row["name"],
                f"{row['bytes']:,}",
                f"{row['cr']:.1f}",
                f"{row['nrmse']:.2e}",
                f"{row['max_error']:.2e}",
                speed,
            )
        table.add_section()
    console.print(table)
    console.print("hbae: bytes of the whole file, model included; seconds to compress, and to decode and verify.")
    console.print("rivals: bytes of their payload only; MB/s of one process.")


def picture(item: Input, out: Path) -> None:
    """Draw field, reconstruction and error of the temperature in the middle of the run."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    name = "T"
    exact = hbae_read(item.path, name)
    step = int(np.argmax(exact.std(axis=(1, 2))))
    fig, axes = plt.subplots(len(BOUNDS), 3, figsize=(11, 3.4 * len(BOUNDS)), layout="constrained")
    for row, bound in zip(axes, BOUNDS, strict=True):
        archive = out / f"{item.path.stem}-{bound:g}.hbae"
        with hbae.open(archive) as ds:
            decoded = ds[name][step].values
        error = decoded.astype(float) - exact[step]
        low, high = float(exact[step].min()), float(exact[step].max())
        for ax, values, label in ((row[0], exact[step], "field"), (row[1], decoded, f"decoded at {bound:g}")):
            image = ax.imshow(values, vmin=low, vmax=high, cmap="inferno", origin="lower")
            ax.set_title(label)
            fig.colorbar(image, ax=ax, label="K")
        top = float(np.abs(error).max()) or 1.0
        image = row[2].imshow(error, vmin=-top, vmax=top, cmap="RdBu", origin="lower")
        row[2].set_title(f"error, file {archive.stat().st_size / 1e6:.2f} MB")
        fig.colorbar(image, ax=row[2], label="K")
    fig.suptitle(f"{name}, step {step}")
    fig.savefig(out / "picture.png", dpi=110)


def hbae_read(path: Path, name: str) -> np.ndarray[Any, Any]:
    """Read a variable as stored."""
    from hbae.io import open_field

    v = open_field(path).variable(name)
    return np.asarray(v.source.read(tuple(slice(0, n) for n in v.shape)))


if __name__ == "__main__":
    typer.run(main)
