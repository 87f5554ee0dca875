# SPDX-License-Identifier: MIT
"""How benchmarks start ranks."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import typer


def launcher(ranks: int) -> list[str]:
    """Give the words that start so many ranks of a command: of mpirun beside the interpreter, or on the path."""
    beside = Path(sys.executable).parent / "mpirun"
    program = str(beside) if beside.exists() else shutil.which("mpirun")
    if program is None:
        raise typer.BadParameter("mpirun is not installed")
    # Root users and machines with few cores need these.
    return [program, "--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "-n", str(ranks)]
