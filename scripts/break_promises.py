# SPDX-License-Identifier: MIT
"""Break every promise of docs/guarantee.md on purpose, one after the other, and see its tests fail.

The list is break_promises.yaml. Each change is made in a copy of the package and its tests; the tree stays as it is.
Exits 1 when a change is not caught, when its old text is not found exactly once, or when the tests fail without it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
import yaml

ROOT = Path(__file__).resolve().parent.parent
LIST = Path(__file__).with_suffix(".yaml")
COPIED = (
    "hbae",
    "tests",
    "docs",
    "scripts",
    "examples",
    "benchmarks",
    "pyproject.toml",
    "setup.py",
    "README.md",
    "LICENSE",
)
CAUGHT = "caught"


@dataclass(frozen=True, kw_only=True)
class Break:
    """One change: ``old`` stands in ``file`` exactly once; with ``new`` in its place one of ``tests`` must fail."""

    promise: str
    what: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    def applied(self, text: str) -> str:
        """Give the file's text with the change in it.

        Raises
        ------
        ValueError
            When the old text is not there exactly once.
        """
        count = text.count(self.old)
        if count != 1:
            raise ValueError(f"{self.file}: the old text stands there {count} times, not once")
        return text.replace(self.old, self.new)


def read_breaks(path: Path = LIST) -> list[Break]:
    """Give the list, in order."""
    return [Break(**{**doc, "tests": tuple(doc["tests"])}) for doc in yaml.safe_load(path.read_text())]


@contextmanager
def tree_copy() -> Iterator[Path]:
    """Give a folder with a copy of the package, compiled kernels included, and its tests."""
    with tempfile.TemporaryDirectory(prefix="hbae-break-") as name:
        for part in COPIED:
            source, target = ROOT / part, Path(name) / part
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            elif source.exists():
                shutil.copy2(source, target)
        yield Path(name)


def run_tests(folder: Path, tests: tuple[str, ...], limit: float) -> tuple[str, str]:
    """Run tests in a copy; give ``passed``, ``caught`` (one failed), or what else came of it, and the last lines."""
    env = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    where = subprocess.run(
        [sys.executable, "-c", "import hbae; print(hbae.__file__)"], cwd=folder, env=env, capture_output=True, text=True
    )
    if where.returncode == 0 and not Path(where.stdout.strip()).is_relative_to(folder):
        return "another package was tested", where.stdout
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    try:
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return f"no answer in {limit:.0f} s", ""
    # 1: tests failed. Others: nothing was run, or nothing could be collected.
    verdict = {0: "passed", 1: CAUGHT}.get(done.returncode, f"pytest ended with {done.returncode}")
    return verdict, (done.stdout + done.stderr)[-3000:]


def rebuilt(folder: Path, source: Path) -> bool:
    """Build a copy's kernels again; tell whether the one of that source, or any beside a header, is another now."""
    kernels = list(source.parent.glob(f"{source.stem}.*.so" if source.suffix == ".c" else "*.so"))
    before = [k.read_bytes() for k in kernels]
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace", "--force"]
    subprocess.run(command, cwd=folder, capture_output=True, check=True)
    return [k.read_bytes() for k in kernels] != before


def try_break(b: Break, limit: float) -> tuple[str, str, float]:
    """Give what came of a change, the last lines of the tests' output, and seconds."""
    begin = time.monotonic()
    with tree_copy() as folder:
        path = folder / b.file
        try:
            path.write_text(b.applied(path.read_text()))
        except ValueError as e:
            return str(e), "", 0.0
        if path.suffix in (".c", ".h") and not rebuilt(folder, path):
            return "the changed kernel was not built", "", time.monotonic() - begin
        verdict, tail = run_tests(folder, b.tests, limit)
    return ("MISSED" if verdict == "passed" else verdict), tail, time.monotonic() - begin


def main(
    only: Annotated[str, typer.Option(metavar="TEXT", help="Those whose promise or description contains this.")] = "",
    jobs: Annotated[int, typer.Option(help="How many at once.")] = 2,
    limit: Annotated[float, typer.Option(help="Seconds for one run of tests.")] = 300,
    verbose: Annotated[
        bool, typer.Option("-v", "--verbose", help="Print the output of tests that did not fail.")
    ] = False,
) -> None:
    """Break every promise of docs/guarantee.md, or those that are asked for, and see its tests fail."""
    chosen = [b for b in read_breaks() if only.lower() in f"{b.promise} {b.what}".lower()]
    if not chosen:
        raise typer.BadParameter(f"nothing in the list contains {only!r}")
    with tree_copy() as folder:
        tests = tuple(dict.fromkeys(t for b in chosen for t in b.tests))
        verdict, tail = run_tests(folder, tests, len(tests) * limit)
    if verdict != "passed":
        print(f"without any change: {verdict}\n{tail}", file=sys.stderr)
        raise typer.Exit(1)
    missed = 0
    with ThreadPoolExecutor(jobs) as pool:
        for b, (verdict, tail, seconds) in zip(chosen, pool.map(lambda b: try_break(b, limit), chosen), strict=True):
            missed += verdict != CAUGHT
            print(f"{verdict:8} {seconds:5.0f} s  {b.promise}: {b.what}", flush=True)
            if verbose and verdict != CAUGHT:
                print(tail)
    print(f"{len(chosen) - missed} of {len(chosen)} caught")
    raise typer.Exit(1 if missed else 0)


if __name__ == "__main__":
    typer.run(main)
