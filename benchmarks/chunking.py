# SPDX-License-Identifier: MIT
"""What cutting a field into chunks costs each corrector: bytes by chunk size, each corrector on its own.

``python benchmarks/chunking.py FILE... -o RESULT.json --bound 1e-3 --chunks 4,16,64,128`` compresses without a model,
with plans of one corrector only, by bytes of decoded chunks in MiB; a field of no more than 128 MiB is whole in the
last. Differences (Lorenzo), interpolation, wavelets and transforms are chosen with their own variants and steps each
time.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any
from unittest import mock

import typer
from _heading import heading

import hbae
from hbae.pipeline import calibrate
from hbae.pipeline.families import Task, family_tasks
from hbae.pipeline.setting import Setting

CORRECTORS: dict[str, Callable[[Task], bool]] = {
    "lorenzo": lambda t: t[:2] == ("points", "lorenzo"),
    "interpolation": lambda t: t[:2] == ("points", "interpolation"),
    "wavelet": lambda t: t[:2] == ("points", "wavelet"),
    "transform": lambda t: t[0] == "transform",
}


def measure(path: Path, bound: str, corrector: str, chunk: float, folder: Path) -> dict[str, Any]:
    """Compress with one corrector."""

    def tasks(s: Setting) -> list[Task]:
        return [t for t in family_tasks(s) if CORRECTORS[corrector](t)]

    out = folder / "a.hbae"
    with mock.patch.object(calibrate, "family_tasks", tasks):
        report = hbae.compress(
            path, out, bound=f"nrmse={bound}", chunk=chunk, overwrite=True, threads=1, method="linear"
        )
    row = {
        "file": path.name,
        "corrector": corrector,
        "chunk_mib": chunk,
        "bytes": report.size,
        "mean_nrmse": report.mean_nrmse,
        "plans": sorted({v.method for v in report.variables}),
    }
    print(row, flush=True)
    return row


def main(
    files: Annotated[list[Path], typer.Argument(help="Fields.")],
    out: Annotated[Path, typer.Option("-o", help="The result.")],
    bound: Annotated[str, typer.Option(help="NRMSE.")] = "1e-3",
    chunks: Annotated[str, typer.Option(help="MiB.")] = "4,16,64,128",
) -> None:
    """Run the benchmark."""
    doc: dict[str, Any] = {**heading(), "bound": bound, "rows": []}
    with tempfile.TemporaryDirectory() as folder:
        for path in files:
            for corrector in CORRECTORS:
                for chunk in chunks.split(","):
                    doc["rows"].append(measure(path, bound, corrector, float(chunk), Path(folder)))
                    out.write_text(json.dumps(doc, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
