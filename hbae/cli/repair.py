# SPDX-License-Identifier: MIT
"""``hbae repair``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from hbae.cli import options as o
from hbae.cli.output import Output


def repair(
    part: Annotated[Path, typer.Argument(metavar="PATH.part", help="What a killed stream left.")],
    out: Annotated[Optional[Path], typer.Option("-o", "--out", metavar="OUT.hbae", help="The archive.")] = None,  # noqa: UP045
    salvage: Annotated[
        bool, typer.Option("--salvage", help="Give the steps before damage, and remove nothing.")
    ] = False,
    force: o.Force = False,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = 0,
) -> None:
    """Write the archive of a stream that was not closed: every step that had been stored is in it."""
    output = Output.start(as_json, quiet, verbose)
    from hbae.pipeline.stream.repair import repair as run

    report = run(part, out, overwrite=force, salvage=salvage)
    output.document(report.to_json())
    output.line(f"{report.path}: {report.size:,} bytes, {report.steps} steps, CR {report.cr:.2f}")
    if report.cut:
        output.line(f"note: {report.cut:,} bytes of a torn or damaged end were left out")
    for note in report.notes:
        output.line(f"damaged: {note}")
