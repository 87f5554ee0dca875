# SPDX-License-Identifier: MIT
"""hbae beside SZ3 and others on E3SM-like climate fields, as the paper's second comparison in kind."""

from __future__ import annotations

from pathlib import Path

import typer
from _compare import USUAL, Ablation, Bounds, Data, Out, Plan, Rivals, Threads, TrainFor, run

from hbae.synth import E3SMConfig, e3sm_stream


def main(
    out: Out = Path("compare-e3sm"),
    data: Data = None,
    steps: int = 240,
    nlat: int = 180,
    nlon: int = 360,
    seed: int = 0,
    bounds: Bounds = "1e-2,1e-3,1e-4",
    rivals: Rivals = USUAL,
    budget: TrainFor = "300s",
    threads: Threads = 2,
    ablation: Ablation = True,
) -> None:
    """Make the fields (or take a file), train, compare at equal error, take the model apart."""
    sizes = {"steps": steps, "nlat": nlat, "nlon": nlon, "seed": seed}
    run(
        Plan(
            name="e3sm",
            preset="e3sm",
            made=sizes,
            make=lambda: e3sm_stream(E3SMConfig(**sizes)),
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
