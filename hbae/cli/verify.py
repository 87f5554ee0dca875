# SPDX-License-Identifier: MIT
"""``hbae verify``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from hbae.cli import options as o
from hbae.cli.output import Output, number
from hbae.errors import FormatError, VerificationError

if TYPE_CHECKING:
    from hbae.pipeline.verify import Verification


def verify(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The archive.")],
    against: Annotated[Optional[Path], typer.Option(metavar="ORIGINAL", help="Check every bound too.")] = None,  # noqa: UP045
    model: o.SharedModel = None,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = 0,
) -> None:
    """Decode everything and check every checksum; against the original, every bound from scratch."""
    output = Output.start(as_json, quiet, verbose)
    from hbae.pipeline.api import verify as run

    with output.progress() as progress:
        result = run(file, against, progress=progress, model=model)
    doc = result.to_json()
    code = 0
    if result.damaged:
        doc |= {"error": f"{len(result.damaged)} damaged parts", "kind": FormatError.__name__}
        code = FormatError.exit_code
    elif result.failures:
        doc |= {"error": f"{len(result.failures)} comparisons failed", "kind": VerificationError.__name__}
        code = VerificationError.exit_code
    output.document(doc)
    _show(result, output)
    if code:
        raise typer.Exit(code)


def _show(r: Verification, output: Output) -> None:
    """Print what was checked and what was found."""
    output.line(f"{r.path}: all frames, checksums and hashes of {len(r.hashes)} variables were checked")
    if r.against is not None:
        output.line(f"compared with {r.against}: bounds of {len(r.errors)} lossy variables, bits of the others")
        rows = [(path, number(e["nrmse"]), number(e["rmse"]), number(e["max_error"])) for path, e in r.errors.items()]
        if rows:
            output.table(("variable", "NRMSE", "RMSE", "max error"), rows, numbers=3)
    for text in r.damaged:
        output.line(f"damaged: {text}")
    for text in r.failures:
        output.line(f"failed: {text}")
    output.line("ok" if r.ok else "NOT OK")
