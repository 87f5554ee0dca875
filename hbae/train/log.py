# SPDX-License-Identifier: MIT
"""The log of a training run: CSV, one line every 20 steps.

Columns: ``step``, ``epoch`` (with fraction), ``seconds`` of training in all, ``phase`` (float or integer), ``loss`` and
``nrmse`` (means of the steps since the last line, over the global batch; NRMSE is the mean over the variables), ``lr``
(Adam's), ``blocks_per_second`` (all ranks, since the last line), ``blocks_per_second_per_rank``, ``ranks``.
"""

from __future__ import annotations

import csv
import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from hbae.errors import OutputExistsError

COLUMNS = (
    "step", "epoch", "seconds", "phase", "loss", "nrmse", "lr",
    "blocks_per_second", "blocks_per_second_per_rank", "ranks",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Row:
    """What is known at a step; ``blocks``: how many have been trained on so far, by all ranks."""

    step: int
    epoch: float
    seconds: float
    phase: str
    loss: float
    nrmse: float
    lr: float
    blocks: int
    ranks: int


class TrainLog:
    """Appends lines to an open file; without one does nothing."""

    def __init__(self, file: TextIO | None, seconds: float = 0.0, blocks: int = 0) -> None:
        self._file, self._seconds, self._blocks = file, seconds, blocks

    @staticmethod
    def start(path: Path | None, step: int, seconds: float = 0.0, blocks: int = 0) -> TrainLog:
        """Open a log; of an earlier log the lines up to ``step`` stay, from which training goes on.

        Raises
        ------
        OutputExistsError
            When the file is something else.
        """
        if path is None:
            return TrainLog(None)
        lines = [",".join(COLUMNS)]
        if path.exists():
            check_log(path)
            lines += [line for line in path.read_text().splitlines()[1:] if _step(line) <= step]
        part = path.with_name(path.name + ".part")
        part.write_text("".join(line + "\n" for line in lines))
        os.replace(part, path)
        return TrainLog(path.open("a", buffering=1), seconds, blocks)

    def write(self, row: Row) -> None:
        """Append one line; it is in the file when this returns."""
        if self._file is None:
            return
        speed = (row.blocks - self._blocks) / max(row.seconds - self._seconds, 1e-9)
        self._seconds, self._blocks = row.seconds, row.blocks
        values = (
            row.step, f"{row.epoch:.4f}", f"{row.seconds:.3f}", row.phase, f"{row.loss:.6g}", f"{row.nrmse:.6g}",
            f"{row.lr:.6g}", f"{speed:.1f}", f"{speed / row.ranks:.1f}", row.ranks,
        )  # fmt: skip
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow(values)
        self._file.write(text.getvalue())

    def __enter__(self) -> TrainLog:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._file is not None:
            self._file.close()


def check_log(path: Path) -> None:
    """Refuse to replace a file that is no log of ours.

    Raises
    ------
    OutputExistsError
        When it exists and its first line is another.
    """
    if path.exists():
        with path.open(errors="replace") as f:
            head = f.readline(4096).rstrip("\n")
        if head and head != ",".join(COLUMNS):
            raise OutputExistsError(f"{path} exists and is no log of hbae train; give another --log")


def _step(line: str) -> float:
    head = line.partition(",")[0]
    # A line that a kill cut short has fewer columns.
    return int(head) if head.isdecimal() and line.count(",") == len(COLUMNS) - 1 else float("inf")
