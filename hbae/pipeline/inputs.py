# SPDX-License-Identifier: MIT
"""Pass 1 over the lossy variables: statistics, and a place from which boxes are cheap to read again."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from functools import partial
from types import TracebackType

import numpy as np

from hbae.arrays import Array, ArraySource, Box, Source, Variable, box_shape
from hbae.io import ScratchArray, ScratchFile, fill_patterns, packing, reading_boxes
from hbae.pipeline.options import CompressOptions
from hbae.pipeline.stats import StatsWalk, Validity, VariableStats
from hbae.ranks import Solo, Team, agreed, share_of, together

KEEP_BYTES = 192 << 20


class Inputs:
    """Promises cheap boxes: small inputs of a process alone stay in memory.

    Stored chunks that boxes would cut go to a scratch file once; ranks share it, each fills in its share.
    """

    def __init__(self, variables: Iterable[Variable], options: CompressOptions, team: Team | None = None) -> None:
        self._variables = list(variables)
        self._options, self._team = options, team or Solo()
        self._sources: dict[str, Source] = {}
        self._scratch: ScratchFile | None = None
        self.stats: dict[str, VariableStats] = {}
        self.scratch_bytes = 0

    def read_all(self) -> None:
        """Walk once over all variables, in their storage order; every stored byte is inflated once, on one rank."""
        total = sum(v.nbytes for v in self._variables) or 1
        keep = total <= KEEP_BYTES and self._team.size == 1
        copies = {v.path: self._place(v, keep) for v in self._variables}
        walks = together(self._team, lambda: self._walk(copies))
        for v in self._variables:
            copy = copies[v.path]
            self._sources[v.path] = ArraySource(copy) if isinstance(copy, np.ndarray) else copy or v.source
        self.stats = agreed(self._team, partial(self._joined, self._team.gather(walks) or []))

    def _walk(self, copies: dict[str, Array | ScratchArray | None]) -> dict[str, StatsWalk]:
        """Read this rank's share of the boxes of all variables."""
        boxes = [(v, box) for v in self._variables for box in reading_boxes(v)]
        mine = share_of(self._team, len(boxes))
        todo, done = sum(_nbytes(v, box) for v, box in boxes[mine.start : mine.stop]) or 1, 0
        walks: dict[str, StatsWalk] = {}
        for v, box in boxes[mine.start : mine.stop]:
            raw, copy = np.asarray(v.source.read(box), v.dtype), copies[v.path]
            if v.path not in walks:
                walks[v.path] = _start_walk(v)
            walks[v.path].take(raw)
            if isinstance(copy, ScratchArray):
                copy.write(box, raw)
            elif copy is not None:
                copy[box] = raw
            done += raw.nbytes
            self._options.tell("reading", done / todo)
        return walks

    def _joined(self, walks: list[dict[str, StatsWalk]]) -> dict[str, VariableStats]:
        out = {}
        for v in self._variables:
            whole = _start_walk(v)
            for found in walks:
                if v.path in found:
                    whole.join(found[v.path])
            out[v.path] = whole.result(packing(v))
        return out

    def _place(self, v: Variable, keep: bool) -> Array | ScratchArray | None:
        if keep:
            return np.empty(v.shape, v.dtype)
        if v.source.storage is None:
            return None
        if self._scratch is None:
            self._scratch = ScratchFile(self._options.scratch, self._team)
        self.scratch_bytes += v.nbytes
        return self._scratch.array(v.shape, v.dtype)

    def read(self, paths: tuple[str, ...], box: Box) -> Array:
        """Give a box of several variables, (V, *box), in the stored type."""
        parts = [np.asarray(self._sources[p].read(box)) for p in paths]
        # np.stack alone would give the machine's byte order.
        return np.stack(parts, out=np.empty((len(parts), *parts[0].shape), parts[0].dtype))

    def sources(self) -> dict[str, Source]:
        """Give where the variables are read from now."""
        return dict(self._sources)

    def close(self) -> None:
        """Remove the scratch file."""
        if self._scratch is not None:
            self._scratch.close()

    def __enter__(self) -> Inputs:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def _start_walk(v: Variable) -> StatsWalk:
    return StatsWalk(Validity(tuple(p for fill in fill_patterns(v) for p in np.ravel(fill))))


def _nbytes(v: Variable, box: Box) -> int:
    return math.prod(box_shape(box)) * v.dtype.itemsize


def scratch_space(folder: os.PathLike[str] | str | None) -> int:
    """Free bytes where a scratch file would go."""
    import shutil
    import tempfile

    return shutil.disk_usage(folder or tempfile.gettempdir()).free
