# SPDX-License-Identifier: MIT
"""``hbae info``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from hbae.cli import options as o
from hbae.cli.output import Output


def info(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The archive.")],
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = 0,
) -> None:
    """Describe an archive without decoding a chunk."""
    output = Output.start(as_json, quiet, verbose)
    from hbae.pipeline.api import info as run

    doc = run(file, backend="numpy")
    output.document(doc)
    if output.human:
        _show(doc, output)


def _show(doc: dict[str, Any], output: Output) -> None:
    """Print the description as tables."""
    output.line(
        f"{doc['path']}: {doc['size']:,} bytes, format {doc['format']}, "
        f"written by hbae {doc['package']} from {doc['source_format']}"
    )
    none: tuple[int | None, dict[str, Any]] = (None, {})
    lossy = {p: (n, g) for n, g in enumerate(doc["groups"]) for p in g["variables"]}
    rows = []
    for v in doc["variables"]:
        n, g = lossy.get(v["path"], none)
        at = g["variables"].index(v["path"]) if g else 0
        bounds = ", ".join(g["bounds"][at]) if "bounds" in g else "damaged" if g else "lossless"
        shape = ", ".join(f"{d}={s}" for d, s in zip(v["dims"], v["shape"], strict=True))
        rows.append((v["path"], v["dtype"], shape, "-" if n is None else str(n), bounds))
    output.table(("variable", "type", "shape", "group", "bound"), rows)
    if doc["groups"]:
        columns = ("group", "variables", "stages", "model", "block", "chunks")
        output.table(columns, [_group(n, g) for n, g in enumerate(doc["groups"])], numbers=1)
    output.table(("part", "bytes"), [(k, f"{n:,}") for k, n in doc["sizes"].items()], numbers=1)


def _group(n: int, g: dict[str, Any]) -> tuple[str, ...]:
    count = str(len(g["variables"]))
    if "damaged" in g:
        return str(n), count, f"damaged: {g['damaged']}", "-", "-", "-"
    block = "x".join(str(b) for b in g["geometry"].get("block", ()))
    return str(n), count, " ".join(g["stages"]), str(g["model"] or "-")[:16], block, str(g["chunks"])
