# SPDX-License-Identifier: MIT
"""Plans like those of another file: what that costs in bytes and saves in time.

``python benchmarks/like.py FILE... -o RESULT.json --bounds 1e-2,1e-3`` cuts each file in two along the first axis of
its largest variable. The first half is compressed to each NRMSE; the second one as well, with its plans chosen and with
plans like the first one's, on one core each.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer
import xarray as xr
from _heading import heading

import hbae
from hbae.io import open_field, to_dataset


def main(
    sources: Annotated[list[Path], typer.Argument(help="Files to cut in two.")],
    out: Annotated[Path, typer.Option("-o", help="Result.")],
    bounds: Annotated[str, typer.Option(help="NRMSE bounds.")] = "1e-2,1e-3",
) -> None:
    """Run the benchmark."""
    doc: dict[str, Any] = {**heading(), "rows": []}
    with tempfile.TemporaryDirectory(prefix="hbae-like-") as folder:
        for source in sources:
            first, second = halves(to_dataset(open_field(source)).load())
            for bound in bounds.split(","):
                row = {"file": source.name, "bound": float(bound), **compared(first, second, bound, Path(folder))}
                typer.echo(str(row))
                doc["rows"].append(row)
    out.write_text(json.dumps(doc, indent=1) + "\n", "utf-8")


def halves(data: xr.Dataset) -> tuple[xr.Dataset, xr.Dataset]:
    """Cut along the first axis of the largest variable."""
    axis = max(data.data_vars.values(), key=lambda v: v.nbytes).dims[0]
    n = data.sizes[axis] // 2
    return data.isel({axis: slice(0, n)}), data.isel({axis: slice(n, 2 * n)})


def compressed(data: xr.Dataset, path: Path, bound: str, like: Path | None = None) -> tuple[int, float]:
    """Give bytes and seconds after reading."""
    report = hbae.compress(data, path, f"nrmse={bound}", overwrite=True, threads=1, like=like)
    return report.size, report.seconds["choose"] + report.seconds["encode"]


def compared(first: xr.Dataset, second: xr.Dataset, bound: str, folder: Path) -> dict[str, Any]:
    """Compress the second half both ways."""
    old, new = folder / "old.hbae", folder / "new.hbae"
    compressed(first, old, bound)
    size, seconds = compressed(second, new, bound)
    size_like, seconds_like = compressed(second, new, bound, old)
    return {
        "bytes": size,
        "bytes_like": size_like,
        "bytes_ratio": round(size_like / size, 4),
        "seconds": round(seconds, 2),
        "seconds_like": round(seconds_like, 2),
        "times_faster": round(seconds / seconds_like, 1),
    }


if __name__ == "__main__":
    typer.run(main)
