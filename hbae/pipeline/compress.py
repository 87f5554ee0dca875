# SPDX-License-Identifier: MIT
"""Fields to an archive: pass 1 looks, pass 2 encodes, decodes its own bytes, judges and writes."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from hbae import __version__
from hbae.arrays import Field, Variable
from hbae.config import BoundLike
from hbae.container import MAX_CHUNKS, ArchiveWriter, SharedWriter, Writer
from hbae.errors import (
    BoundViolationError,
    ConfigError,
    FormatError,
    SizeNotMetError,
    UnfitModelError,
    UnknownNameError,
)
from hbae.pipeline.archive import Archive
from hbae.pipeline.begin import check_scratch, for_ranks, look
from hbae.pipeline.choosing import Chooser, Chosen, as_before, near_choice
from hbae.pipeline.crew import led
from hbae.pipeline.encode import quiet
from hbae.pipeline.exactvars import (
    KeptChunks,
    chunk_step,
    encode_exact_chunks,
    encode_small,
    is_small,
    num_chunks,
)
from hbae.pipeline.groups import LossyVariable, judge_variable, make_drafts
from hbae.pipeline.inputs import Inputs
from hbae.pipeline.learn import GroupModel, prepare_model
from hbae.pipeline.likeness import Earlier
from hbae.pipeline.options import CompressOptions
from hbae.pipeline.outcome import sentinel_notes, variable_reports
from hbae.pipeline.pass2 import Group, GroupWriter
from hbae.pipeline.plan import GroupPlan
from hbae.pipeline.regions import Regions
from hbae.pipeline.report import Report
from hbae.pipeline.sampling import Sample
from hbae.pipeline.size import Ask, loosest, scaled, write_to_size
from hbae.pipeline.workers import Workers
from hbae.ranks import FileTeam, Solo, agreed, share_of, together, total_of

# Above this part of the raw bytes the file without loss is tried before any bound.
_PLAIN_SHARE = 0.25


def compress_field(
    source: Any,
    out: str | os.PathLike[str],
    bound: BoundLike | None,
    options: CompressOptions,
    team: FileTeam | None = None,
) -> Report:
    """Write an archive whose bounds hold on what a reader gets; it is complete and verified, or it does not exist.

    All ranks of a team call it alike and share the work; the bytes are those of one process.

    Raises
    ------
    BoundViolationError
        When a bound could not be kept: a bug; nothing is written.
    OutputExistsError, UnknownNameError, ConfigError, FieldError, SizeNotMetError
        Before anything is written.
    BatchError
        Of a team: what another rank raised.
    """
    begin, ranks = time.monotonic(), team or Solo()
    field, wanted = together(ranks, lambda: look(source, out, bound, options))
    if ranks.size > 1:
        options = for_ranks(ranks, field, wanted, options, Path(out))
    lossy = [field.variable(p) for p in wanted]
    with (
        quiet(),
        threadpool_limits(1),
        Workers(options.threads) as workers,
        Inputs(lossy, options, ranks) as inputs,
    ):
        agreed(ranks, lambda: check_scratch(field, wanted, options))
        earlier = together(ranks, lambda: None if options.like is None else Earlier.of(options.like))
        inputs.read_all()
        read = time.monotonic()
        most = options.most_bytes(sum(field.variable(p).nbytes for p in wanted))
        if most is None:
            report = _Run(field, wanted, inputs, options, workers, team=ranks, earlier=earlier).write(out)
        else:
            report = _to_size(field, wanted, inputs, options, workers, ranks, most, out, earlier)
        seconds, total = {"read": read - begin, **report.seconds}, time.monotonic() - begin
        if most is not None:
            # Passes before the last one.
            seconds["search"] = max(0.0, total - sum(seconds.values()))
        seconds["total"] = total
    return ranks.share(replace(report, seconds=seconds))


def _to_size(
    field: Field,
    wanted: dict[str, Any],
    inputs: Inputs,
    options: CompressOptions,
    workers: Workers,
    team: FileTeam,
    most: int,
    out: str | os.PathLike[str],
    earlier: Earlier | None,
) -> Report:
    """Write the file of the tightest bound that fits, in several runs with one model and the same lossless parts."""
    raw = sum(field.variable(p).nbytes for p in wanted)
    plain = replace(options, method="lossless", model=None, budget=None, like=None)
    exact = [v for v in field.variables() if v.path not in wanted and not is_small(v)]
    with together(team, lambda: KeptChunks(exact, team)) as kept:
        least = total_of(team, kept.nbytes)
        last: list[_Run] = []

        def start(scale: float | None, near: bool) -> _Run:
            if scale is None:
                return _Run(field, dict.fromkeys(wanted, ()), inputs, plain, workers, team=team, kept=kept)
            bounds = {p: scaled(b, scale) for p, b in wanted.items()}
            before = last[-1] if last else None
            run = _Run(
                field, bounds, inputs, options, workers, team=team, kept=kept, earlier=earlier, before=before, near=near
            )
            last[:] = [run]
            return run

        ask = Ask(
            most=most,
            top=loosest(wanted, inputs.stats),
            overwrite=options.overwrite,
            lossless_first=options.method == "lossless" or most > _PLAIN_SHARE * raw,
            lossless_only=options.method == "lossless" or not wanted,
        )
        try:
            if least > most:
                raise SizeNotMetError(f"size: {most:,} bytes cannot be met: what is not lossy alone takes {least:,}")
            return write_to_size(start, out, ask, team)
        except SizeNotMetError as e:
            # All ranks find the same; that they say so together tells them that none is left waiting.
            agreed(team, partial(_refuse, e))
            raise


def _refuse(error: SizeNotMetError) -> None:
    raise error


class _Run:
    """State of one compression after pass 1.

    ``kept``: lossless chunks that are coded already. ``before``: a run with other bounds, whose model is used again,
    and whose plans too, with other steps, where the bounds are ``near``. ``earlier``: plans of another archive.
    """

    def __init__(
        self,
        field: Field,
        wanted: dict[str, Any],
        inputs: Inputs,
        options: CompressOptions,
        workers: Workers,
        *,
        team: FileTeam | None = None,
        kept: KeptChunks | None = None,
        earlier: Earlier | None = None,
        before: _Run | None = None,
        near: bool = False,
    ) -> None:
        self.field, self.inputs, self.options, self.workers, self.kept = field, inputs, options, workers, kept
        self.team = team or Solo()
        self.regions = Regions(field, wanted)
        self.seconds: dict[str, float] = {}
        start = time.monotonic()
        self.lossy = together(self.team, lambda: self._judged(wanted))
        coded = [m for m in self.lossy if not m.reason]
        self.model: GroupModel | None
        self.unfit: tuple[str, ...]
        self.model, self.unfit = (before.model, before.unfit) if before else self._prepared(coded)
        if before and self.model and not set(self.model.names) <= {m.variable.path for m in coded}:
            self.model = None
        if not before and self.model is not None and self.model.trained_seconds:
            self.seconds["train"] = self.model.trained_seconds
        near_groups = before.groups if before and near else []
        drafts = together(self.team, lambda: self._drafted(coded, near_groups))
        chooser = Chooser(inputs, self.regions, options, self.model, earlier)
        self.groups: list[Group] = []
        for i, (draft, members) in enumerate(drafts):
            if found := near_choice(draft, members, near_groups):
                self._add_group(found[0], members, found[1])
            else:
                for c in led(self.team, workers, partial(chooser.choose, draft, members)):
                    self._add_group(c, members, chooser.samples.get(c.draft.paths))
            options.tell("choosing", (i + 1) / len(drafts))
        self.chosen_notes: tuple[str, ...] = tuple(chooser.notes) or (before.chosen_notes if before else ())
        self.seconds["choose"] = time.monotonic() - start - self.seconds.get("train", 0.0)

    def _judged(self, wanted: dict[str, Any]) -> list[LossyVariable]:
        ranges, method = self.options.ranges, self.options.method
        for name in ranges:
            if name not in wanted:
                raise UnknownNameError(f"range: {name!r} is no lossy variable")
        stats = self.inputs.stats
        found = [judge_variable(self.field.variable(p), b, stats[p], ranges.get(p)) for p, b in wanted.items()]
        if method == "lossless":
            return [replace(m, reason=m.reason or "method=lossless") for m in found]
        return found

    def _prepared(self, coded: list[LossyVariable]) -> tuple[GroupModel | None, tuple[str, ...]]:
        """The model that takes part, or why the one that was named does not; method ``hbae`` insists on it."""

        def prepare() -> tuple[GroupModel | None, tuple[str, ...]]:
            try:
                return prepare_model(coded, self.inputs, self.options), ()
            except UnfitModelError as e:
                if self.options.method != "auto":
                    raise
                return None, (f"{e}: coded without it",)

        return agreed(self.team, prepare)

    def _drafted(self, coded: list[LossyVariable], old: list[Group]) -> list[tuple[GroupPlan, list[LossyVariable]]]:
        """Groups before their plans are chosen; parted as ``old`` ones are."""
        drafts = make_drafts(coded, self.options, self.model.names if self.model else None)
        paths = {p for d, _ in drafts for p in d.paths}
        exact = [v for v in self.field.variables() if v.path not in paths and not is_small(v)]
        count = sum(d.geometry.num_chunks for d, _ in drafts)
        if count + sum(num_chunks(v) for v in exact) > MAX_CHUNKS:
            raise ConfigError(f"chunk: more than the {MAX_CHUNKS} chunks that an archive holds; give larger ones")
        return as_before(drafts, old, self.options)

    def _add_group(self, chosen: Chosen, members: list[LossyVariable], sample: Sample | None) -> None:
        found = {m.variable.path: m for m in members}
        mine = [replace(found[p], target=t) for p, t in zip(chosen.draft.paths, chosen.targets, strict=True)]
        self.groups.append(Group(len(self.groups), chosen.draft, mine, chosen.choice, sample))

    def _exact(self) -> tuple[list[Variable], list[Variable]]:
        """Small and large variables that are kept without loss."""
        chunked = {p for g in self.groups for p in g.draft.paths}
        rest = [v for v in self.field.variables() if v.path not in chunked]
        return [v for v in rest if is_small(v)], [v for v in rest if not is_small(v)]

    def estimate(self) -> float:
        """Give the bytes to expect."""
        small, large = self._exact()
        known = sum(g.choice.estimate for g in self.groups if g.choice)
        exact = total_of(self.team, together(self.team, lambda: sum(map(self._exact_bytes, large))))
        return self.team.share(known + len(encode_small(small)) + exact)

    def _exact_bytes(self, v: Variable) -> int:
        """Bytes of this rank's share of a large lossless variable."""
        mine = share_of(self.team, num_chunks(v))
        return sum(len(c) for c in self._exact_chunks(v, mine))

    def _exact_chunks(self, v: Variable, numbers: range) -> Iterator[bytes]:
        return encode_exact_chunks(v, numbers) if self.kept is None else self.kept.of(v, numbers)

    def _writer(self, out: str | os.PathLike[str], header: dict[str, Any]) -> Writer:
        o = self.options
        if self.team.size == 1:
            return ArchiveWriter(out, header, overwrite=o.overwrite)
        return SharedWriter(out, header, self.team, overwrite=o.overwrite, scratch=o.scratch)

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
        with self._writer(out, header) as w:
            w.redundant = self.options.redundant
            w.add_section("values", together(self.team, lambda: encode_small(small)))
            used = self.model is not None and any(g.choice and g.choice.plan.model for g in self.groups)
            if used and self.model is not None and self.options.embed:
                w.add_section(f"model {self.model.sha[:16]}", self.model.section)
            groups = self._group_writer()
            for g in self.groups:
                groups.write(w, g)
            for v in large:
                mine = w.share(num_chunks(v))
                together(self.team, partial(self._write_exact, w, v, mine))
            model = self.model if used else None
            size = w.finish(lambda path: read_back(path, model))
            sizes = w.sizes()
            sizes["header and index"] = size - sum(sizes.values())
        self.seconds["encode"] = time.monotonic() - start
        return self._report(out, size, sizes, used)

    def _group_writer(self) -> GroupWriter:
        return GroupWriter(
            self.inputs,
            self.regions,
            self.options,
            self.workers,
            self.team,
            model=self.model.encoder if self.model is not None else None,
            backend=self.options.backend(model=self.model is not None),
            stages=len(self.groups),
        )

    def _write_exact(self, w: Writer, v: Variable, numbers: range) -> None:
        for payload in self._exact_chunks(v, numbers):
            w.add_chunk(payload)

    def _model_notes(self, used: bool) -> tuple[str, ...]:
        if self.model is None:
            return self.unfit
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
            notes=sentinel_notes(self.lossy) + self._model_notes(used) + self.chosen_notes,
        )


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
