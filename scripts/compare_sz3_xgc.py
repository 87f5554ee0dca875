# SPDX-License-Identifier: MIT
"""hbae beside SZ3 and others on an XGC-like plasma distribution, as the paper's third comparison in kind."""

from __future__ import annotations

from pathlib import Path

import typer
from _compare import USUAL, Ablation, Bounds, Data, Out, Plan, Rivals, Threads, TrainFor, run

from hbae.synth import XGCConfig, xgc_stream


def main(
    out: Out = Path("compare-xgc"),
    data: Data = None,
    planes: int = 8,
    nodes: int = 2048,
    velocities: int = 39,
    seed: int = 0,
    bounds: Bounds = "1e-2,1e-3,1e-4",
    rivals: Rivals = USUAL,
    budget: TrainFor = "300s",
    threads: Threads = 2,
    ablation: Ablation = True,
) -> None:
    """Make the distribution (or take a file), train, compare at equal error, take the model apart."""
    sizes = {"planes": planes, "nodes": nodes, "nperp": velocities, "npar": velocities, "seed": seed}
    run(
        Plan(
            name="xgc",
            preset="xgc",
            made=sizes,
            make=lambda: xgc_stream(XGCConfig(**sizes)),
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
