# SPDX-License-Identifier: MIT
"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

Bounds = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--bound", metavar="SPEC...", help="[VARGLOB:]kind=value[,kind=value...]; may be repeated."),
]
Variables = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--vars", metavar="GLOB...", help="Variables by name or glob; may be repeated."),
]
Quantities = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--qoi", metavar="NAME...", help="moments, mass_fractions, area_mean, gradient: before and after."),
]
Preset = Annotated[str, typer.Option(metavar="P", help="Block shapes and network sizes.")]
Device = Annotated[str, typer.Option(metavar="D", help="cpu or cuda.")]
ReadingDevice = Annotated[str, typer.Option("--device", metavar="D", help="auto, cpu or cuda.")]
Seed = Annotated[int, typer.Option(metavar="N", help="Seed of samples and training.")]
Ranks = Annotated[
    Optional[bool],  # noqa: UP045
    typer.Option("--ranks/--no-ranks", help="Under mpirun: all ranks share this file, or each has one of its own."),
]
Scratch = Annotated[Optional[Path], typer.Option(metavar="DIR", help="Folder for scratch files.")]  # noqa: UP045
Threads = Annotated[Optional[int], typer.Option(metavar="N", help="Chunks decoded side by side.")]  # noqa: UP045
SharedModel = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option("--model", metavar="MODEL", help="MODEL file of an archive without an embedded one."),
]
Force = Annotated[bool, typer.Option("-f", "--force", help="Replace an output that exists.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Print errors only.")]
Verbose = Annotated[int, typer.Option("-v", "--verbose", count=True, help="Say more; -vv for details.")]
