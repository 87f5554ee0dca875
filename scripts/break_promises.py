# SPDX-License-Identifier: MIT
"""Breaks every promise on purpose, one way after the other, and tells which ones the tests let through.

``python scripts/break_promises.py`` works in a copy of the tree; ``--only P6`` takes one row of the table in
docs/guarantee.md. The ways are in ``tests/broken/promises.toml``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import track

ROOT = Path(__file__).parent.parent
WAYS = Path("tests/broken/promises.toml")
LEFT_OUT = shutil.ignore_patterns(".venv", ".git", "__pycache__", "demo-output", "build", "*_cache", ".hypothesis")


def main(
    only: Annotated[str, typer.Option(metavar="ROW", help="Rows with this name: P1 ... P7, regions, stream, ...")] = "",
    limit: Annotated[int, typer.Option(metavar="S", help="Seconds for the tests of one way.")] = 600,
) -> None:
    """Apply each way, run its tests, and expect them to fail; exit code 1 where they pass."""
    ways = [w for w in tomllib.loads((ROOT / WAYS).read_text())["break"] if only in ("", w["promise"])]
    missed = []
    with tempfile.TemporaryDirectory(prefix="hbae-broken-") as folder:
        copy = Path(folder) / "tree"
        shutil.copytree(ROOT, copy, ignore=LEFT_OUT)
        for way in track(ways, "breaking", disable=not sys.stderr.isatty()):
            begin = time.monotonic()
            verdict = broken(copy, way, limit)
            missed += [way["what"]] if verdict != "caught" else []
            print(f"{way['promise']:10} {verdict:12} {time.monotonic() - begin:6.1f} s  {way['what']}", flush=True)
    print(f"{len(ways) - len(missed)} of {len(ways)} were caught")
    raise typer.Exit(1 if missed else 0)


def broken(copy: Path, way: dict[str, Any], limit: int) -> str:
    """Say what the tests made of one way: caught, missed, or why it could not be tried."""
    file = copy / way["file"]
    text = file.read_text()
    if text.count(way["old"]) != 1:
        return "out of date"
    file.write_text(text.replace(way["old"], way["new"]))
    try:
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *way["tests"]]
        env = {**os.environ, "PYTHONPATH": str(copy)}
        code = subprocess.run(command, cwd=copy, env=env, capture_output=True, timeout=limit, check=False).returncode
    except subprocess.TimeoutExpired:
        return "caught"  # it hangs: nobody would take it for a pass
    finally:
        file.write_text(text)
    return {0: "missed", 1: "caught"}.get(code, f"no tests ({code})")


if __name__ == "__main__":
    typer.run(main)
