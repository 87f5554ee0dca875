# SPDX-License-Identifier: MIT
"""Fields to an archive: pass 1 looks, pass 2 encodes, decodes its own bytes, judges and writes."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from hbae import __version__
from hbae.arrays import Array, Box, Field, Tiling, boxes_of
from hbae.blocks import MAX_RANK
from hbae.bound import Target, Totals, VariableErrors
from hbae.bound.targets import MARGIN
from hbae.config import BoundLike, parse_rules
from hbae.container import MAX_CHUNKS, ArchiveWriter
from hbae.errors import (
    BoundViolationError,
    ConfigError,
    FieldError,
    FormatError,
    ModelMismatchError,
    OutputExistsError,
    UnknownNameError,
)
from hbae.exact import get_backend
from hbae.io import open_field
from hbae.pipeline.archive import Archive
from hbae.pipeline.calibrate import Choice, choose_plan
from hbae.pipeline.encode import quiet
from hbae.pipeline.exactvars import chunk_step, encode_exact_chunk, encode_small, is_small
from hbae.pipeline.families import ModelOption, finer_plan, with_block_limits
from hbae.pipeline.groups import LossyVariable, judge_variable, lossy_bounds, make_drafts
from hbae.pipeline.inputs import Inputs, scratch_space
from hbae.pipeline.learn import GroupModel, prepare_model
from hbae.pipeline.options import CompressOptions
from hbae.pipeline.plan import GroupPlan, encode_plan
from hbae.pipeline.pool import Job, encode_all
from hbae.pipeline.report import Report, VariableReport
from hbae.pipeline.sampling import Sample, take_sample
from hbae.pipeline.touchup import TOUCH_UPS, Spool, worst_chunks

REDO = 2


@dataclass
class _Group:
    """A group on its way through pass 2."""

    number: int
    draft: GroupPlan
    members: list[LossyVariable]
    choice: Choice | None = None
    sample: Sample | None = None
    totals: list[Totals] | None = None
    notes: tuple[str, ...] = ()


def compress_field(source: Any, out: str | os.PathLike[str], bound: BoundLike, options: CompressOptions) -> Report:
    """Write an archive whose bounds hold on what a reader gets; it is complete and verified, or it does not exist.

    Raises
    ------
    BoundViolationError
        When a bound could not be kept: a bug; nothing is written.
    OutputExistsError, UnknownNameError, ConfigError, FieldError
        Before anything is written.
    """
    begin = time.monotonic()
    if Path(out).exists() and not options.overwrite:
        raise OutputExistsError(f"{out} exists; use -f or overwrite=True to replace it")
    if not Path(out).absolute().parent.is_dir():
        raise FieldError(f"{out}: there is no such folder")
    rules = parse_rules(bound)
    field = source if isinstance(source, Field) else open_field(source)
    for v in field.variables():
        if len(v.shape) > MAX_RANK:
            raise FieldError(f"variable {v.path}: {len(v.shape)} axes, the format holds {MAX_RANK}")
    wanted = lossy_bounds(field, rules, options.variables)
    with quiet(), threadpool_limits(1), Inputs([field.variable(p) for p in wanted], options) as inputs:
        _check_scratch(field, wanted, options)
        inputs.read_all()
        read = time.monotonic()
        run = _Run(field, wanted, inputs, options)
        report = run.write(out)
        seconds = {"read": read - begin, **run.seconds, "total": time.monotonic() - begin}
    return replace(report, seconds=seconds)


def _check_scratch(field: Field, wanted: dict[str, Any], options: CompressOptions) -> None:
    need = sum(field.variable(p).nbytes for p in wanted if field.variable(p).source.storage is not None)
    if need > scratch_space(options.scratch):
        raise FieldError(f"up to {need} bytes of scratch space are needed; give a larger folder with --scratch")


class _Run:
    """State of one compression after pass 1."""

    def __init__(self, field: Field, wanted: dict[str, Any], inputs: Inputs, options: CompressOptions) -> None:
        self.field, self.inputs, self.options = field, inputs, options
        for name in options.ranges:
            if name not in wanted:
                raise UnknownNameError(f"range: {name!r} is no lossy variable")
        self.lossy = [
            judge_variable(field.variable(p), b, inputs.stats[p], options.ranges.get(p)) for p, b in wanted.items()
        ]
        self.seconds: dict[str, float] = {}
        start = time.monotonic()
        coded = [m for m in self.lossy if not m.reason]
        if options.method == "lossless":
            coded = []
            self.lossy = [replace(m, reason="method=lossless") if not m.reason else m for m in self.lossy]
        self.model: GroupModel | None = prepare_model(coded, inputs, options)
        if self.model is not None and self.model.trained_seconds:
            self.seconds["train"] = self.model.trained_seconds
        names = self.model.names if self.model else None
        self.groups = [_Group(i, d, m) for i, (d, m) in enumerate(make_drafts(coded, options, names))]
        self._check_chunks()
        for g in self.groups:
            self._choose(g)
        self.seconds["choose"] = time.monotonic() - start - self.seconds.get("train", 0.0)

    def _check_chunks(self) -> None:
        coded = {p for g in self.groups for p in g.draft.paths}
        exact = [v for v in self.field.variables() if v.path not in coded and not is_small(v)]
        count = sum(g.draft.geometry.num_chunks for g in self.groups)
        if count + sum(len(Tiling(v.shape, chunk_step(v))) for v in exact) > MAX_CHUNKS:
            raise ConfigError(f"chunk: more than the {MAX_CHUNKS} chunks that an archive holds; give larger ones")

    def _methods(self) -> tuple[str, ...]:
        m = self.options.method
        return {"auto": ("linear", "hbae", "lossless"), "linear": ("linear", "lossless")}.get(m, (m,))

    def _choose(self, g: _Group) -> None:
        model = self.model if self.model is not None and self.model.names == g.draft.paths else None
        if self.model is not None and model is None and set(self.model.names) & set(g.draft.paths):
            raise ModelMismatchError("model: its variables are not all lossy together on one grid")
        options = []
        if model is not None:
            g.draft = replace(g.draft, geometry=model.geometry)
            extra = len(model.section) if self.options.embed else 0
            options = [ModelOption(model.encoder, model.decoder, model.sha, extra)]
        methods = self._methods()
        if "hbae" in methods and (model is None or g.draft.domain == "log"):
            methods = tuple(dict.fromkeys("linear" if k == "hbae" else k for k in methods))
        validity = [m.stats.validity for m in g.members]
        sample = take_sample(g.draft, self.inputs, validity, self.options.seed)
        g.choice = choose_plan(
            g.draft,
            [m.target for m in g.members],
            sample,
            methods,
            models=options,
            backend=get_backend(self._backend(g.draft)),
        )
        g.sample = sample
        self.options.tell("choosing", (g.number + 1) / len(self.groups))

    def _backend(self, plan: GroupPlan) -> str:
        return self.options.device if self.model is not None else "numpy"

    def write(self, out: str | os.PathLike[str]) -> Report:
        """Pass 2."""
        start = time.monotonic()
        chunked = {p for g in self.groups for p in g.draft.paths}
        rest = [v for v in self.field.variables() if v.path not in chunked]
        small, large = [v for v in rest if is_small(v)], [v for v in rest if not is_small(v)]
        header = {
            "package": __version__,
            "field": self.field.to_json(),
            "groups": [{"vars": g.draft.paths, "chunk": g.draft.geometry.chunk} for g in self.groups],
            "exact": [[v.path, chunk_step(v)] for v in large],
        }
        with ArchiveWriter(out, header, overwrite=self.options.overwrite) as w:
            w.redundant = self.options.redundant
            w.add_section("values", encode_small(small))
            used = self.model is not None and any(g.choice and g.choice.plan.model for g in self.groups)
            if used and self.model is not None and self.options.embed:
                w.add_section(f"model {self.model.sha[:16]}", self.model.section)
            for g in self.groups:
                self._write_group(w, g)
            for v in large:
                for box in boxes_of(v.shape, chunk_step(v)):
                    w.add_chunk(encode_exact_chunk(v, box))
            sizes = w.sizes()
            model = self.model if used else None
            size = w.finish(lambda path: _read_back(path, model))
            sizes["header and index"] = size - sum(sizes.values())
        self.seconds["encode"] = time.monotonic() - start
        return self._report(out, size, sizes, used)

    def _write_group(self, w: ArchiveWriter, g: _Group) -> None:
        """Write a group's chunks; a global bound that fails is met by finer steps, at the end block by block."""
        if g.choice is None or g.sample is None:
            raise BoundViolationError("a group without a plan")
        plan, targets = g.choice.plan, [m.target for m in g.members]
        mark = w.mark()
        for attempt in range(REDO + 2):
            w.rewind(mark)
            w.add_section(f"group {g.number}", encode_plan(plan))
            ratio = self._write_chunks(w, g, plan, targets)
            if (ratio <= 1).all():
                g.choice = replace(g.choice, plan=plan)
                return
            if attempt < REDO and (plan.unit.any() or plan.point_unit.any()):
                shrink = _finer(ratio, attempt)
                plan = finer_plan(plan, shrink)
            else:
                plan, targets = with_block_limits(plan, targets, g.sample)
        raise BoundViolationError(f"the global bound of {', '.join(g.draft.paths[:3])} could not be kept")

    def _write_chunks(self, w: ArchiveWriter, g: _Group, plan: GroupPlan, targets: list[Target]) -> Array:
        """Write all chunks, some of them again with finer steps where that meets the global limits.

        RMSE over its limit, by variable.
        """
        model = self.model.encoder if self.model is not None and plan.model else None
        lossless = g.choice is not None and g.choice.lossless
        job = Job(plan, targets, model, self._backend(plan), lossless)
        boxes, mark = plan.geometry.chunks(), w.mark()
        errors = [[VariableErrors()] * len(boxes) for _ in plan.paths]
        again = np.arange(len(boxes))
        while True:
            with Spool(w.payloads(mark)) as old:
                w.rewind(mark)
                coded, chosen = self._encode(job, g, again, errors), set(again.tolist())
                for i in range(len(boxes)):
                    w.add_chunk(next(coded) if i in chosen else old.take(i))
            totals = [Totals.of(e, m.target.span) for e, m in zip(errors, g.members, strict=True)]
            g.totals, ratio = totals, _global_ratios(totals, g.members)
            if job.fine == TOUCH_UPS[-1] or plan.domain == "log" or lossless:
                return ratio
            again = worst_chunks(errors, ratio)
            if not len(again):
                return ratio
            job = replace(job, fine=TOUCH_UPS[TOUCH_UPS.index(job.fine) + 1])

    def _encode(self, job: Job, g: _Group, numbers: Array, errors: list[list[VariableErrors]]) -> Iterator[bytes]:
        """Give the bytes of the chunks of those numbers, and note their errors."""
        boxes = job.plan.geometry.chunks()
        workers = min(self.options.threads or 1, len(numbers))
        for k, coded in enumerate(encode_all(job, self._chunks(g, [boxes[i] for i in numbers]), workers)):
            if not coded.errors.hold:
                raise BoundViolationError(f"chunk {numbers[k]} of {job.plan.paths[0]} does not hold its bound")
            for v, e in enumerate(coded.errors.variables):
                errors[v][numbers[k]] = e
            self.options.tell(f"encoding {g.number + 1}/{len(self.groups)}", (k + 1) / len(numbers))
            yield coded.payload

    def _chunks(self, g: _Group, boxes: list[Box]) -> Iterator[tuple[Array, Array]]:
        for box in boxes:
            raw = self.inputs.read(g.draft.paths, box)
            invalid = np.stack([m.stats.validity.invalid(raw[v]) for v, m in enumerate(g.members)])
            yield raw, invalid

    def _model_notes(self, used: bool) -> tuple[str, ...]:
        if self.model is None:
            return ()
        kept = "it is used as base" if used else "it is not used: the file is smaller without it"
        return (*self.model.notes, f"a model of {len(self.model.section)} bytes was weighed; {kept}")

    def _report(self, out: str | os.PathLike[str], size: int, sizes: dict[str, int], used: bool) -> Report:
        rows = {}
        for g in self.groups:
            for m, t in zip(g.members, g.totals or [], strict=True):
                name = g.choice.name if g.choice else ""
                rows[m.variable.path] = VariableReport(
                    path=m.variable.path,
                    bounds=tuple(str(b) for b in m.bounds),
                    method=name,
                    span=m.target.span,
                    nrmse=t.nrmse,
                    psnr=t.psnr,
                    max_error=t.max_error,
                )
        for m in self.lossy:
            if m.reason:
                rows[m.variable.path] = VariableReport(
                    path=m.variable.path,
                    bounds=tuple(str(b) for b in m.bounds),
                    method="lossless",
                    span=m.target.span,
                    nrmse=0.0,
                    psnr=float("inf"),
                    max_error=0.0,
                    note=m.reason,
                )
        notes = tuple(
            f"{m.variable.path}: {v:g} repeats at an extreme and is kept as a fill value"
            for m in self.lossy
            for v in m.stats.sentinels
        )
        section = self.model.section if self.model is not None and used else b""
        return Report(
            path=str(out),
            size=size,
            raw_bytes=sum(m.variable.nbytes for m in self.lossy),
            lossy_values=sum(int(np.prod(m.variable.shape, dtype=object)) for m in self.lossy),
            variables=tuple(rows[m.variable.path] for m in self.lossy),
            sizes=sizes,
            model_size=len(section),
            model_shared=bool(section) and not self.options.embed,
            notes=notes + self._model_notes(used),
        )


def _read_back(path: Path, model: GroupModel | None) -> None:
    """Open the finished file as a reader would, before it gets its name: checksums, sections and plans."""
    try:
        with Archive(path, backend="numpy") as archive:
            if model is not None:
                archive.know_model(model.sha, model.decoder)
            archive.reader.check_copies()
            for part in archive.parts:
                if part.group is not None:
                    archive.plan(part.group)
            for v in archive.small_variables():
                archive.small(v.path)
    except FormatError as e:
        raise BoundViolationError(f"the finished file cannot be read back: {e}") from e


def _finer(ratio: Array, attempt: int) -> Array:
    """Factors for the steps after a miss: first the variables that missed.

    Then all alike (which keeps their balance).
    """
    if attempt == 0:
        return np.where(ratio > 0.99, (0.98 / ratio) ** 1.2, 1.0)
    return np.full(len(ratio), float(0.98 / ratio.max()) ** 1.25)


def _global_ratios(totals: list[Totals], members: list[LossyVariable]) -> Array:
    """RMSE over its global limit for every variable; at most 1 (with the inner margin) means it holds."""
    out = [
        t.sse / (m.target.rmse * m.target.rmse * max(t.count, 1)) / MARGIN if np.isfinite(m.target.rmse) else 0.0
        for t, m in zip(totals, members, strict=True)
    ]
    ratio: Array = np.sqrt(np.array(out))
    return ratio
