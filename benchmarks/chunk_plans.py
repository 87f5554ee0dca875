# SPDX-License-Identifier: MIT
"""What a plan of its own for each chunk would give: chunks as files of their own, at the errors they have in the whole.

``python benchmarks/chunk_plans.py FILE... -o RESULT.json --bounds 1e-3`` compresses each file, and then each of the
boxes that its chunks are as a file whose variables are held to the errors that they had there. ``plans``: bytes of the
groups' sections. ``chunks``: bytes of the chunks; with plans of their own, the sum over the files.
"""

from __future__ import annotations

import itertools
import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
import xarray as xr
from _heading import heading

import hbae
from hbae.io import open_field, to_dataset


def main(
    sources: Annotated[list[Path], typer.Argument(help="Files with one grid.")],
    out: Annotated[Path, typer.Option("-o", help="Result.")],
    bounds: Annotated[str, typer.Option(help="NRMSE bounds.")] = "1e-3",
) -> None:
    """Run the benchmark."""
    doc: dict[str, Any] = {**heading(), "rows": []}
    with tempfile.TemporaryDirectory(prefix="hbae-chunks-") as folder:
        for source in sources:
            data = to_dataset(open_field(source)).load()
            for bound in bounds.split(","):
                row = {"file": source.name, "bound": float(bound), **compared(data, bound, Path(folder) / "a.hbae")}
                typer.echo(str(row))
                doc["rows"].append(row)
    out.write_text(json.dumps(doc, indent=1) + "\n", "utf-8")


def compared(data: xr.Dataset, bound: str, path: Path) -> dict[str, Any]:
    """Compress whole, and box by box."""
    hbae.compress(data, path, f"nrmse={bound}", overwrite=True)
    whole, decoded = hbae.info(path), hbae.decompress(path)
    group = max(whole["groups"], key=lambda g: len(g["variables"]))
    apart: Counter[str] = Counter()
    boxes = boxes_of(data[group["variables"][0]].dims, group["geometry"])
    for box in boxes:
        hbae.compress(data.isel(box), path, held(data.isel(box), decoded.isel(box)), overwrite=True)
        apart.update(parts(hbae.info(path)))
    return {"chunks_of_the_grid": len(boxes), "one_plan": parts(whole), "plans_of_their_own": dict(apart)}


def boxes_of(dims: tuple[Any, ...], geometry: dict[str, list[int]]) -> list[dict[Any, slice]]:
    """Give the boxes of a grid's chunks."""
    starts = [range(0, n, c) for n, c in zip(geometry["shape"], geometry["chunk"], strict=True)]
    places = itertools.product(*starts)
    return [{d: slice(a, a + c) for d, a, c in zip(dims, at, geometry["chunk"], strict=True)} for at in places]


def held(data: xr.Dataset, decoded: xr.Dataset) -> list[str]:
    """Give bounds that are the errors that variables have."""
    found = []
    for name, v in data.data_vars.items():
        error, span = (decoded[name] - v).astype(np.float64).values, float(v.max() - v.min())
        rmse = float(np.sqrt((error * error).mean())) if v.dtype.kind == "f" else 0.0
        if span > 0 and rmse > 0:
            found.append(f"{name}:nrmse={rmse / span:.6g}")
    return found


def parts(info: dict[str, Any]) -> dict[str, int]:
    """Give bytes of plans, of chunks, of all else."""
    sizes = info["sizes"]
    plans = sum(n for k, n in sizes.items() if k.startswith("group"))
    return {"plans": plans, "chunks": sizes["chunks"], "else": info["size"] - plans - sizes["chunks"]}


if __name__ == "__main__":
    typer.run(main)
