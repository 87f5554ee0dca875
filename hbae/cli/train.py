# SPDX-License-Identifier: MIT
"""``hbae train``."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from hbae.cli import options as o
from hbae.cli.output import Output, number
from hbae.cli.ranks import ended_together, start_output
from hbae.cli.values import check_device, check_paths, split_list
from hbae.errors import MissingExtraError

if TYPE_CHECKING:
    from hbae.pipeline.training import TrainReport
    from hbae.ranks import Team


def train(
    sources: Annotated[list[Path], typer.Argument(metavar="IN...", help="Files with the same variables.")],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="MODEL", help="The model file (.hbm).")],
    preset: o.Preset = "auto",
    variables: o.Variables = None,
    budget: Annotated[str, typer.Option(metavar="120s", help="How long: 120s, 5m, 40ep.")] = "120s",
    device: o.Device = "cpu",
    slim: Annotated[bool, typer.Option(help="Prune and quantise the decoder, within the budget.")] = False,
    seed: o.Seed = 0,
    batch: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(metavar="N", help="Hyper-blocks in a step, over all ranks.", min=1),
    ] = None,
    checkpoint: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(metavar="FILE", help="Kept while training; a run that was killed goes on from it."),
    ] = None,
    save_every: Annotated[float, typer.Option(metavar="60", help="Seconds between checkpoints.", min=0.0)] = 60.0,
    log: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(metavar="FILE.csv", help="Loss and blocks per second, a line every 20 steps."),
    ] = None,
    mixed: Annotated[bool, typer.Option("--mixed", help="bfloat16 products on a GPU, before integers.")] = False,
    scratch: o.Scratch = None,
    force: o.Force = False,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = 0,
) -> None:
    """Train a model that compress can use for files of the same kind; also under mpirun or torchrun."""
    from hbae.batch.training import join_training

    team = join_training()
    output = start_output(team, as_json, quiet, verbose)
    asked: dict[str, Any] = {
        "preset": preset,
        "variables": split_list(variables),
        "budget": budget,
        "seed": seed,
        "batch": batch,
        "slim": slim,
        "overwrite": force,
    }
    kept = {"checkpoint": checkpoint, "save_seconds": save_every, "log": log, "mixed": mixed, "folder": scratch}
    with ended_together(team):
        report = _run(team, output, sources, out, device, asked, kept)
    output.document(report.to_json())
    output.line(f"{report.path}: {report.size:,} bytes, {report.model_size:,} of them go into archives")
    output.line(
        f"{len(report.names)} variables, {report.hyper_blocks:,} hyper-blocks, {report.steps:,} steps, "
        f"{report.seconds:.1f} s; mean NRMSE {number(report.mean_nrmse)} on training data"
    )
    if report.slim is not None:
        before, after = report.slim["bytes_before"], report.slim["bytes_after"]
        output.line(f"weights of the decoder: {before:,} bytes before slimming, {after:,} after")


def _run(
    team: Team,
    output: Output,
    sources: list[Path],
    out: Path,
    device: str,
    asked: dict[str, Any],
    kept: dict[str, Any],
) -> TrainReport:
    from hbae.batch.training import agree, close_group, form_group
    from hbae.ranks import agreed

    words = asked | kept | {"out": out, "device": device, "files": ", ".join(map(str, sources))}
    place = agree(team, device, sources, words)
    if find_spec("torch") is None:
        raise MissingExtraError("torch", "torch")
    from hbae.pipeline.training import check_outputs
    from hbae.pipeline.training import train as run
    from hbae.train.loop import RunOptions

    options = RunOptions(**kept)

    def check() -> None:
        check_device(place.device)
        for source in sources:
            check_paths(source, out)
        check_outputs(out, options, overwrite=asked["overwrite"])

    agreed(team, check)
    ranks = form_group(team, place)
    with output.progress() as progress:
        report = run(
            sources,
            out,
            **asked,
            device=place.device,
            threads=place.threads,
            run=replace(options, ranks=ranks),
            progress=progress,
        )
    close_group(team)
    return report
