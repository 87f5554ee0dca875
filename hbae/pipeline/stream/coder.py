# SPDX-License-Identifier: MIT
"""Slabs of steps to chunks: plans are chosen on the first slab in which a variable varies, and kept from then on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from hbae.arrays import Array, ArraySource, Box, Field, Tiling, Variable, box_shape
from hbae.blocks import Geometry
from hbae.bound import Target
from hbae.config import ErrorBound
from hbae.errors import ConfigError, ModelMismatchError, UnknownNameError
from hbae.exact import Backend, get_backend
from hbae.io import fill_patterns
from hbae.pipeline.calibrate import Choice, choose_plan
from hbae.pipeline.encode import quiet
from hbae.pipeline.exactvars import chunk_step, encode_exact_chunk
from hbae.pipeline.groups import MAX_LOSSY_RANK, LossyVariable, judge_variable, make_drafts
from hbae.pipeline.inputs import Inputs
from hbae.pipeline.learn import GroupModel, model_geometry
from hbae.pipeline.options import CompressOptions
from hbae.pipeline.plan import GroupPlan
from hbae.pipeline.regions import Regions
from hbae.pipeline.sampling import take_sample
from hbae.pipeline.setting import ModelOption
from hbae.pipeline.stats import Validity, VariableStats
from hbae.pipeline.stream.held import encode_held
from hbae.pipeline.stream.layout import Layout
from hbae.pipeline.stream.shapes import even_chunks, slab_geometry
from hbae.pipeline.workers import Workers

_SPAN_KINDS = ("nrmse", "psnr", "rel_range", "block_nrmse")


@dataclass
class CodedGroup:
    """Variables that are coded together: the geometry of a slab, and the plan once it is chosen.

    ``geometry``: None for variables that are never lossy. ``chunk``: box shape of their chunks. ``sentinels``: fill
    values found in the data, by variable.
    """

    paths: tuple[str, ...]
    chunk: tuple[int, ...]
    geometry: Geometry | None = None
    plan: GroupPlan | None = None
    targets: tuple[Target, ...] = ()
    sentinels: tuple[tuple[float, ...], ...] = ()


class Coder:
    """Turns slabs into chunks, in every one of which all bounds hold, ``nrmse`` and ``psnr`` included.

    Parameters
    ----------
    steps : int
        Steps of a whole slab.
    wanted : mapping
        Bounds of the lossy variables.
    only : bool
        There is one slab, of ``steps`` steps: blocks need not divide it.

    Raises
    ------
    ConfigError, UnknownNameError, ModelMismatchError
        When a range is missing, names, blocks or regions do not fit, or a model's variables do not lie on one grid.
    """

    def __init__(
        self,
        layout: Layout,
        steps: int,
        wanted: Mapping[str, tuple[ErrorBound, ...]],
        options: CompressOptions,
        model: GroupModel | None = None,
        *,
        only: bool = False,
    ) -> None:
        self.layout, self.steps, self.wanted, self.options, self.model = layout, steps, dict(wanted), options, model
        self.groups: list[CodedGroup] = []
        self._only = only
        self._variables = {v.path: v for v in self._field(np.zeros(steps), {}).variables()}
        self._check_ranges()
        Regions(self._field(np.zeros(steps), {}), self.wanted)
        if model is not None and model.names not in [g.paths for g in self._partition(frozenset())]:
            raise ModelMismatchError("model: its variables are not all lossy together on one grid")

    def _check_ranges(self) -> None:
        moving = {v.path for v in self.layout.moving}
        for path, bounds in self.wanted.items():
            if path not in moving:
                raise ConfigError(f"bound {path}: a coordinate that no step changes is kept without loss")
            kinds = [b.kind for b in bounds if b.kind in _SPAN_KINDS]
            if kinds and path not in self.options.ranges:
                raise ConfigError(
                    f"range: {kinds[0]} of {path} needs a range for it: that of all steps is not known yet"
                )
        for name in self.options.ranges:
            if name not in self.wanted:
                raise UnknownNameError(f"range: {name!r} is no lossy variable")

    def _field(self, steps: Array, arrays: Mapping[str, Array]) -> Field:
        return self.layout.field(steps, {p: ArraySource(a) for p, a in arrays.items()})

    def variable(self, path: str) -> Variable:
        """Give a variable with the shape of a whole slab."""
        return self._variables[path]

    def boxes(self, g: CodedGroup, n: int) -> Tiling:
        """Boxes of a group's chunks in a slab of n steps."""
        return Tiling((n, *self._variables[g.paths[0]].shape[1:]), g.chunk)

    def num_chunks(self, n: int) -> int:
        """How many chunks a slab of n steps has once the groups are known; before that, with all variables varying."""
        return sum(len(self.boxes(g, n)) for g in self.groups or self._partition(frozenset()))

    def encode(self, steps: Array, arrays: Mapping[str, Array]) -> Iterator[bytes]:
        """Give the chunks of a slab, group after group; the first slab decides which variables go together."""
        with quiet():
            field = self._field(steps, arrays)
            regions = Regions(field, self.wanted)
            self._choose(field, len(steps), regions)
            for g in self.groups:
                for box in self.boxes(g, len(steps)):
                    cuts = [arrays[p][box] for p in g.paths]
                    raw = np.stack(cuts, out=np.empty((len(cuts), *box_shape(box)), cuts[0].dtype))
                    yield self._chunk(g, raw, regions, box)

    def _chunk(self, g: CodedGroup, raw: Array, regions: Regions, box: Box) -> bytes:
        if g.plan is None:
            v = Variable(name=g.paths[0], dims=("",) * raw.ndim, source=ArraySource(raw))
            return encode_exact_chunk(v, tuple(slice(0, n) for n in raw.shape))
        validity = [self._validity(g, k) for k in range(len(raw))]
        invalid = np.stack([v.invalid(x) for v, x in zip(validity, raw, strict=True)])
        targets = regions.at(g.paths, list(g.targets), box)
        # A stream that goes on after a stop knows bounds, but not what they were resolved with.
        targets = [replace(t, reserved=v.excluded) for t, v in zip(targets, validity, strict=True)]
        model = self.model.encoder if self.model is not None and g.plan.model else None
        return encode_held(raw, invalid, g.plan, targets, model=model, backend=self._coder())

    def _validity(self, g: CodedGroup, k: int) -> Validity:
        fills = [f for pattern in fill_patterns(self._variables[g.paths[k]]) for f in np.ravel(pattern)]
        return Validity((*fills, *g.sentinels[k]), zeros=math.isfinite(g.targets[k].pw_rel))

    def _coder(self) -> Backend:
        return get_backend(self.options.backend(model=self.model is not None))

    def _backend(self) -> str:
        """Name what chooses plans: without a model the processor, so that the choice is that of any machine."""
        return self.options.device if self.model is not None else "numpy"

    def _choose(self, field: Field, n: int, regions: Regions) -> None:
        """Choose plans of groups that have none yet, and all of whose variables vary in this slab."""
        names = (
            [p for g in self.groups if g.geometry and not g.plan for p in g.paths] if self.groups else [*self.wanted]
        )
        with Inputs([field.variable(p) for p in names], self.options) as inputs:
            inputs.read_all()
            ranges = self.options.ranges
            found = {
                p: judge_variable(field.variable(p), self.wanted[p], inputs.stats[p], ranges.get(p)) for p in names
            }
            if not self.groups:
                self.groups = self._partition(frozenset(p for p, m in found.items() if m.reason))
            for g in self.groups:
                if g.geometry is not None and g.plan is None and not any(found[p].reason for p in g.paths):
                    self._choose_group(g, [found[p] for p in g.paths], inputs, n, regions)

    def _partition(self, alone: frozenset[str]) -> list[CodedGroup]:
        """Put variables together as a file's are; ``alone``: those that get a group of their own."""
        names = self.model.names if self.model is not None else ()
        blank = [blank_member(self._variables[p], b, self.options) for p, b in self.wanted.items()]
        together = [m for m in blank if m.variable.path not in alone - frozenset(names)]
        drafts = [d for m in blank if m not in together for d, _ in make_drafts([m], self.options, None)]
        drafts += [d for d, _ in make_drafts(together, self.options, names or None)]
        groups = [CodedGroup(d.paths, g.chunk, g) for d in drafts for g in (self._geometry(d),)]
        coded = {p for g in groups for p in g.paths}
        rest = [v for v in self.layout.moving if v.path not in coded]
        return groups + [CodedGroup((v.path,), chunk_step(self._variables[v.path])) for v in rest]

    def _geometry(self, draft: GroupPlan) -> Geometry:
        shape, v, size = draft.geometry.shape, draft.num_variables, draft.dtype.itemsize
        if self.model is not None and draft.paths == self.model.names:
            m = self.model.geometry
            g = model_geometry(shape, m.block, m.hyper, v, size, self.options)
            return g if self._only else even_chunks(g)
        return draft.geometry if self._only else slab_geometry(shape, v, size, self.options)

    def _choose_group(
        self, g: CodedGroup, members: list[LossyVariable], inputs: Inputs, n: int, regions: Regions
    ) -> None:
        if g.geometry is None:
            return
        model = self.model if self.model is not None and self.model.names == g.paths else None
        draft, members = make_drafts(members, self.options, g.paths if model else None)[0]
        draft = replace(draft, geometry=replace(g.geometry, shape=(n, *g.geometry.shape[1:])))
        sample = take_sample(draft, inputs, [m.stats.validity for m in members], self.options.seed)
        # A model's bytes are shared by all slabs to come, so they do not count here.
        models = [ModelOption(model.encoder, model.decoder, model.sha, 0)] if model else []
        methods = ("linear", "hbae") if model else ("linear",)
        name = self._backend()

        def choose(targets: list[Target]) -> Choice:
            return choose_plan(
                draft,
                targets,
                sample,
                methods,
                models=models,
                backend=name,
                workers=Workers(1),
                fast=self.options.fast,
                looks_follow=False,
            )

        encoder, targets = model.encoder if model else None, [m.target for m in members]
        choice, targets = regions.choose(g.paths, targets, sample, choose, encoder, get_backend(name))
        if choice.lossless:
            return
        g.plan, g.targets = without_limits(choice.plan), tuple(targets)
        g.sentinels = tuple(m.stats.sentinels for m in members)


def blank_member(v: Variable, bounds: tuple[ErrorBound, ...], options: CompressOptions) -> LossyVariable:
    """Stand for a variable whose values are not known yet."""
    stats = VariableStats(low=0.0, high=1.0, valid=2, invalid=0, validity=Validity())
    return replace(judge_variable(v, bounds, stats, options.ranges.get(v.path)), reason="")


def can_lose(v: Variable) -> bool:
    """Tell whether a variable (first axis: steps) may be lossy: no single numbers, empty arrays, or too many axes."""
    return 2 <= len(v.shape) <= MAX_LOSSY_RANK and v.nbytes > 0


def without_limits(plan: GroupPlan) -> GroupPlan:
    """Give the plan with a clip that lets every value of the type pass: later steps may exceed the first ones."""
    whole = plan.dtype if plan.dtype.kind == "f" else np.dtype("f8")
    top = np.full(plan.num_variables, float(np.finfo(whole).max))
    return replace(plan, low=-top if plan.domain == "linear" else 0 * top, high=top, limits=None)
