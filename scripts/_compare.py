# SPDX-License-Identifier: MIT
"""What the comparison scripts share: make or take the data, train, compare, take the model apart, write it all down."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

import hbae
from hbae.blocks import fill_invalid, split_blocks
from hbae.cli.output import plain
from hbae.compare import read_variable
from hbae.compare.page import COLUMNS, cells, page
from hbae.compare.run import CompareOptions, compare_file
from hbae.config import Budget
from hbae.container import encode_decoder
from hbae.errors import HbaeError
from hbae.pipeline.learn import model_geometry
from hbae.pipeline.options import CompressOptions
from hbae.pipeline.training import train
from hbae.synth import Stream, write_stream
from hbae.train import load_model, recipe, save_model, train_blocks

Out = Annotated[Path, typer.Option("-o", "--out", help="Folder for data, model, JSON and report.")]
Data = Annotated[Path | None, typer.Option("--data", metavar="FILE", help="A file of your own in place of made data.")]
Bounds = Annotated[str, typer.Option(help="NRMSE bounds.")]
Rivals = Annotated[str, typer.Option(help="Rivals, or all.")]
TrainFor = Annotated[str, typer.Option("--budget", help="Training for each model: 120s, 5m, 40ep; 0 for none.")]
Threads = Annotated[int, typer.Option(help="Single-core jobs side by side.")]
Ablation = Annotated[bool, typer.Option("--ablation/--no-ablation", help="Train and measure the model's parts too.")]
USUAL = "sz3,sperr,zfp,pca+sz3,pca+sperr"
TRAINED_ON = 256 << 20
console = Console(width=None if sys.stdout.isatty() else 150, highlight=False)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One comparison: what to make, how to train, what to compare with."""

    name: str
    preset: str
    made: dict[str, Any]
    make: Callable[[], Stream]
    out: Path
    data: Path | None
    bounds: str
    rivals: str
    budget: str
    threads: int
    ablation: bool


def run(plan: Plan) -> None:
    """Run a comparison and write ``NAME.json`` and ``NAME.html``; on failure print one line and exit."""
    plan.out.mkdir(exist_ok=True, parents=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    try:
        with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
            held = _run(plan, progress)
    except (HbaeError, OSError) as e:
        print(f"error: {e}", file=sys.stderr)
        sys.exit(getattr(e, "exit_code", 1))
    sys.exit(0 if held else 3)


def _run(plan: Plan, progress: Progress) -> bool:
    bounds = tuple(float(b) for b in plan.bounds.split(","))
    data = plan.data or _made(plan, progress)
    model = None if plan.budget == "0" else _trained(plan, data, progress)
    task = progress.add_task("comparing", total=1.0)
    options = CompareOptions(
        bounds=bounds, rivals=tuple(plan.rivals.split(",")), model=model, preset=plan.preset, threads=plan.threads
    )
    result = compare_file(data, options, lambda stage, part: progress.update(task, description=stage, completed=part))
    doc = {
        "command": " ".join(["python", *sys.argv]),
        "data": {"file": str(data), "made": None if plan.data else plan.made, "bytes": data.stat().st_size},
        "training": None
        if model is None
        else {"budget": plan.budget, **json.loads((plan.out / "training.json").read_text())},
        **result.to_json(),
    }
    for bound, rows in zip(bounds, result.rows, strict=True):
        console.print(f"{plan.name}, NRMSE {bound:g}: " + ", ".join(n for n, _ in COLUMNS))
        for r in rows:
            console.print("  " + "  ".join(cells(r, len(rows[0].errors))))
    if plan.ablation and model is not None:
        doc["ablation"] = list(_ablation(plan, data, model, bounds, progress))
    (plan.out / f"{plan.name}.json").write_text(json.dumps(plain(doc), indent=1, allow_nan=False) + "\n")
    (plan.out / f"{plan.name}.html").write_text(page(result), encoding="utf-8")
    console.print(f"{plan.out / plan.name}.json, {plan.out / plan.name}.html")
    return result.held


def _made(plan: Plan, progress: Progress) -> Path:
    path = plan.out / f"{plan.name}.nc"
    task = progress.add_task("making data", total=1.0)
    write_stream(
        plan.make(), path, overwrite=True, progress=lambda done, count: progress.update(task, completed=done / count)
    )
    return path


def _trained(plan: Plan, data: Path, progress: Progress) -> Path:
    path = plan.out / f"{plan.name}.hbm"
    task = progress.add_task("training", total=1.0)
    report = train(
        [data],
        path,
        preset=plan.preset,
        budget=plan.budget,
        overwrite=True,
        progress=lambda stage, part: progress.update(task, description=stage, completed=part),
    )
    (plan.out / "training.json").write_text(json.dumps(plain(report.to_json())))
    return path


def _ablation(
    plan: Plan, data: Path, model: Path, bounds: tuple[float, ...], progress: Progress
) -> Iterator[dict[str, Any]]:
    """Measure the linear method, then models with more and more parts, alone and with the residual correction."""
    yield {"name": "linear", "files": [_file(plan, data, b, method="linear") for b in bounds]}
    full = load_model(model)
    hyper = tuple(int(h) for h in full.geometry["hyper"])
    single = (1,) * len(hyper)
    parts = (("block AE alone", single, False), ("hyper-blocks", hyper, False), ("+ attention", hyper, True))
    for name, extent, attention in parts:
        task = progress.add_task(f"ablation: {name}", total=None)
        path = plan.out / f"{plan.name}-{name.strip('+ ').replace(' ', '-')}.hbm"
        base = _train_part(plan, data, full, extent, attention, path)
        files = [_file(plan, data, b, method="hbae", model=path) for b in bounds]
        progress.update(task, total=1.0, completed=1.0)
        row = {"name": name, "base": base, "files": files}
        corrected = ", ".join(f"{f['bound']:g}: {f['cr']:.1f}" for f in files)
        console.print(f"  {name}: alone NRMSE {base['nrmse']:.2e} at CR {base['cr']:.1f}; corrected {corrected}")
        yield row


def _train_part(
    plan: Plan, data: Path, full: Any, hyper: tuple[int, ...], attention: bool, path: Path
) -> dict[str, Any]:
    """Train one model of the ablation; gives its error and its size without any correction (latents by entropy)."""
    block = tuple(int(b) for b in full.geometry["block"])
    arrays = [read_variable(data, n) for n in full.names]
    shape, itemsize = arrays[0].shape, arrays[0].dtype.itemsize
    geometry = model_geometry(shape, block, hyper, len(arrays), itemsize, CompressOptions())
    valid = np.stack([np.isfinite(np.ma.getdata(a)) & ~np.ma.getmaskarray(a) for a in arrays])
    values = fill_invalid(np.stack([np.ma.getdata(a) for a in arrays]).astype(np.float64), valid)
    x, ok = split_blocks(values, geometry).astype(np.float32), split_blocks(valid, geometry)
    count = len(x)
    chosen = np.random.default_rng(0).permutation(count)[: max(1, TRAINED_ON // x[0].nbytes)]
    config = recipe(plan.preset, x.shape, count)
    blocks = int(np.prod(full.geometry["hyper"]))
    latents = config.model.latents if hyper == tuple(full.geometry["hyper"]) else max(4, config.model.latents // blocks)
    config = replace(config, model=replace(config.model, attention=attention, latents=latents))
    trained = train_blocks(
        x[chosen],
        None if ok.all() else ok[chosen],
        names=full.names,
        geometry={"block": list(block), "hyper": list(hyper), "preset": plan.preset},
        config=config,
        budget=Budget.parse(plan.budget),
    )
    save_model(path, trained)
    report, section = trained.report, len(encode_decoder(trained.decoder))
    if report is None:
        raise HbaeError("training gave no report")
    nbytes = report.latent_bytes * count / len(chosen) + section
    raw = sum(a.nbytes for a in arrays)
    return {
        "nrmse": report.mean_nrmse,
        "latent_bytes": report.latent_bytes * count / len(chosen),
        "model_bytes": section,
        "cr": raw / nbytes,
        "steps": report.steps,
        "seconds": report.seconds,
        "config": config.to_json(),
    }


def _file(plan: Plan, data: Path, bound: float, **options: Any) -> dict[str, Any]:
    report = hbae.compress(
        data, plan.out / "ablation.hbae", f"nrmse={bound!r}", threads=plan.threads, overwrite=True, **options
    )
    (plan.out / "ablation.hbae").unlink()
    return {
        "bound": bound,
        "bytes": report.size,
        "cr": report.cr,
        "nrmse": report.mean_nrmse,
        "bytes_by_part": report.sizes,
        "methods": sorted({v.method for v in report.variables}),
        "seconds": report.seconds,
    }
