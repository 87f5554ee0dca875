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
from hbae.arrays import Array, Box, Field, Tiling, Variable
from hbae.blocks import MAX_RANK
from hbae.bound import Target, Totals, VariableErrors
from hbae.config import BoundLike, parse_rules
from hbae.container import MAX_CHUNKS, ArchiveWriter
from hbae.errors import (
    BoundViolationError,
    ConfigError,
    FieldError,
    FormatError,
    ModelMismatchError,
    OutputExistsError,
    SizeNotMetError,
    UnknownNameError,
)
from hbae.exact import get_backend
from hbae.io import open_field
from hbae.pipeline.archive import Archive
from hbae.pipeline.calibrate import Choice, choose_plan
from hbae.pipeline.encode import quiet
from hbae.pipeline.exactvars import KeptChunks, chunk_step, encode_exact_chunks, encode_small, is_small
from hbae.pipeline.families import ModelOption, finer_plan, with_block_limits
from hbae.pipeline.groups import LossyVariable, judge_variable, lossy_bounds, make_drafts
from hbae.pipeline.inputs import Inputs, scratch_space
from hbae.pipeline.learn import GroupModel, prepare_model
from hbae.pipeline.options import CompressOptions
from hbae.pipeline.outcome import sentinel_notes, variable_reports
from hbae.pipeline.plan import GroupPlan, encode_plan
from hbae.pipeline.pool import Job, encode_all
from hbae.pipeline.regions import Regions
from hbae.pipeline.report import Report
from hbae.pipeline.sampling import Sample, take_sample
from hbae.pipeline.size import ANY_SIZE, Ask, loosest, scaled, write_to_size
from hbae.pipeline.touchup import TOUCH_UPS, Spool, finer_factors, global_ratios, worst_chunks
from hbae.pipeline.workers import Workers

REDO = 2
# Above this part of the raw bytes the file without loss is tried before any bound.
_PLAIN_SHARE = 0.25


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


def compress_field(
    source: Any, out: str | os.PathLike[str], bound: BoundLike | None, options: CompressOptions
) -> Report:
    """Write an archive whose bounds hold on what a reader gets; it is complete and verified, or it does not exist.

    Raises
    ------
    BoundViolationError
        When a bound could not be kept: a bug; nothing is written.
    OutputExistsError, UnknownNameError, ConfigError, FieldError, SizeNotMetError
        Before anything is written.
    """
    begin = time.monotonic()
    if Path(out).exists() and not options.overwrite:
        raise OutputExistsError(f"{out} exists; use -f or overwrite=True to replace it")
    if not Path(out).absolute().parent.is_dir():
        raise FieldError(f"{out}: there is no such folder")
    if bound is None and not options.by_size:
        raise ConfigError("nothing is asked for: give --bound, --size or --cr (bound=, size=, cr= in Python)")
    rules = parse_rules(ANY_SIZE if bound is None else bound)
    field = source if isinstance(source, Field) else open_field(source)
    for v in field.variables():
        if len(v.shape) > MAX_RANK:
            raise FieldError(f"variable {v.path}: {len(v.shape)} axes, the format holds {MAX_RANK}")
    wanted = lossy_bounds(field, rules, options.variables)
    Regions(field, wanted)
    lossy = [field.variable(p) for p in wanted]
    with (
        quiet(),
        threadpool_limits(1),
        Workers(options.threads) as workers,
        Inputs(lossy, options) as inputs,
    ):
        _check_scratch(field, wanted, options)
        inputs.read_all()
        read = time.monotonic()
        most = options.most_bytes(sum(field.variable(p).nbytes for p in wanted))
        if most is None:
            report = _Run(field, wanted, inputs, options, workers).write(out)
        else:
            report = _to_size(field, wanted, inputs, options, workers, most, out)
        seconds = {"read": read - begin, **report.seconds, "total": time.monotonic() - begin}
    return replace(report, seconds=seconds)


def _check_scratch(field: Field, wanted: dict[str, Any], options: CompressOptions) -> None:
    need = sum(field.variable(p).nbytes for p in wanted if field.variable(p).source.storage is not None)
    if need > scratch_space(options.scratch):
        raise FieldError(f"up to {need} bytes of scratch space are needed; give a larger folder with --scratch")


def _to_size(
    field: Field,
    wanted: dict[str, Any],
    inputs: Inputs,
    options: CompressOptions,
    workers: Workers,
    most: int,
    out: str | os.PathLike[str],
) -> Report:
    """Write the file of the tightest bound that fits, in several runs with one model and the same lossless parts."""
    raw = sum(field.variable(p).nbytes for p in wanted)
    plain = replace(options, method="lossless", model=None, budget=None)
    with KeptChunks(v for v in field.variables() if v.path not in wanted and not is_small(v)) as kept:
        if kept.nbytes > most:
            raise SizeNotMetError(f"size: {most:,} bytes cannot be met: what is not lossy alone takes {kept.nbytes:,}")
        last: list[_Run] = []

        def start(scale: float | None, near: bool) -> _Run:
            if scale is None:
                return _Run(field, dict.fromkeys(wanted, ()), inputs, plain, workers, kept=kept)
            bounds = {p: scaled(b, scale) for p, b in wanted.items()}
            run = _Run(field, bounds, inputs, options, workers, kept=kept, before=last[-1] if last else None, near=near)
            last[:] = [run]
            return run

        ask = Ask(
            most=most,
            top=loosest(wanted, inputs.stats),
            overwrite=options.overwrite,
            lossless_first=options.method == "lossless" or most > _PLAIN_SHARE * raw,
            lossless_only=options.method == "lossless" or not wanted,
        )
        return write_to_size(start, out, ask)


class _Run:
    """State of one compression after pass 1.

    ``kept``: lossless chunks that are coded already. ``before``: a run with other bounds, whose model is used again,
    and whose plans too, with other steps, where the bounds are ``near``.
    """

    def __init__(
        self,
        field: Field,
        wanted: dict[str, Any],
        inputs: Inputs,
        options: CompressOptions,
        workers: Workers,
        *,
        kept: KeptChunks | None = None,
        before: _Run | None = None,
        near: bool = False,
    ) -> None:
        self.field, self.inputs, self.options, self.workers, self.kept = field, inputs, options, workers, kept
        for name in options.ranges:
            if name not in wanted:
                raise UnknownNameError(f"range: {name!r} is no lossy variable")
        self.lossy = [
            judge_variable(field.variable(p), b, inputs.stats[p], options.ranges.get(p)) for p, b in wanted.items()
        ]
        self.regions = Regions(field, wanted)
        self.seconds: dict[str, float] = {}
        start = time.monotonic()
        coded = [m for m in self.lossy if not m.reason]
        if options.method == "lossless":
            coded = []
            self.lossy = [replace(m, reason="method=lossless") if not m.reason else m for m in self.lossy]
        self.model: GroupModel | None = before.model if before else prepare_model(coded, inputs, options)
        if before and self.model and not set(self.model.names) <= {m.variable.path for m in coded}:
            self.model = None
        if not before and self.model is not None and self.model.trained_seconds:
            self.seconds["train"] = self.model.trained_seconds
        names = self.model.names if self.model else None
        self.groups = [_Group(i, d, m) for i, (d, m) in enumerate(make_drafts(coded, options, names))]
        self._check_chunks()
        for g in self.groups:
            g.choice, g.sample = near_choice(g, before.groups) if before and near else (None, None)
            if g.choice is None:
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
        name = self._backend(g.draft)
        backend = get_backend(name)

        def choose(targets: list[Target]) -> Choice:
            return choose_plan(g.draft, targets, sample, methods, models=options, backend=name, workers=self.workers)

        targets, encoder = [m.target for m in g.members], model.encoder if model else None
        g.choice, targets = self.regions.choose(g.draft.paths, targets, sample, choose, encoder, backend)
        g.members = [replace(m, target=t) for m, t in zip(g.members, targets, strict=True)]
        g.sample = sample
        self.options.tell("choosing", (g.number + 1) / len(self.groups))

    def _backend(self, plan: GroupPlan) -> str:
        return self.options.device if self.model is not None else "numpy"

    def _exact(self) -> tuple[list[Variable], list[Variable]]:
        """Small and large variables that are kept without loss."""
        chunked = {p for g in self.groups for p in g.draft.paths}
        rest = [v for v in self.field.variables() if v.path not in chunked]
        return [v for v in rest if is_small(v)], [v for v in rest if not is_small(v)]

    def estimate(self) -> float:
        """Give the bytes to expect."""
        small, large = self._exact()
        known = sum(g.choice.estimate for g in self.groups if g.choice)
        return known + len(encode_small(small)) + sum(len(c) for v in large for c in self._exact_chunks(v))

    def _exact_chunks(self, v: Variable) -> Iterator[bytes]:
        return self.kept.of(v) if self.kept is not None else encode_exact_chunks(v)

    def write(self, out: str | os.PathLike[str]) -> Report:
        """Pass 2."""
        start = time.monotonic()
        small, large = self._exact()
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
                for payload in self._exact_chunks(v):
                    w.add_chunk(payload)
            sizes = w.sizes()
            model = self.model if used else None
            size = w.finish(lambda path: read_back(path, model))
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
                shrink = finer_factors(ratio, attempt)
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
            g.totals, ratio = totals, global_ratios(totals, g.members)
            if job.fine == TOUCH_UPS[-1] or plan.domain == "log" or lossless:
                return ratio
            again = worst_chunks(errors, ratio)
            if not len(again):
                return ratio
            job = replace(job, fine=TOUCH_UPS[TOUCH_UPS.index(job.fine) + 1])

    def _encode(self, job: Job, g: _Group, numbers: Array, errors: list[list[VariableErrors]]) -> Iterator[bytes]:
        """Give the bytes of the chunks of those numbers, and note their errors."""
        boxes = job.plan.geometry.chunks()
        chunks = self._chunks(g, [boxes[i] for i in numbers], job.targets)
        workers = self.workers
        for k, coded in enumerate(encode_all(job, chunks, workers, alone=len(numbers) == 1)):
            if not coded.errors.hold:
                raise BoundViolationError(f"chunk {numbers[k]} of {job.plan.paths[0]} does not hold its bound")
            for v, e in enumerate(coded.errors.variables):
                errors[v][numbers[k]] = e
            self.options.tell(f"encoding {g.number + 1}/{len(self.groups)}", (k + 1) / len(numbers))
            yield coded.payload

    def _chunks(
        self, g: _Group, boxes: list[Box], targets: list[Target]
    ) -> Iterator[tuple[Array, Array, list[Target]]]:
        for box in boxes:
            raw = self.inputs.read(g.draft.paths, box)
            invalid = np.stack([m.stats.validity.invalid(raw[v]) for v, m in enumerate(g.members)])
            yield raw, invalid, self.regions.at(g.draft.paths, targets, box)

    def _model_notes(self, used: bool) -> tuple[str, ...]:
        if self.model is None:
            return ()
        kept = "it is used as base" if used else "it is not used: the file is smaller without it"
        return (*self.model.notes, f"a model of {len(self.model.section)} bytes was weighed; {kept}")

    def _report(self, out: str | os.PathLike[str], size: int, sizes: dict[str, int], used: bool) -> Report:
        coded = [
            (m, t, g.choice.name if g.choice else "")
            for g in self.groups
            for m, t in zip(g.members, g.totals or [], strict=True)
        ]
        section = self.model.section if self.model is not None and used else b""
        return Report(
            path=str(out),
            size=size,
            raw_bytes=sum(m.variable.nbytes for m in self.lossy),
            lossy_values=sum(int(np.prod(m.variable.shape, dtype=object)) for m in self.lossy),
            variables=variable_reports(coded, self.lossy),
            sizes=sizes,
            model_size=len(section),
            model_shared=bool(section) and not self.options.embed,
            seconds=self.seconds,
            notes=sentinel_notes(self.lossy) + self._model_notes(used),
        )


def near_choice(g: _Group, old: list[_Group]) -> tuple[Choice | None, Sample | None]:
    """Give the plan of the same group of a run at another scale, its steps moved with the bounds, if that suits."""
    for o in old:
        if o.draft.paths != g.draft.paths or o.choice is None or o.choice.lossless or g.draft.domain == "log":
            continue
        targets, before = ([m.target for m in k.members] for k in (g, o))
        points = o.choice.plan.geometry.points
        factor = np.array([t.tolerance(points) / b.tolerance(points) for t, b in zip(targets, before, strict=True)])
        if any(t.by_point or t.regions for t in targets) or not ((factor > 0.5) & (factor < 2)).all():
            continue
        plan = finer_plan(o.choice.plan, factor)
        g.draft = replace(g.draft, geometry=plan.geometry)
        plan = replace(plan, gae_unit=plan.gae_unit * factor, bounds=g.draft.bounds)
        return replace(o.choice, plan=plan), o.sample
    return None, None


def read_back(path: Path, model: GroupModel | None) -> None:
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
