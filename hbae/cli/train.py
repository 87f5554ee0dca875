# SPDX-License-Identifier: MIT
"""``hbae train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hbae.cli import options as o
from hbae.cli.output import Output, number
from hbae.cli.values import check_device, check_paths, split_list


def train(
    sources: Annotated[list[Path], typer.Argument(metavar="IN...", help="Files with the same variables.")],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="MODEL", help="The model file (.hbm).")],
    preset: o.Preset = "auto",
    variables: o.Variables = None,
    budget: Annotated[str, typer.Option(metavar="120s", help="How long: 120s, 5m, 40ep.")] = "120s",
    device: o.Device = "cpu",
    slim: Annotated[bool, typer.Option(help="Prune and quantise the decoder, within the budget.")] = False,
    seed: o.Seed = 0,
    force: o.Force = False,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = 0,
) -> None:
    """Train a model that compress can use for files of the same kind."""
    output = Output.start(as_json, quiet, verbose)
    for source in sources:
        check_paths(source, out)
    from hbae.pipeline.training import train as run

    with output.progress() as progress:
        report = run(
            sources,
            out,
            preset=preset,
            variables=split_list(variables),
            budget=budget,
            device=check_device(device),
            seed=seed,
            overwrite=force,
            slim=slim,
            progress=progress,
        )
    output.document(report.to_json())
    output.line(f"{report.path}: {report.size:,} bytes, {report.model_size:,} of them go into archives")
    output.line(
        f"{len(report.names)} variables, {report.hyper_blocks:,} hyper-blocks, {report.steps:,} steps, "
        f"{report.seconds:.1f} s; mean NRMSE {number(report.mean_nrmse)} on training data"
    )
    if report.slim is not None:
        before, after = report.slim["bytes_before"], report.slim["bytes_after"]
        output.line(f"weights of the decoder: {before:,} bytes before slimming, {after:,} after")
