# SPDX-License-Identifier: MIT
"""One model for many files: what it saves on other runs and on later times, counted once over all of them.

``python benchmarks/campaign.py -o FOLDER`` makes combustion runs of several seeds, trains on the first half of run 0,
and compresses its later half and all other runs without a model, and with the shared one (``--no-embed``), which every
file drops where it costs more. ``campaign.json`` holds bytes by file and bound, the decoder's, and both totals.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
import xarray as xr
from _heading import heading

import hbae
from hbae.synth import S3DConfig, s3d_stream, write_stream


def main(
    out: Annotated[Path, typer.Option("-o", help="Folder for data, model, archives and the result.")],
    size: Annotated[int, typer.Option(help="Points along each side of the grid.")] = 96,
    steps: Annotated[int, typer.Option(help="Steps in time of a run.")] = 50,
    runs: Annotated[int, typer.Option(help="Runs beside the one that is trained on.")] = 3,
    budget: Annotated[str, typer.Option(help="Training.")] = "300s",
    bounds: Annotated[str, typer.Option(help="NRMSE bounds.")] = "1e-2,1e-3",
    threads: Annotated[int, typer.Option(help="Threads of training, processes of compressing.")] = 2,
) -> None:
    """Run the benchmark."""
    out.mkdir(parents=True, exist_ok=True)
    paths = [make_run(out / f"run{seed}.nc", size, steps, seed) for seed in range(runs + 1)]
    early, late = halves(paths[0], out)
    model = out / "model.hbm"
    trained = hbae.train(early, model, budget=budget, preset="s3d", threads=threads, overwrite=True)
    doc: dict[str, Any] = {
        **heading(),
        "trained_on": early.name,
        "training": {"seconds": trained.seconds, "steps": trained.steps, "nrmse": trained.mean_nrmse},
        "model_bytes": trained.model_size,
        "bounds": {},
    }
    for bound in bounds.split(","):
        files = {p.name: measure(p, bound, model, out, threads) for p in (late, *paths[1:])}
        doc["bounds"][bound] = {"files": files, **totals(list(files.values()))}
        (out / "campaign.json").write_text(json.dumps(doc, indent=1) + "\n")
    print(json.dumps(doc, indent=1))


def make_run(path: Path, size: int, steps: int, seed: int) -> Path:
    """Write a run, unless it is there."""
    if not path.exists():
        write_stream(s3d_stream(S3DConfig(ny=size, nx=size, steps=steps, seed=seed)), path)
    return path


def halves(path: Path, out: Path) -> tuple[Path, Path]:
    """Cut a run in two in time."""
    found = out / "run0_early.nc", out / "run0_late.nc"
    with xr.open_dataset(path, decode_cf=False) as data:
        middle = data.sizes["time"] // 2
        for half, part in zip(found, (slice(None, middle), slice(middle, None)), strict=True):
            data.isel(time=part).to_netcdf(half)
    return found


def measure(path: Path, bound: str, model: Path, out: Path, threads: int) -> dict[str, Any]:
    """Bytes of one file without and with the shared model, whose own bytes are not in it."""
    options = {"threads": threads, "overwrite": True}
    alone = hbae.compress(path, out / "linear.hbae", f"nrmse={bound}", method="linear", **options)
    shared = hbae.compress(path, out / "shared.hbae", f"nrmse={bound}", model=model, embed=False, **options)
    if not hbae.verify(out / "shared.hbae", against=path, model=model).ok:
        raise RuntimeError(f"{path}: the bound does not hold")
    return {"alone": alone.size, "with_model": shared.size, "notes": list(shared.notes)}


def totals(files: list[dict[str, Any]]) -> dict[str, Any]:
    """Add up; the decoder's bytes come once to all files with the model."""
    alone, shared = (sum(f[k] for f in files) for k in ("alone", "with_model"))
    return {"alone": alone, "with_model": shared, "saved_per_file": (alone - shared) / len(files)}


if __name__ == "__main__":
    typer.run(main)
