# SPDX-License-Identifier: MIT
"""``hbae compress``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from hbae.cli import options as o
from hbae.cli.output import MAX_ROWS, Output, number, seconds
from hbae.cli.ranks import ended_together, start_output, team_for
from hbae.cli.values import check_device, check_paths, parse_block, parse_ranges, split_list

if TYPE_CHECKING:
    from hbae.pipeline.report import Report

Text = Optional[str]  # noqa: UP045


def compress(
    source: Annotated[Path, typer.Argument(metavar="IN", help="NetCDF, HDF5, Zarr, NPY, or raw with a description.")],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="OUT.hbae", help="The archive.")],
    bound: o.Bounds = None,
    size: Annotated[Text, typer.Option(metavar="BYTES", help="Largest file: 1500000, 20MB, 1.5MiB.")] = None,
    cr: Annotated[Optional[float], typer.Option(metavar="X", help="Smallest ratio.")] = None,  # noqa: UP045
    variables: o.Variables = None,
    model: Annotated[Optional[Path], typer.Option(metavar="MODEL", help="A trained model.")] = None,  # noqa: UP045
    budget: Annotated[Text, typer.Option(metavar="60s", help="Train a model for so long: 60s, 5m, 40ep.")] = None,
    method: Annotated[str, typer.Option(metavar="M", help="auto, hbae, linear, or lossless (no bound).")] = "auto",
    preset: o.Preset = "auto",
    device: o.Device = "cpu",
    threads: Annotated[Optional[int], typer.Option(metavar="N", help="Worker processes.")] = None,  # noqa: UP045
    seed: o.Seed = 0,
    block: Annotated[Text, typer.Option(metavar="SHAPE", help="Points of a block, for example 8x8x4.")] = None,
    chunk: Annotated[float, typer.Option(metavar="MIB", help="Decoded size of a chunk.")] = 32.0,
    ranges: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--range", metavar="VAR=LO:HI", help="Range that relative bounds refer to."),
    ] = None,
    embed: Annotated[bool, typer.Option("--embed/--no-embed", help="Put the model into the archive.")] = True,
    redundant: Annotated[bool, typer.Option("--redundant", help="Keep what all chunks need twice.")] = False,
    fast: Annotated[bool, typer.Option("--fast", help="Only plans that are quick to decode.")] = False,
    like: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(metavar="ARCHIVE", help="Take the plans of that archive where they suit: nothing is chosen."),
    ] = None,
    scratch: o.Scratch = None,
    share: o.Ranks = None,
    force: o.Force = False,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = 0,
) -> None:
    """Write an archive in which every bound holds on the values that a reader gets.

    Kinds of bound: nrmse, block_nrmse, psnr, l2, abs, rel_range, pw_rel. With --size or --cr the tightest bound is
    searched whose file is that small: of kind nrmse, or the bounds given, all scaled by one factor.
    """
    shape, spans = parse_block(block), parse_ranges(ranges)
    team = team_for(share)
    output = start_output(team, as_json, quiet, verbose)
    from hbae.pipeline.api import compress as run
    from hbae.ranks import together

    with ended_together(team), output.progress() as progress:
        together(team, lambda: _check(source, out, device))
        report = run(
            source,
            out,
            bound or None,
            comm=team,
            variables=split_list(variables),
            model=model,
            budget=budget,
            method=method,
            preset=preset,
            device=device,
            threads=threads,
            seed=seed,
            block=shape,
            chunk=chunk,
            ranges=spans,
            embed=embed,
            redundant=redundant,
            fast=fast,
            like=like,
            overwrite=force,
            scratch=scratch,
            size=size,
            cr=cr,
            progress=progress,
        )
    output.document(report.to_json())
    _show(report, output)


def _check(source: Path, out: Path, device: str) -> None:
    check_paths(source, out)
    check_device(device)


def _show(r: Report, output: Output) -> None:
    """Print sizes, errors, variables, notes and times."""
    place = "beside the file" if r.model_shared else "of them model"
    model = f" ({r.model_size:,} bytes {place})" if r.model_size else ""
    worst = max((v.max_error for v in r.variables), default=0.0)
    output.line(f"{r.path}: {r.size:,} bytes{model}, CR {r.cr:.2f}, {number(r.bits_per_value)} bits/value")
    output.line(f"NRMSE mean {number(r.mean_nrmse)}, max {number(r.max_nrmse)}; max error {number(worst)}")
    rows = [
        (v.path, ", ".join(v.bounds), v.method, number(v.span), number(v.nrmse), number(v.psnr), number(v.max_error))
        for v in r.variables
    ]
    columns = ("variable", "bound", "method", "range", "NRMSE", "PSNR", "max error")
    output.table(columns, rows, numbers=4)
    notes = [*r.notes, *(f"{v.path}: kept without loss: {v.note}" for v in r.variables if v.note)]
    for note in notes[:MAX_ROWS]:
        output.line(f"note: {note}")
    if len(notes) > MAX_ROWS:
        output.line(f"... {len(notes) - MAX_ROWS} more notes")
    output.line(f"seconds: {seconds(r.seconds)}")
    output.line("every bound was checked on decoded values")
