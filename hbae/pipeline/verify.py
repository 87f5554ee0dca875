# SPDX-License-Identifier: MIT
"""Checks an archive: alone, every checksum and stored hash; against the original, every bound again from scratch."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from hbae.arrays import Array, Attribute, Box, Field, Variable
from hbae.bound import Target, Totals, VariableErrors, check_chunk, resolve_target
from hbae.errors import FormatError, HbaeError
from hbae.io import open_field
from hbae.pipeline.ahead import ahead
from hbae.pipeline.archive import Archive, Part
from hbae.pipeline.begin import own_device
from hbae.pipeline.chunk import digest
from hbae.pipeline.decompress import PROVENANCE
from hbae.pipeline.encode import quiet
from hbae.pipeline.inputs import Inputs
from hbae.pipeline.options import CompressOptions, Progress
from hbae.pipeline.plan import GroupPlan
from hbae.pipeline.regions import Regions
from hbae.pipeline.stats import Validity
from hbae.pipeline.workers import usable_cores
from hbae.ranks import Solo, Team, agreed, seat_ranks, share_of, together


@dataclass(frozen=True, kw_only=True)
class Verification:
    """Result: what is damaged, which variables miss what, the measured errors and the hash of every variable.

    ``comparable``: the original has the same variables, and nothing is damaged.
    """

    path: str
    damaged: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()
    errors: dict[str, dict[str, float]] = field(default_factory=dict)
    hashes: dict[str, str] = field(default_factory=dict)
    against: str | None = None
    comparable: bool = False

    @property
    def ok(self) -> bool:
        """Tell whether nothing is damaged and nothing misses its bound."""
        return not self.damaged and not self.failures

    def to_json(self) -> dict[str, Any]:
        """Give everything as JSON values."""
        return {
            "path": self.path,
            "ok": self.ok,
            "against": self.against,
            "damaged": list(self.damaged),
            "failures": list(self.failures),
            "errors": self.errors,
            "hashes": self.hashes,
        }


def verify_file(
    path: str | os.PathLike[str],
    against: Any = None,
    *,
    backend: str = "auto",
    model: Path | None = None,
    progress: Progress | None = None,
    team: Team | None = None,
    scratch: str | os.PathLike[str] | None = None,
    threads: int | None = None,
) -> Verification:
    """Decode everything and judge it; damage and misses are listed, not raised.

    The ranks of a team share the chunks; all get the report that one process would give. An original whose stored
    chunks the archive's would cut goes through a file in the folder ``scratch`` once. ``threads``: how many chunks are
    judged side by side (default: the cores at hand, at most 8).

    Raises
    ------
    FormatError
        When not even header and index can be read.
    BatchError
        Of a team: what another rank raised.
    """
    ranks = team or Solo()
    with quiet(), ExitStack() as stack:
        archive = together(ranks, lambda: stack.enter_context(Archive(path, backend=backend, model=model)))
        side = threads
        if ranks.size > 1:
            text = json.dumps(archive.reader.header) + repr((str(path), _name(against)))
            machines, fair = seat_ranks(ranks, hashlib.sha256(text.encode()).hexdigest())
            side = fair if threads is None else threads
            archive.work_on(own_device(backend, machines, ranks.rank))
        side = usable_cores() if side is None else side
        original = together(ranks, lambda: None if against is None else _open(against))
        failures = [] if original is None else _compare_shapes(archive.field, original)
        near = original
        if original is not None and not failures:
            options = CompressOptions(scratch=scratch, progress=progress)
            cut = together(ranks, lambda: _cut_variables(archive, original))
            inputs = stack.enter_context(Inputs(cut, options, ranks))
            inputs.read_all()
            near = original.with_sources(inputs.sources())
        walks = together(ranks, lambda: _walk(archive, None if failures else near, progress, ranks, side))
        found = ranks.gather(walks)
        result = agreed(ranks, lambda: _joined(archive, found or [], failures, original))
    return replace(result, path=str(path), against=_name(against))


def _cut_variables(archive: Archive, original: Field) -> list[Variable]:
    """Lossy variables whose stored chunks lie across several of the archive's: each would be inflated many times."""
    out = []
    for part in archive.parts:
        for v in (original.variable(p) for p in part.paths if part.group is not None):
            stored = v.source.storage
            steps = zip(stored or (), part.boxes.step, v.shape, strict=False)
            if any(step < n and step % s for s, step, n in steps):
                out.append(v)
    return out


def _name(against: Any) -> str | None:
    return None if against is None else str(against) if isinstance(against, str | os.PathLike) else "dataset"


def _open(against: Any) -> Field:
    return against if isinstance(against, Field) else open_field(against)


def _walk(
    archive: Archive, original: Field | None, progress: Progress | None, team: Team, threads: int
) -> list[_Found]:
    """Decode and judge this rank's chunks of every part."""
    shares = [(part, share_of(team, len(part.boxes))) for part in archive.parts]
    total, done, out = sum(len(numbers) for _, numbers in shares) or 1, 0, []
    for part, numbers in shares:
        judge, founds = _Judge(archive, part, original), [_Found.empty(part)]
        for found in ahead(judge.take, ((i,) for i in numbers), threads):
            founds.append(found)
            done += 1
            if progress is not None:
                progress("verifying", done / total)
        out.append(_Found.joined(founds))
    return out


def _joined(archive: Archive, by_rank: list[list[_Found]], failures: list[str], original: Field | None) -> Verification:
    """Put together what all ranks found, in the order of chunks."""
    damaged: list[str] = []
    try:
        archive.reader.check_copies()
    except FormatError as e:
        damaged.append(str(e))
    alike = original is not None and not failures
    errors: dict[str, dict[str, float]] = {}
    hashes: dict[str, str] = {}
    missed = list(failures)
    for part, *founds in zip(archive.parts, *by_rank, strict=True):
        whole = _Found.joined(founds)
        damaged += whole.damaged
        totals = _totals(archive, part, whole)
        missed += whole.missed.values()
        missed += _global_misses(totals)
        errors |= {p: {"nrmse": t.nrmse, "rmse": t.rmse, "max_error": t.max_error} for p, (t, _) in totals.items()}
        if not whole.damaged:
            hashes |= {p: hashlib.sha256(d).hexdigest() for p, d in zip(part.paths, whole.digests, strict=True)}
    missed += _check_small(archive, original if alike else None, damaged, hashes)
    return Verification(
        path=str(archive.path),
        damaged=tuple(damaged),
        failures=tuple(missed),
        errors=errors,
        hashes=hashes,
        comparable=alike and not damaged,
    )


def _totals(archive: Archive, part: Part, found: _Found) -> dict[str, tuple[Totals, Target]]:
    """Give errors over all chunks and the target of every variable of a part that was compared."""
    if part.group is None or not found.errors[0]:
        return {}
    plan = archive.plan(part.group)
    targets = _targets(plan)
    return {p: (Totals.of(e, t.span), t) for p, e, t in zip(part.paths, found.errors, targets, strict=True)}


def _targets(plan: GroupPlan) -> list[Target]:
    return [resolve_target(b, float(s)) for b, s in zip(plan.bounds, plan.span, strict=True)]


def _global_misses(totals: dict[str, tuple[Totals, Target]]) -> list[str]:
    return [
        f"{p}: RMSE {total.rmse:g} is over its bound {t.rmse:g}"
        for p, (total, t) in totals.items()
        if total.sse > t.rmse * t.rmse * total.count
    ]


def _compare_shapes(ours: Field, theirs: Field) -> list[str]:
    """List what is missing or differs: variables, shapes, types, dimensions, attributes."""
    found = {v.path: v for v in theirs.variables()}
    out = []
    for v in ours.variables():
        o = found.pop(v.path, None)
        if o is None:
            out.append(f"{v.path}: not in the original")
        elif o.shape != v.shape or o.dtype != v.dtype or o.dims != v.dims:
            out.append(f"{v.path}: {v.dtype} {v.dims} {v.shape} here, {o.dtype} {o.dims} {o.shape} in the original")
        elif [a.to_json() for a in o.attrs] != [a.to_json() for a in v.attrs]:
            out.append(f"{v.path}: attributes differ")
    groups = {g.path: g for g in theirs.groups}
    for g in ours.groups:
        same = groups.get(g.path)
        if same is None or same.dims != g.dims:
            out.append(f"group {g.path or '/'}: dimensions differ")
        elif _own(same.attrs) != _own(g.attrs):
            out.append(f"group {g.path or '/'}: attributes differ")
    return out + [f"{p}: not in the archive" for p in found]


def _own(attrs: tuple[Attribute, ...]) -> list[list[Any]]:
    """Attributes of the data's own: without the provenance that decompress adds."""
    return [a.to_json() for a in attrs if a.name not in PROVENANCE]


@dataclass
class _Found:
    """What came out for consecutive chunks of a part: hashes and errors by variable, damage, misses by name."""

    digests: list[bytearray]
    errors: list[list[VariableErrors]]
    damaged: list[str] = field(default_factory=list)
    missed: dict[str, str] = field(default_factory=dict)

    @staticmethod
    def empty(part: Part) -> _Found:
        """Nothing so far."""
        return _Found([bytearray() for _ in part.paths], [[] for _ in part.paths])

    @staticmethod
    def joined(founds: list[_Found]) -> _Found:
        """Join runs of chunks, given in order."""
        whole = founds[0]
        for f in founds[1:]:
            for v, d in enumerate(f.digests):
                whole.digests[v] += d
                whole.errors[v] += f.errors[v]
            whole.damaged += f.damaged
            whole.missed |= f.missed
        return whole


class _Judge:
    """Judges chunks of a part, on any thread, against the original."""

    def __init__(self, archive: Archive, part: Part, original: Field | None) -> None:
        self.archive, self.part = archive, part
        self.sources = None if original is None else [original.variable(p) for p in part.paths]
        self.original = original
        self.regions: Regions | None = None
        # The libraries behind files take one reader at a time.
        self._reading = threading.Lock()

    def take(self, i: int) -> _Found:
        """Decode and judge chunk i; damage is noted."""
        found = _Found.empty(self.part)
        # NumPy's way with warnings is each thread's own.
        with quiet():
            try:
                arrays = self.archive.chunk(self.part, i, keep=False)
                for d, a in zip(found.digests, arrays, strict=True):
                    d += digest(a)
                if self.sources is not None:
                    self._compare(self.sources, arrays, self.part.boxes[i], found)
            except FormatError as e:
                found.damaged.append(str(e))
        return found

    def _compare(self, sources: list[Variable], arrays: list[Array], box: Box, found: _Found) -> None:
        with self._reading:
            raws = [np.asarray(s.source.read(box), s.dtype) for s in sources]
        if self.part.group is not None:
            self._judge(raws, arrays, self.archive.plan(self.part.group), box, found)
        elif raws[0].tobytes() != np.ascontiguousarray(arrays[0]).tobytes():
            found.missed[self.part.paths[0]] = f"{self.part.paths[0]}: values differ though kept without loss"

    def _judge(self, raws: list[Array], arrays: list[Array], plan: GroupPlan, box: Box, found: _Found) -> None:
        targets = self._with_regions(plan, box, found)
        for v, (raw, a) in enumerate(zip(raws, arrays, strict=True)):
            name, p = plan.paths[v], plan.packing[v]
            scale, shift = p if p is not None else (1.0, 0.0)
            x = raw.astype(np.float64) * scale + shift if p else raw.astype(np.float64)
            y = a.astype(np.float64) * scale + shift if p else a.astype(np.float64)
            same = raw.view(f"u{raw.dtype.itemsize}") == a.view(f"u{a.dtype.itemsize}")
            bad = self._invalid(v, raw, x, plan)
            if (bad & ~same).any():
                found.missed[name] = f"{name}: a fill value or a value that is not finite differs"
            if (~bad & Validity(self._fills(v)).invalid(a) & np.isfinite(y)).any():
                found.missed[name] = f"{name}: a point that is there came back as a fill value"
            if (~bad & ~np.isfinite(y)).any():
                found.missed[name] = f"{name}: a value is decoded that is not finite"
            x, y = np.where(bad, 0.0, x), np.where(bad | ~np.isfinite(y), 0.0, y)
            check = check_chunk(x[None], y[None], ~bad[None], [targets[v]], plan.geometry.block, margin=False)
            if not check.points_hold[0]:
                found.missed[name] = f"{name}: a point misses its bound"
            if not check.blocks_hold[0]:
                found.missed[name] = f"{name}: a block misses its bound"
            found.errors[v].append(VariableErrors.of(y - x, ~bad))

    def _with_regions(self, plan: GroupPlan, box: Box, found: _Found) -> list[Target]:
        """Targets with the original's regions in that box; regions that are not there are a failure."""
        with self._reading:
            if self.regions is None and self.original is not None:
                try:
                    self.regions = Regions(self.original, dict(zip(plan.paths, plan.bounds, strict=True)))
                except HbaeError as e:
                    found.missed[f"{plan.paths[0]} regions"] = str(e)
            return _targets(plan) if self.regions is None else self.regions.at(plan.paths, _targets(plan), box)

    def _invalid(self, v: int, raw: Array, x: Array, plan: GroupPlan) -> Array:
        """Points that must be equal bit by bit: not finite, fill values, and all outside the range of valid values."""
        bad = Validity(self._fills(v), zeros=plan.domain == "log").invalid(raw) | ~np.isfinite(x)
        size = np.abs(x) if plan.domain == "log" else x
        out: Array = bad | (size < plan.low[v]) | (size > plan.high[v])
        return out

    def _fills(self, v: int) -> tuple[Any, ...]:
        from hbae.io import fill_patterns

        variable: Variable = self.archive.field.variable(self.part.paths[v])
        return tuple(x for f in fill_patterns(variable) for x in np.ravel(f))


def _check_small(archive: Archive, original: Field | None, damaged: list[str], hashes: dict[str, str]) -> list[str]:
    """Decode the variables of the common section and compare them."""
    chunked = {p for part in archive.parts for p in part.paths}
    out: list[str] = []
    for v in archive.field.variables():
        if v.path in chunked:
            continue
        try:
            a = archive.small(v.path)
        except FormatError as e:
            damaged.append(str(e))
            return out
        data = repr(a.tolist()).encode() if v.dtype.hasobject else np.ascontiguousarray(a).tobytes()
        hashes[v.path] = hashlib.sha256(data).hexdigest()
        if original is not None:
            o = next((x for x in original.variables() if x.path == v.path), None)
            if o is None:
                continue
            b = o.source.read(tuple(slice(0, n) for n in o.shape))
            other = repr(np.asarray(b).tolist()).encode() if v.dtype.hasobject else np.ascontiguousarray(b).tobytes()
            if other != data:
                out.append(f"{v.path}: values differ though kept without loss")
    return out
