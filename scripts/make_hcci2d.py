# SPDX-License-Identifier: MIT
"""Compute a two-dimensional ignition with GRI-3.0 chemistry in every cell and write it to NetCDF; needs cantera."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from _write import write

from hbae.synth import HCCI2DConfig, Stream, hcci2d_stream


def main(
    out: Annotated[Path, typer.Option("-o", "--out", help="File to write.")],
    steps: Annotated[int, typer.Option(help="Times to write.")] = 50,
    ny: Annotated[int, typer.Option(help="Cells along y.")] = 64,
    nx: Annotated[int, typer.Option(help="Cells along x.")] = 64,
    substeps: Annotated[int, typer.Option(help="Splitting steps between two times.")] = 2,
    seed: Annotated[int, typer.Option(help="Seed; same seed, same bits.")] = 0,
    processes: Annotated[int, typer.Option(help="Processes for the chemistry.")] = 2,
    deflate: Annotated[int, typer.Option(help="zlib level 1 to 9; 0 stores contiguously.")] = 0,
    force: Annotated[bool, typer.Option("-f", "--force", help="Overwrite an existing file.")] = False,
) -> None:
    """Compute an ignition in two dimensions: (time, y, x), 54 variables; about 10 ms per cell and substep on a core."""

    def make() -> Stream:
        return hcci2d_stream(HCCI2DConfig(steps=steps, ny=ny, nx=nx, substeps=substeps, seed=seed, processes=processes))

    write(make, out, deflate=deflate, force=force)


if __name__ == "__main__":
    typer.run(main)
