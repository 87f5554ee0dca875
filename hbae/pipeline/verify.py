# SPDX-License-Identifier: MIT
"""Checks an archive: alone, every checksum and stored hash; against the original, every bound again from scratch."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hbae.arrays import Array, Attribute, Box, Field, Variable
from hbae.bound import Target, Totals, VariableErrors, check_chunk, resolve_target
from hbae.errors import FormatError, HbaeError
from hbae.io import open_field
from hbae.pipeline.archive import Archive, Part
from hbae.pipeline.chunk import digest
from hbae.pipeline.decompress import PROVENANCE
from hbae.pipeline.encode import quiet
from hbae.pipeline.options import Progress
from hbae.pipeline.plan import GroupPlan
from hbae.pipeline.regions import Regions
from hbae.pipeline.stats import Validity


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
) -> Verification:
    """Decode everything and judge it; damage and misses are listed, not raised.

    Raises
    ------
    FormatError
        When not even header and index can be read.
    """
    with quiet(), Archive(path, backend=backend, model=model) as archive:
        damaged: list[str] = []
        try:
            archive.reader.check_copies()
        except FormatError as e:
            damaged.append(str(e))
        original = None if against is None else against if isinstance(against, Field) else open_field(against)
        failures = [] if original is None else _compare_shapes(archive.field, original)
        alike = original is not None and not failures
        errors: dict[str, dict[str, float]] = {}
        hashes: dict[str, str] = {}
        total, done = sum(len(p.boxes) for p in archive.parts) or 1, 0
        for part in archive.parts:
            walk = _PartWalk(archive, part, original if not failures else None)
            for i in range(len(part.boxes)):
                try:
                    walk.take(i)
                except FormatError as e:
                    damaged.append(str(e))
                done += 1
                if progress is not None:
                    progress("verifying", done / total)
            failures += walk.failures()
            errors |= walk.errors()
            hashes |= walk.hashes()
        failures += _check_small(archive, None if failures else original, damaged, hashes)
        name = None if against is None else str(against) if isinstance(against, str | os.PathLike) else "dataset"
    return Verification(
        path=str(path),
        damaged=tuple(damaged),
        failures=tuple(failures),
        errors=errors,
        hashes=hashes,
        against=name,
        comparable=alike and not damaged,
    )


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


class _PartWalk:
    """Walks over the chunks of a part, collecting errors against the original."""

    def __init__(self, archive: Archive, part: Part, original: Field | None) -> None:
        self.archive, self.part = archive, part
        self.sources = None if original is None else [original.variable(p) for p in part.paths]
        self.digests = [hashlib.sha256() for _ in part.paths]
        self.intact = True
        self.missed: dict[str, str] = {}
        self.parts: list[list[VariableErrors]] = [[] for _ in part.paths]
        self.targets: list[Target] = []
        self.original = original
        self.regions: Regions | None = None

    def take(self, i: int) -> None:
        """Decode and judge chunk i."""
        try:
            arrays = self.archive.chunk(self.part, i, keep=False)
        except FormatError:
            self.intact = False
            raise
        for d, a in zip(self.digests, arrays, strict=True):
            d.update(digest(a))
        if self.sources is None:
            return
        raws = [np.asarray(s.source.read(self.part.boxes[i]), s.dtype) for s in self.sources]
        if self.part.group is None:
            if raws[0].tobytes() != np.ascontiguousarray(arrays[0]).tobytes():
                self.missed[self.part.paths[0]] = f"{self.part.paths[0]}: values differ though kept without loss"
            return
        self._judge(raws, arrays, self.part.boxes[i])

    def _judge(self, raws: list[Array], arrays: list[Array], box: Box) -> None:
        if self.part.group is None:
            return
        plan = self.archive.plan(self.part.group)
        self.targets = [resolve_target(b, float(s)) for b, s in zip(plan.bounds, plan.span, strict=True)]
        targets = self._with_regions(plan, box)
        for v, (raw, a) in enumerate(zip(raws, arrays, strict=True)):
            name, p = plan.paths[v], plan.packing[v]
            scale, shift = p if p is not None else (1.0, 0.0)
            x = raw.astype(np.float64) * scale + shift if p else raw.astype(np.float64)
            y = a.astype(np.float64) * scale + shift if p else a.astype(np.float64)
            same = raw.view(f"u{raw.dtype.itemsize}") == a.view(f"u{a.dtype.itemsize}")
            bad = self._invalid(v, raw, x, plan)
            if (bad & ~same).any():
                self.missed[name] = f"{name}: a fill value or a value that is not finite differs"
            if (~bad & ~np.isfinite(y)).any():
                self.missed[name] = f"{name}: a value is decoded that is not finite"
            x, y = np.where(bad, 0.0, x), np.where(bad | ~np.isfinite(y), 0.0, y)
            found = check_chunk(x[None], y[None], ~bad[None], [targets[v]], plan.geometry.block, margin=False)
            if not found.points_hold[0]:
                self.missed[name] = f"{name}: a point misses its bound"
            if not found.blocks_hold[0]:
                self.missed[name] = f"{name}: a block misses its bound"
            self.parts[v].append(VariableErrors.of(y - x, ~bad))

    def _with_regions(self, plan: GroupPlan, box: Box) -> list[Target]:
        """Targets with the original's regions in that box; regions that are not there are a failure."""
        if self.regions is None and self.original is not None:
            try:
                self.regions = Regions(self.original, dict(zip(plan.paths, plan.bounds, strict=True)))
            except HbaeError as e:
                self.missed[f"{plan.paths[0]} regions"] = str(e)
        return self.targets if self.regions is None else self.regions.at(plan.paths, self.targets, box)

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

    def failures(self) -> list[str]:
        """Everything that misses its bound, global ones included."""
        out = list(self.missed.values())
        for v, t in enumerate(self.targets):
            total = Totals.of(self.parts[v], t.span)
            if total.sse > t.rmse * t.rmse * total.count:
                out.append(f"{self.part.paths[v]}: RMSE {total.rmse:g} is over its bound {t.rmse:g}")
        return out

    def errors(self) -> dict[str, dict[str, float]]:
        """Measured errors by variable."""
        out = {}
        for v, t in enumerate(self.targets):
            total = Totals.of(self.parts[v], t.span)
            out[self.part.paths[v]] = {"nrmse": total.nrmse, "rmse": total.rmse, "max_error": total.max_error}
        return out

    def hashes(self) -> dict[str, str]:
        """SHA-256 over the chunk hashes of every variable, in order."""
        if not self.intact:
            return {}
        return {p: d.hexdigest() for p, d in zip(self.part.paths, self.digests, strict=True)}


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
