# SPDX-License-Identifier: MIT
"""Write E3SM-like climate output (PSL, TS and SST with land masked) to a NetCDF file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from _write import write

from hbae.synth import E3SMConfig, e3sm_stream


def main(
    out: Annotated[Path, typer.Option("-o", "--out", help="File to write.")],
    steps: Annotated[int, typer.Option(help="Time steps of 6 hours.")] = 240,
    nlat: Annotated[int, typer.Option(help="Latitudes.")] = 180,
    nlon: Annotated[int, typer.Option(help="Longitudes.")] = 360,
    seed: Annotated[int, typer.Option(help="Seed; same seed, same bits.")] = 0,
    deflate: Annotated[int, typer.Option(help="zlib level 1 to 9; 0 stores contiguously.")] = 0,
    force: Annotated[bool, typer.Option("-f", "--force", help="Overwrite an existing file.")] = False,
) -> None:
    """Write E3SM-like output: (time, lat, lon), three variables."""
    write(
        lambda: e3sm_stream(E3SMConfig(steps=steps, nlat=nlat, nlon=nlon, seed=seed)), out, deflate=deflate, force=force
    )


if __name__ == "__main__":
    typer.run(main)
