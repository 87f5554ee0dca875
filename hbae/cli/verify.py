# SPDX-License-Identifier: MIT
"""``hbae verify``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from hbae.cli import options as o
from hbae.cli.output import Output, number
from hbae.cli.ranks import ended_together, start_output, team_for
from hbae.cli.values import reading_backend, split_list
from hbae.errors import ConfigError, FormatError, VerificationError

if TYPE_CHECKING:
    from hbae.compare.tally import QuantityRow
    from hbae.pipeline.verify import Verification


def verify(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The archive.")],
    against: Annotated[Optional[Path], typer.Option(metavar="ORIGINAL", help="Check every bound too.")] = None,  # noqa: UP045
    qoi: o.Quantities = None,
    model: o.SharedModel = None,
    device: o.ReadingDevice = "auto",
    threads: o.Threads = None,
    scratch: o.Scratch = None,
    ranks: o.Ranks = None,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = 0,
) -> None:
    """Decode everything and check every checksum; against the original, every bound from scratch."""
    names = _names(qoi, against)
    team = team_for(ranks)
    output = start_output(team, as_json, quiet, verbose)
    from hbae.pipeline.api import verify as run
    from hbae.ranks import agreed, together

    with ended_together(team), output.progress() as progress:
        backend = together(team, lambda: reading_backend(device))
        options: dict[str, Any] = {"backend": backend, "model": model, "scratch": scratch, "threads": threads}
        result = run(file, against, progress=progress, comm=team, **options)
        wanted = names if result.comparable else ()
        rows = agreed(team, lambda: _quantities(file, against, wanted, model) if wanted else [])
    doc = result.to_json()
    if names:
        doc["quantities"] = [r.to_json() for r in rows]
    code = 0
    if result.damaged:
        doc |= {"error": f"{len(result.damaged)} damaged parts", "kind": FormatError.__name__}
        code = FormatError.exit_code
    elif result.failures:
        doc |= {"error": f"{len(result.failures)} comparisons failed", "kind": VerificationError.__name__}
        code = VerificationError.exit_code
    output.document(doc)
    _show(result, output)
    _show_quantities(rows, output)
    if code:
        raise typer.Exit(code)


def _names(qoi: list[str] | None, against: Path | None) -> tuple[str, ...]:
    names = split_list(qoi)
    if names:
        from hbae.compare.quantities import check_names

        check_names(names)
        if against is None:
            raise ConfigError("qoi: quantities are compared with an original; give --against too")
    return names


def _quantities(file: Path, against: Path | None, names: tuple[str, ...], model: Path | None) -> list[QuantityRow]:
    from hbae.compare.quantities import quantities

    return quantities(file, against, names, model=model)


def _show_quantities(rows: list[QuantityRow], output: Output) -> None:
    """Print quantities of interest: mean before and after, errors."""
    if rows:
        columns = ("quantity", "before", "after", "RMS error", "relative", "max error")
        numbers = [(r.before, r.after, r.rmse, r.relative, r.max_error) for r in rows]
        cells = [
            (r.name, f"{n[0]:.6g}", f"{n[1]:.6g}", *map(number, n[2:])) for r, n in zip(rows, numbers, strict=True)
        ]
        output.table(columns, cells, numbers=5)


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
