# SPDX-License-Identifier: MIT
"""What the generators share: refuse an existing output, write with a progress bar on a terminal, report errors."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from hbae.errors import ConfigError, HbaeError, OutputExistsError
from hbae.synth import Stream, write_stream


def write(make: Callable[[], Stream], out: Path, *, deflate: int, force: bool) -> None:
    """Make a stream and write it to ``out``; on failure print one line and exit with the error's code."""
    start = time.monotonic()
    console = Console(stderr=True)
    try:
        if out.exists() and not force:
            raise OutputExistsError(f"{out} exists; -f overwrites it")
        if not out.parent.is_dir():
            raise ConfigError(f"{out.parent} is not a folder")
        columns = (TextColumn(out.name), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
            task = progress.add_task(out.name, total=None)
            stream = make()
            progress.update(task, total=stream.count)
            write_stream(
                stream,
                out,
                deflate=deflate,
                overwrite=force,
                progress=lambda done, count: progress.update(task, completed=done, total=count),
            )
    except (HbaeError, OSError) as e:
        print(f"error: {e}", file=sys.stderr)
        sys.exit(getattr(e, "exit_code", 1))
    size = " x ".join(str(n) for n in stream.shape)
    print(f"{out}: {len(stream.variables)} variable(s) of {size}, {stream.nbytes / 1e6:.1f} MB raw, ", end="")
    print(f"{out.stat().st_size / 1e6:.1f} MB on disk, {time.monotonic() - start:.1f} s")
