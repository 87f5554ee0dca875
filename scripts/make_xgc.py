# SPDX-License-Identifier: MIT
"""Write an XGC-like plasma distribution to a NetCDF file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from _write import write

from hbae.synth import Stream, XGCConfig, xgc_stream


def main(
    out: Annotated[Path, typer.Option("-o", "--out", help="File to write.")],
    planes: Annotated[int, typer.Option(help="Poloidal planes.")] = 8,
    nodes: Annotated[int, typer.Option(help="Mesh nodes of a plane.")] = 2048,
    velocities: Annotated[int, typer.Option(help="Points along each axis of the velocity grid.")] = 39,
    noise: Annotated[float, typer.Option(help="Noise at the peak, relative to it.")] = 0.003,
    double: Annotated[bool, typer.Option("--double", help="float64 instead of float32.")] = False,
    seed: Annotated[int, typer.Option(help="Seed; same seed, same bits.")] = 0,
    deflate: Annotated[int, typer.Option(help="zlib level 1 to 9; 0 stores contiguously.")] = 0,
    force: Annotated[bool, typer.Option("-f", "--force", help="Overwrite an existing file.")] = False,
) -> None:
    """Write an XGC-like distribution: (plane, node, vperp, vpar), one variable."""

    def make() -> Stream:
        sizes = {"planes": planes, "nodes": nodes, "nperp": velocities, "npar": velocities}
        return xgc_stream(XGCConfig(**sizes, noise=noise, double=double, seed=seed))

    write(make, out, deflate=deflate, force=force)


if __name__ == "__main__":
    typer.run(main)
