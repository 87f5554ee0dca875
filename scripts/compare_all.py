# SPDX-License-Identifier: MIT
"""One table over all data of ``compare_all.yaml``: hbae's whole file beside rivals at equal achieved error.

``python scripts/compare_all.py -o OUT --data FOLDER`` compares what can be made or found in the folders (and in
``HBAE_DATA``), smallest first, and writes ``compare_all.json`` after every row of the table.
"""

from __future__ import annotations

import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console

from hbae.cli.output import plain
from hbae.compare.environment import machine, versions
from hbae.compare.run import CompareOptions, Comparison, compare_file
from hbae.compare.table import Row
from hbae.errors import HbaeError
from hbae.io import open_field, to_dataset
from hbae.pipeline.api import compress
from hbae.synth import E3SMConfig, S3DConfig, XGCConfig, e3sm_stream, s3d_stream, write_stream, xgc_stream

LIST = Path(__file__).with_suffix(".yaml")
MAKERS: dict[str, Any] = {
    "s3d": lambda k: s3d_stream(replace(S3DConfig(), **k)),
    "xgc": lambda k: xgc_stream(replace(XGCConfig(), **k)),
    "e3sm": lambda k: e3sm_stream(replace(E3SMConfig(), **k)),
}
# What "never larger than the better rival" leaves: 2 % and 1 KB.
SLACK, ROOM = 1.02, 1000
console = Console(width=None if sys.stdout.isatty() else 150, highlight=False)


def main(
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for made data and the result.")],
    data: Annotated[list[Path] | None, typer.Option(metavar="FOLDER", help="Where files are looked for.")] = None,
    bounds: Annotated[str, typer.Option(help="Bounds.")] = "1e-2,1e-3,1e-4",
    metric: Annotated[str, typer.Option(help="nrmse or max.")] = "nrmse",
    rivals: Annotated[str, typer.Option(help="Rivals by name, or all.")] = "sz3,sperr",
    threads: Annotated[int, typer.Option(help="Single-core jobs side by side.")] = 2,
    most: Annotated[float, typer.Option("--max-mb", help="Leave out larger files.")] = 100,
    only: Annotated[str, typer.Option(metavar="TEXT,...", help="Names that contain one of these.")] = "",
) -> None:
    """Run all comparisons; what cannot be made, found or compared is named."""
    out.mkdir(exist_ok=True, parents=True)
    folders = [*(data or []), *(Path(p) for p in os.environ.get("HBAE_DATA", "").split(os.pathsep) if p)]
    options = CompareOptions(
        bounds=tuple(float(b) for b in bounds.split(",")),
        metric=metric,
        rivals=tuple(rivals.split(",")),
        threads=threads,
    )
    doc: dict[str, Any] = {
        "command": " ".join(["python", *sys.argv]),
        "date": date.today().isoformat(),
        "configuration": options.to_json(),
        "versions": versions(),
        "machine": machine(),
        "rows": [],
        "left_out": {},
    }
    found = []
    for entry in yaml.safe_load(LIST.read_text()):
        if not any(text in entry["name"] for text in only.split(",")):
            continue
        try:
            found.append((path_of(entry, out, folders, most), entry))
        except (HbaeError, OSError) as e:
            doc["left_out"][entry["name"]] = str(e)
    for path, entry in sorted(found, key=lambda f: f[0].stat().st_size):
        begin = time.monotonic()
        try:
            result = compare_file(path, options)
            rows = list(rows_of(entry, result, rest_of(path, list(result.rows[0][0].errors))))
        except HbaeError as e:
            doc["left_out"][entry["name"]] = str(e)
            continue
        doc["rows"] += rows
        (out / "compare_all.json").write_text(json.dumps(plain(doc), indent=1, allow_nan=False) + "\n")
        for row in rows:
            console.print(line_of(row))
        console.print(f"  {time.monotonic() - begin:.0f} s")
    for name, why in doc["left_out"].items():
        console.print(f"left out: {name}: {why}")


def path_of(entry: dict[str, Any], out: Path, folders: list[Path], most: float) -> Path:
    """Find the file of an entry, or make it.

    Raises
    ------
    FileNotFoundError
        When it is in no folder, or too large.
    """
    if "made" in entry:
        settings = dict(entry["made"])
        stream = MAKERS[settings.pop("kind")](settings)
        if stream.nbytes > most * 1e6:
            raise FileNotFoundError(f"{stream.nbytes / 1e6:,.0f} MB, more than --max-mb")
        path = out / (entry["name"].split(",")[0].replace(" ", "-") + ".nc")
        if not path.exists():
            write_stream(stream, path)
        return path
    hits = [hit for folder in folders for hit in sorted(folder.rglob(entry["file"]))]
    if not hits:
        raise FileNotFoundError(f"{entry['file']} is in no folder of --data")
    if hits[0].stat().st_size > most * 1e6:
        raise FileNotFoundError(f"{hits[0].stat().st_size / 1e6:,.0f} MB, more than --max-mb")
    return hits[0]


def rest_of(path: Path, names: list[str]) -> int:
    """Give the length of an archive of all that is not compared: rivals store nothing of it."""
    rest = to_dataset(open_field(path)).drop_vars(names, errors="ignore")
    with tempfile.TemporaryDirectory() as folder:
        return compress(rest, Path(folder) / "rest.hbae", "abs=1", method="lossless").size


def sizes_of(rows: list[Row]) -> dict[str, int]:
    """Give the bytes of rivals on all variables; of those that one cannot take, the fewest of the others count for it.

    A rival that lacks a variable which no other one takes is left out.
    """
    wanted, sizes = set(rows[0].errors), {}
    for row in rows[1:]:
        lacking = wanted - set(row.errors)
        least = [min((r.sizes[n] for r in rows[1:] if n in r.sizes), default=None) for n in lacking]
        if row.errors and None not in least:
            sizes[row.rival] = row.nbytes + sum(n for n in least if n is not None)
    return sizes


def rows_of(entry: dict[str, Any], result: Comparison, rest: int) -> Iterator[dict[str, Any]]:
    """Give one row for each bound: sizes, the ratio to each rival, and whether the aims are met."""
    aims = {float(b): a for b, a in entry.get("aims", {}).items()} if result.options.metric == "nrmse" else {}
    for bound, rows, own in zip(result.options.bounds, result.rows, result.own, strict=True):
        mine, sizes = rows[0], sizes_of(rows)
        best = min(sizes.values(), default=math.nan)
        aim = aims.get(bound, {})
        wanted = {name: (best if name == "best" else sizes.get(name, math.nan)) / times for name, times in aim.items()}
        yield {
            "name": entry["name"],
            "bound": bound,
            "raw_bytes": mine.raw_bytes,
            "hbae": mine.nbytes,
            "hbae_by_part": own["bytes_by_part"],
            "not_compared": rest,
            "rivals": sizes,
            "notes": [n for n in result.notes if n.startswith(f"{bound:g}: ")],
            "nrmse": {r.rival: r.mean_nrmse for r in rows},
            "max_error": {r.rival: r.max_error for r in rows},
            "encode_mb_s": {r.rival: r.encode_mb_s for r in rows},
            "decode_mb_s": {r.rival: r.decode_mb_s for r in rows},
            "over_best": best / mine.nbytes,
            "aim": aim,
            "aim_met": all(mine.nbytes <= size for size in wanted.values()) if aim else None,
            "not_larger": mine.nbytes <= SLACK * best + ROOM,
        }


def line_of(row: dict[str, Any]) -> str:
    """Give a row of the table as text."""
    sizes = "  ".join(f"{name} {size:>11,}" for name, size in row["rivals"].items())
    aim = ", ".join(f"{times:g} x {name}" for name, times in row["aim"].items())
    told = f"aim {aim}: {'met' if row['aim_met'] else 'not met'}" if aim else ""
    late = "" if row["not_larger"] else "LARGER"
    start = (
        f"{row['name'][:34]:34} {row['bound']:<7g} hbae {row['hbae']:>11,} (of other things {row['not_compared']:,})"
    )
    return f"{start}  {sizes}  {row['over_best']:.2f} x  {told}{late}"


if __name__ == "__main__":
    typer.run(main)
