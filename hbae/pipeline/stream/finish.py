# SPDX-License-Identifier: MIT
"""A growing file and the steps behind it to an ordinary archive: lossy chunks are copied as they are."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from hbae import __version__
from hbae.arrays import Array, Box, Source, Variable, box_shape
from hbae.container import ArchiveWriter
from hbae.pipeline.compress import read_back
from hbae.pipeline.exactvars import (
    chunk_step,
    decode_exact_chunk,
    encode_exact_chunks,
    encode_small,
    is_small,
    num_chunks,
)
from hbae.pipeline.plan import encode_plan
from hbae.pipeline.stream.coder import CodedGroup, Coder
from hbae.pipeline.stream.journal import new_journal
from hbae.pipeline.stream.part import Slab, read_chunk

_KEPT = 4


@dataclass(frozen=True, kw_only=True)
class StreamReport:
    """What became of a stream: the archive, its length, raw bytes and number of steps.

    ``cut``: bytes of the growing file and the journal that were not used: torn tails, or what lies behind damage.
    """

    path: str
    size: int
    raw_bytes: int
    steps: int
    cut: int = 0
    notes: tuple[str, ...] = ()

    @property
    def cr(self) -> float:
        """Raw bytes of all fields over the length of the file."""
        return self.raw_bytes / self.size

    def to_json(self) -> dict[str, Any]:
        """Give everything as JSON values."""
        return {
            "path": self.path,
            "size": self.size,
            "raw_bytes": self.raw_bytes,
            "cr": self.cr,
            "steps": self.steps,
            "cut": self.cut,
            "notes": list(self.notes),
        }


class Chunks:
    """The chunks of a stream: those of closed slabs in the growing file, those of the last, shorter slab in memory."""

    def __init__(self, file: BinaryIO | None, slabs: list[Slab], tail: list[bytes], coder: Coder, total: int) -> None:
        self._file, self._slabs, self._tail, self._coder, self._total = file, slabs, tail, coder, total
        self._kept: OrderedDict[tuple[int, int], Array] = OrderedDict()

    def payloads(self, g: CodedGroup) -> Iterator[bytes]:
        """Give the chunks of a group, in the order of an archive."""
        for slab, n in enumerate(self._lengths()):
            for i in range(len(self._coder.boxes(g, n))):
                yield self._payload(g, slab, n, i)

    def _lengths(self) -> list[int]:
        rest = self._total - len(self._slabs) * self._coder.steps
        return [self._coder.steps] * len(self._slabs) + ([rest] if rest else [])

    def _payload(self, g: CodedGroup, slab: int, n: int, i: int) -> bytes:
        before = self._coder.groups[: self._coder.groups.index(g)]
        at = sum(len(self._coder.boxes(k, n)) for k in before) + i
        if slab < len(self._slabs) and self._file is not None:
            return read_chunk(self._file, self._slabs[slab].places[at])
        return self._tail[at]

    def decode(self, g: CodedGroup, v: Variable, slab: int, n: int, i: int, box: Box) -> Array:
        """Decode a chunk that is kept without loss, (V, *box)."""
        key = (self._coder.groups.index(g), slab * (1 << 32) + i)
        if key not in self._kept:
            whole = (slice(0, len(g.paths)), *box)
            self._kept[key] = decode_exact_chunk(self._payload(g, slab, n, i), v, whole, f"a chunk of {v.path}")
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return self._kept[key]

    def slabs(self) -> Iterator[tuple[int, int, int]]:
        """Number, first step and length of every slab."""
        start = 0
        for k, n in enumerate(self._lengths()):
            yield k, start, n
            start += n


@dataclass(frozen=True)
class LosslessSource:
    """A variable of a stream that lies in chunks without loss."""

    chunks: Chunks
    coder: Coder
    group: CodedGroup
    variable: Variable
    shape: tuple[int, ...]
    storage: tuple[int, ...] | None = None

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.variable.dtype

    def read(self, box: Box) -> Array:
        """Read one box."""
        out = np.empty(box_shape(box), self.dtype)
        place = self.group.paths.index(self.variable.path)
        for slab, start, n in self.chunks.slabs():
            first, last = max(box[0].start - start, 0), min(box[0].stop - start, n)
            if first >= last:
                continue
            boxes, wanted = self.coder.boxes(self.group, n), (slice(first, last), *box[1:])
            for i in boxes.meeting(wanted):
                values = self.chunks.decode(self.group, self.variable, slab, n, i, boxes[i])[place]
                cut = [slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(boxes[i], wanted, strict=True)]
                src = tuple(slice(c.start - m.start, c.stop - m.start) for c, m in zip(cut, boxes[i], strict=True))
                shift = (box[0].start - start, *(b.start for b in box[1:]))
                dst = tuple(slice(c.start - s, c.stop - s) for c, s in zip(cut, shift, strict=True))
                out[dst] = values[src]
        return out


def write_archive(
    out: Path,
    coder: Coder,
    part: Path | None,
    slabs: list[Slab],
    tail: tuple[Array, Mapping[str, Array]],
    *,
    section: bytes = b"",
    cut: int = 0,
    notes: tuple[str, ...] = (),
) -> StreamReport:
    """Write the archive of closed slabs and the steps behind them, read it back and give it its name.

    Parameters
    ----------
    part : path, optional
        The growing file, where there are slabs.
    tail : arrays
        Numbers and fields of the steps behind the slabs.
    section : bytes
        The model's decoder, if one is used.
    """
    done = [np.frombuffer(s.steps, coder.layout.step) for s in slabs]
    last = list(coder.encode(*tail)) if len(tail[0]) else []
    steps = np.concatenate([*done, tail[0]])
    file = part.open("rb") if part is not None and slabs else None
    try:
        chunks = Chunks(file, slabs, last, coder, len(steps))
        size = _write(out, coder, chunks, steps, section)
    finally:
        if file is not None:
            file.close()
    raw = len(steps) * coder.layout.nbytes
    return StreamReport(path=str(out), size=size, raw_bytes=raw, steps=len(steps), cut=cut, notes=notes)


def _write(out: Path, coder: Coder, chunks: Chunks, steps: Array, section: bytes) -> int:
    groups = [g for g in coder.groups if g.plan is not None]
    moving = {v.path: v for v in coder.layout.moving}
    sources: dict[str, Source] = {
        p: LosslessSource(chunks, coder, g, moving[p], (len(steps), *moving[p].shape))
        for g in coder.groups
        if g.plan is None
        for p in g.paths
    }
    field = coder.layout.field(steps, sources)
    coded = {p for g in groups for p in g.paths}
    rest = [v for v in field.variables() if v.path not in coded]
    large = [v for v in rest if not is_small(v)]
    header = {
        "package": __version__,
        "field": field.to_json(),
        "groups": [{"vars": g.paths, "chunk": g.chunk} for g in groups],
        "exact": [[v.path, chunk_step(v)] for v in large],
    }
    with ArchiveWriter(out, header, overwrite=coder.options.overwrite) as w:
        w.redundant = coder.options.redundant
        w.add_section("values", encode_small([v for v in rest if is_small(v)]))
        model = next((g.plan.model for g in groups if g.plan is not None and g.plan.model), None)
        if model is not None:
            w.add_section(f"model {model[:16]}", section)
        for i, g in enumerate(groups):
            if g.plan is not None:
                shape = (len(steps), *g.plan.geometry.shape[1:])
                plan = replace(g.plan, geometry=replace(g.plan.geometry, shape=shape))
                w.add_section(f"group {i}", encode_plan(plan))
                for payload in chunks.payloads(g):
                    w.add_chunk(payload)
        for v in large:
            for payload in encode_exact_chunks(v, w.share(num_chunks(v))):
                w.add_chunk(payload)
        return w.finish(lambda path: read_back(path, None))


def remove_growing(part: Path, journal: Path) -> None:
    """Remove the growing file first: a journal alone stops nobody, a growing file alone would give fewer steps."""
    for path in (part, journal, new_journal(journal)):
        path.unlink(missing_ok=True)


def growing_paths(out: str | os.PathLike[str]) -> tuple[Path, Path]:
    """Growing file and journal of an archive."""
    part = Path(f"{os.fspath(out)}.part")
    return part, Path(f"{part}.journal")
