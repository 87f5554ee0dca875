# SPDX-License-Identifier: MIT
"""What commands print: tables for people on stdout, one JSON object for machines, progress on a terminal's stderr."""

from __future__ import annotations

import json
import logging
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

Progress = Callable[[str, float], None]
MAX_ROWS = 20
WIDTH = 140


@dataclass(frozen=True)
class Output:
    """Where results go; a quiet one prints nothing but JSON."""

    as_json: bool = False
    quiet: bool = False

    @staticmethod
    def start(as_json: bool, quiet: bool, verbose: int) -> Output:
        """Set logging up and give the output of a command."""
        level = logging.ERROR if quiet else (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)]
        logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(name)s: %(message)s")
        logging.getLogger("hbae").setLevel(level)
        return Output(as_json, quiet)

    @property
    def human(self) -> bool:
        """Tell whether people read along."""
        return not (self.as_json or self.quiet)

    def document(self, doc: dict[str, Any]) -> None:
        """Print the JSON object, if that was asked for."""
        if self.as_json:
            print(json.dumps(plain(doc), allow_nan=False))

    def line(self, text: str) -> None:
        """Print one line for people; long lines are left whole."""
        if self.human:
            print(text)

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: int = 0) -> None:
        """Print a table of at most about 20 rows; the last ``numbers`` columns stand to the right."""
        if not self.human:
            return
        from rich import box
        from rich.console import Console
        from rich.table import Table

        rows = list(rows)
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for i, name in enumerate(columns):
            table.add_column(name, justify="right" if i >= len(columns) - numbers else "left", overflow="fold")
        for row in rows[:MAX_ROWS]:
            table.add_row(*(_literal(cell) for cell in row))
        if len(rows) > MAX_ROWS:
            table.add_row(f"... {len(rows) - MAX_ROWS} more")
        console = Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False)
        console.print(table)

    @contextmanager
    def progress(self) -> Iterator[Progress | None]:
        """Give a callback that draws a bar on stderr, or None when that is no terminal."""
        if not self.human or not sys.stderr.isatty():
            yield None
            return
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bars

        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"))
        with Bars(*columns, TimeElapsedColumn(), console=Console(stderr=True), transient=True) as bars:
            task = bars.add_task("starting", total=1.0)
            yield lambda stage, fraction: bars.update(task, description=stage, completed=fraction)


def fail(message: str, kind: str, code: int, *, as_json: bool) -> int:
    """Print a failure, for machines to stdout or for people to stderr, and give its exit code."""
    if as_json:
        print(json.dumps({"error": message, "kind": kind}))
    else:
        print(f"hbae: {message}", file=sys.stderr)
    return code


def plain(value: Any) -> Any:
    """Give JSON values; numbers that are not finite become None."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def number(value: float) -> str:
    """Write a measured number in three digits."""
    return "-" if math.isnan(value) else f"{value:.3g}"


def seconds(stages: dict[str, float]) -> str:
    """Write seconds by stage on one line."""
    return ", ".join(f"{k} {v:.1f}" for k, v in stages.items())


def _literal(cell: str) -> str:
    from rich.markup import escape

    return escape(cell)
