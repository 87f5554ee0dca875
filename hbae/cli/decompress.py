# SPDX-License-Identifier: MIT
"""``hbae decompress``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Optional

import typer

from hbae.cli import options as o
from hbae.cli.ranks import ended_together, start_output, team_for
from hbae.cli.values import check_paths, parse_window, reading_backend, split_list
from hbae.errors import FormatError

DAMAGED = FormatError.exit_code


def decompress(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The archive.")],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="OUT", help="The output: .nc, .zarr, .npy, .h5.")],
    variables: o.Variables = None,
    window: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(metavar="DIM=A:B,...", help="Half-open index ranges: time=0:10,lat=3:40."),
    ] = None,
    salvage: Annotated[bool, typer.Option("--salvage", help="Give what a damaged archive still holds.")] = False,
    provenance: Annotated[bool, typer.Option("--provenance/--no-provenance", help="Add hbae_* attributes.")] = True,
    device: o.ReadingDevice = "auto",
    threads: o.Threads = None,
    scratch: o.Scratch = None,
    force: o.Force = False,
    model: o.SharedModel = None,
    ranks: o.Ranks = None,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = 0,
) -> None:
    """Write an archive's variables to a file; every value has passed its checks."""
    names, ranges = split_list(variables), parse_window(window)
    team = team_for(ranks)
    output = start_output(team, as_json, quiet, verbose)
    from hbae.pipeline.decompress import decompress_file
    from hbae.ranks import together

    begin = time.monotonic()
    with ended_together(team), output.progress() as progress:
        together(team, lambda: check_paths(file, out))
        backend = together(team, lambda: reading_backend(device))
        result = decompress_file(
            file,
            out,
            variables=names,
            window=ranges,
            salvage=salvage,
            overwrite=force,
            scratch=scratch,
            provenance=provenance,
            progress=progress,
            backend=backend,
            model=model,
            threads=threads,
            team=team,
        )
    spent = time.monotonic() - begin
    lost = [{"variable": v, "chunk": n if n >= 0 else None, "message": m} for v, n, m in result.lost]
    output.document({"path": str(file), "out": str(out), "lost": lost, "seconds": spent})
    for v, n, m in result.lost:
        output.line(f"lost: {v}, {f'chunk {n}' if n >= 0 else 'all'}: {m}")
    output.line(f"{out} written in {spent:.1f} s" + (f"; {len(lost)} parts are lost" if lost else ""))
    if lost:
        raise typer.Exit(DAMAGED)
