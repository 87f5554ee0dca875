# SPDX-License-Identifier: MIT
"""Pass 1 over the lossy variables: statistics, and a place from which boxes are cheap to read again."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

import numpy as np

from hbae.arrays import Array, ArraySource, Box, Source, Variable
from hbae.io import ScratchArray, fill_patterns, packing, reading_boxes
from hbae.pipeline.options import CompressOptions
from hbae.pipeline.stats import StatsWalk, Validity, VariableStats

KEEP_BYTES = 192 << 20


class Inputs:
    """Promises cheap boxes: small inputs stay in memory.

    Stored chunks that boxes would cut go to a scratch file once.
    """

    def __init__(self, variables: Iterable[Variable], options: CompressOptions) -> None:
        self._variables = list(variables)
        self._options = options
        self._sources: dict[str, Source] = {}
        self._scratch: list[ScratchArray] = []
        self.stats: dict[str, VariableStats] = {}
        self.scratch_bytes = 0

    def read_all(self) -> None:
        """Walk once over all variables, in their storage order; every stored byte is inflated once here."""
        total = sum(v.nbytes for v in self._variables) or 1
        keep, done = total <= KEEP_BYTES, 0
        for v in self._variables:
            copy = self._place(v, keep)
            walk = StatsWalk(Validity(tuple(p for fill in fill_patterns(v) for p in np.ravel(fill))))
            for box in reading_boxes(v):
                raw = np.asarray(v.source.read(box), v.dtype)
                walk.take(raw)
                if isinstance(copy, ScratchArray):
                    copy.write(box, raw)
                elif copy is not None:
                    copy[box] = raw
                done += raw.nbytes
                self._options.tell("reading", done / total)
            self.stats[v.path] = walk.result(packing(v))
            self._sources[v.path] = ArraySource(copy) if isinstance(copy, np.ndarray) else copy or v.source

    def _place(self, v: Variable, keep: bool) -> Array | ScratchArray | None:
        if keep:
            return np.empty(v.shape, v.dtype)
        if v.source.storage is None:
            return None
        folder = Path(self._options.scratch) if self._options.scratch else None
        scratch = ScratchArray(v.shape, v.dtype, folder)
        self._scratch.append(scratch)
        self.scratch_bytes += v.nbytes
        return scratch

    def read(self, paths: tuple[str, ...], box: Box) -> Array:
        """Give a box of several variables, (V, *box), in the stored type."""
        parts = [np.asarray(self._sources[p].read(box)) for p in paths]
        # np.stack alone would give the machine's byte order.
        return np.stack(parts, out=np.empty((len(parts), *parts[0].shape), parts[0].dtype))

    def close(self) -> None:
        """Remove scratch files."""
        for s in self._scratch:
            s.close()

    def __enter__(self) -> Inputs:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def scratch_space(folder: os.PathLike[str] | str | None) -> int:
    """Free bytes where a scratch file would go."""
    import shutil
    import tempfile

    return shutil.disk_usage(folder or tempfile.gettempdir()).free
