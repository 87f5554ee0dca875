# SPDX-License-Identifier: MIT
"""``hbae compare``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from hbae.cli import options as o
from hbae.cli.output import Output
from hbae.cli.values import check_paths, parse_numbers, split_list
from hbae.errors import OutputExistsError, VerificationError

if TYPE_CHECKING:
    from hbae.compare.run import Comparison

Text = Optional[str]  # noqa: UP045


def compare(
    source: Annotated[Path, typer.Argument(metavar="IN", help="NetCDF, HDF5, Zarr, NPY, or raw with a description.")],
    bounds: Annotated[str, typer.Option(metavar="1e-2,1e-3", help="Bounds of the metric, over the range.")],
    metric: Annotated[
        str, typer.Option(metavar="nrmse|max", help="What bounds are, and rivals are tuned to.")
    ] = "nrmse",
    rivals: Annotated[Text, typer.Option(metavar="sz3,sperr", help="Rivals by name, or all.")] = None,
    variables: o.Variables = None,
    qoi: o.Quantities = None,
    model: Annotated[Optional[Path], typer.Option(metavar="MODEL", help="A trained model.")] = None,  # noqa: UP045
    budget: Annotated[Text, typer.Option(metavar="60s", help="Train a model for so long: 60s, 5m, 40ep.")] = None,
    method: Annotated[str, typer.Option(metavar="M", help="auto, hbae, linear or lossless.")] = "auto",
    preset: o.Preset = "auto",
    seed: o.Seed = 0,
    threads: Annotated[Optional[int], typer.Option(metavar="N", help="Single-core jobs side by side.")] = None,  # noqa: UP045
    out: Annotated[Optional[Path], typer.Option("-o", "--out", metavar="HTML", help="A report to open.")] = None,  # noqa: UP045
    force: o.Force = False,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = 0,
) -> None:
    """Put hbae beside SZ3, SPERR, ZFP and others, each tuned to the error that hbae achieved.

    Needs the extra compare. Known rivals: sz3, sperr, zfp, pca+sz3, pca+sperr, ebcc, tthresh, zstd, pcodec.
    """
    output = Output.start(as_json, quiet, verbose)
    check_paths(source, out)
    if out is not None and out.exists() and not force:
        raise OutputExistsError(f"{out} exists; use -f to replace it")
    from hbae.compare.run import CompareOptions, compare_file

    options = CompareOptions(
        bounds=parse_numbers(bounds, "bounds"),
        metric=metric,
        **({"rivals": split_list([rivals])} if rivals is not None else {}),
        variables=split_list(variables),
        qoi=split_list(qoi),
        model=model,
        method=method,
        preset=preset,
        budget=budget,
        seed=seed,
        threads=threads or len(os.sched_getaffinity(0)),
    )
    with output.progress() as progress:
        result = compare_file(source, options, progress)
    doc = result.to_json()
    if out is not None:
        _write(result, out)
        doc["report"] = str(out)
    if not result.held:
        doc |= {"error": "hbae is over a bound", "kind": VerificationError.__name__}
    output.document(doc)
    _show(result, output)
    if out is not None:
        output.line(f"report: {out}")
    if not result.held:
        raise typer.Exit(VerificationError.exit_code)


def _write(result: Comparison, out: Path) -> None:
    from hbae.compare.page import page

    part = out.with_name(out.name + ".part")
    part.write_text(page(result), encoding="utf-8")
    part.replace(out)


def _show(result: Comparison, output: Output) -> None:
    """Print one table per bound, notes and terms."""
    if not output.human:
        return
    from hbae.compare.derived import table_of
    from hbae.compare.page import COLUMNS, cells
    from hbae.compare.run import TERMS

    columns = [name for name, _ in COLUMNS]
    for bound, rows in zip(result.options.bounds, result.rows, strict=True):
        output.line(f"{result.options.metric} {bound:g}")
        total = len(rows[0].errors)
        output.table(columns, [cells(r, total) for r in rows], numbers=len(columns) - 1)
        if result.options.qoi:
            head, body = table_of(rows)
            output.line(f"quantities at {bound:g}: mean before, mean after (RMS error, relative)")
            output.table(head, body, numbers=len(head) - 1)
    for note in result.notes:
        output.line(f"note: {note}")
    for term in TERMS:
        output.line(f"- {term}")
    if not result.held:
        output.line("hbae is OVER A BOUND")
