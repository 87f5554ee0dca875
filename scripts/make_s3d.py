# SPDX-License-Identifier: MIT
"""Write an S3D-like combustion run (53 mass fractions and temperature) to a NetCDF file; needs cantera."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from _write import write

from hbae.synth import S3DConfig, s3d_stream


def main(
    out: Annotated[Path, typer.Option("-o", "--out", help="File to write.")],
    steps: Annotated[int, typer.Option(help="Time steps.")] = 50,
    ny: Annotated[int, typer.Option(help="Cells along y.")] = 192,
    nx: Annotated[int, typer.Option(help="Cells along x.")] = 192,
    seed: Annotated[int, typer.Option(help="Seed; same seed, same bits.")] = 0,
    processes: Annotated[int, typer.Option(help="Processes for the table of ignitions.")] = 2,
    deflate: Annotated[int, typer.Option(help="zlib level 1 to 9; 0 stores contiguously.")] = 0,
    force: Annotated[bool, typer.Option("-f", "--force", help="Overwrite an existing file.")] = False,
) -> None:
    """Write an S3D-like combustion run: (time, y, x), 54 variables."""
    write(
        lambda: s3d_stream(S3DConfig(steps=steps, ny=ny, nx=nx, seed=seed, processes=processes)),
        out,
        deflate=deflate,
        force=force,
    )


if __name__ == "__main__":
    typer.run(main)
