# SPDX-License-Identifier: MIT
"""hbae beside SZ3 and others on an S3D-like combustion run (54 variables), as the paper's first comparison in kind."""

from __future__ import annotations

from pathlib import Path

import typer
from _compare import USUAL, Ablation, Bounds, Data, Out, Plan, Rivals, Threads, TrainFor, run

from hbae.synth import S3DConfig, s3d_stream


def main(
    out: Out = Path("compare-s3d"),
    data: Data = None,
    steps: int = 50,
    ny: int = 192,
    nx: int = 192,
    seed: int = 0,
    bounds: Bounds = "1e-2,1e-3,1e-4",
    rivals: Rivals = USUAL,
    budget: TrainFor = "300s",
    threads: Threads = 2,
    ablation: Ablation = True,
) -> None:
    """Make the run (or take a file), train, compare at equal error, take the model apart."""
    sizes = {"steps": steps, "ny": ny, "nx": nx, "seed": seed}
    run(
        Plan(
            name="s3d",
            preset="s3d",
            made=sizes,
            make=lambda: s3d_stream(S3DConfig(**sizes)),
            out=out,
            data=data,
            bounds=bounds,
            rivals=rivals,
            budget=budget,
            threads=threads,
            ablation=ablation,
        )
    )


if __name__ == "__main__":
    typer.run(main)
