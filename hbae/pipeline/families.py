# SPDX-License-Identifier: MIT
"""The plans worth weighing for a group: families of stages with their variants, each family a task of its own."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import partial
from operator import itemgetter
from typing import Any

import numpy as np

from hbae.arrays import Array
from hbae.blocks import fill_invalid, split_blocks, split_tiles
from hbae.bound import Target, rotated
from hbae.errors import FormatError
from hbae.exact import AxisBasis, Backend, BlockDecoder, Transform
from hbae.exact.backend import NumpyBackend
from hbae.pipeline.encode import BlockEncoder, latents_of, trial_chunk
from hbae.pipeline.levels import quantise_levels
from hbae.pipeline.logdomain import step_for
from hbae.pipeline.original import physical
from hbae.pipeline.parts import Parts, inverse_of, linear_values
from hbae.pipeline.plan import GroupPlan
from hbae.pipeline.replan import fit_blocks
from hbae.pipeline.rounding import worth_of
from hbae.pipeline.sampling import Sample, few_boxes, offsets_of, whole_axis
from hbae.pipeline.steps import AIM, FIT_POINTS, Quantiser, balance_points, solve_points, solve_units
from hbae.pipeline.variants import difference_axes, grid_kinds, kind_options, level_options, relations, wavelet_options
from hbae.pipeline.waves import quantise_waves

# From that many variables on, plans without PCA over them are tried only where PCA saves fewer bits a value than that
# or there are few values.
MANY, _LITTLE_GAIN, _FEW_VALUES = 8, 0.3, 1 << 21
# Steps of wavelets whose points are corrected, in those that would leave few to correct; noise wants the coarse ones.
_COARSER = (1.0, 1.5, 2.5, 6.0, 15.0, 60.0)
# The same for transforms, in steps that leave an RMSE of so many tolerances.
_FINE_TILES = 0.5
_COARSER_TILES = (1.0, 2.5, 6.0, 15.0, 40.0)
# Squared tolerances, summed over variables, from which on the coefficients of a place are worth bits; so many places.
_WORTH_BITS, _DETAILS = 6.0, 1 << 13
# Coarser steps are tried on so many points, of so many boxes, until they take so many times the bytes of the best ones.
_FEW_POINTS, _FEW_BOXES, _GROWING = 1 << 18, 4, 1.01


@dataclass(frozen=True)
class ModelOption:
    """A model that may serve as base: its encoder, its decoder and SHA-256, and the bytes that it adds to the file."""

    encoder: BlockEncoder
    decoder: BlockDecoder
    sha: str
    nbytes: int


@dataclass(frozen=True, eq=False)
class Candidate:
    """A plan on trial; ``extra``: bytes of the model that it needs; ``tall``: its tiles hold the first axis."""

    name: str
    plan: GroupPlan
    model: BlockEncoder | None
    extra: int
    lossless: bool
    tall: bool = False

    @property
    def kind(self) -> str:
        """What the name says before its details."""
        return self.name.partition("(")[0]


@dataclass(frozen=True)
class Family:
    """Plans that differ in details; the first one stands for all in the first round."""

    members: list[Candidate]


# What names a family within a setting.
Task = tuple[str, ...]


@dataclass(frozen=True)
class Setting:
    """What all families of a group share: tolerances, residual boxes, tiles to fit on, stages that close the gap.

    ``tall``: tiles hold the first axis. ``head``: the only one of the ways over the variables that its offsets suit, if
    not all. ``fast``: variables do not tell of each other. ``brief``: half of the trials within a family will do.
    """

    draft: GroupPlan
    targets: list[Target]
    sample: Sample
    tol: Array
    left: list[Array]
    tiles: Array
    model: ModelOption | None
    closing: dict[str, Any]
    tall: bool = False
    head: str = ""
    fast: bool = False
    brief: bool = False
    _mixes: dict[str, list[tuple[Transform, Array]]] = field(default_factory=dict, repr=False)
    _details: list[Array] = field(default_factory=list, repr=False)

    @property
    def by_point(self) -> bool:
        """Whether any variable has pointwise limits."""
        return any(t.by_point for t in self.targets)

    @property
    def by_point_alone(self) -> bool:
        """Whether every variable has one limit for all of its points, and no other."""
        others = any(t.regions or t.by_block or min(t.rmse, t.pw_rel) < math.inf for t in self.targets)
        return self.by_point and not others

    @property
    def by_block(self) -> bool:
        """Whether any variable has block limits."""
        return any(t.by_block for t in self.targets)

    def points(self) -> Array:
        """Some of the residual boxes' points, (V, n)."""
        flat = np.concatenate([x.reshape(len(x), -1) for x in self.left], axis=1)
        return flat[:, :: max(1, flat.size // FIT_POINTS)]

    def details(self) -> Array:
        """Coefficients of wavelets of some places of the residual boxes, (V, n), where any is worth bits."""
        if not self._details:
            self._details.append(_details_of(self))
        return self._details[0]

    def mixes(self, head: str) -> list[tuple[Transform, Array]]:
        """Bases over the variables with steps for points, of every degree of balance; worked out once."""
        if head not in self._mixes:
            self._mixes[head] = solve_units(self.points(), self.tol, (head,), rounding=0.5)
        return self._mixes[head]

    def heads(self) -> tuple[str, ...]:
        """Whether PCA over the variables is worth trying, or its absence, or both."""
        v = self.draft.num_variables
        if v == 1:
            return ("none",)
        few = sum(x.size for x in self.left) <= _FEW_VALUES
        both = few or v < MANY or _gain(self.points() / self.tol[:, None]) < _LITTLE_GAIN
        return tuple(h for h in (("none", "klt") if both else ("klt",)) if self.head in ("", h))

    def family(self, named: list[tuple[str, GroupPlan]]) -> Family:
        """Wrap plans."""
        encoder = self.model.encoder if self.model else None
        prefix = "hbae+" if self.model else ""
        extra = self.model.nbytes if self.model else 0
        return Family([Candidate(prefix + n, p, encoder, extra, False, self.tall) for n, p in named])


def make_settings(draft: GroupPlan, targets: list[Target], sample: Sample, backend: Backend) -> list[Setting]:
    """Work out what families without a model share.

    Offsets are those that suit plans without a basis over the variables, and those for bases where these are others.
    """
    if draft.domain == "log":
        made = [make_setting(draft, targets, sample, None, backend)]
        return [s for s in made if s is not None]
    rest, mean = offsets_of(sample, draft)
    centred = replace(draft, offset=mean)
    made = [make_setting(centred, targets, sample, None, backend)]
    if made[0] is not None and "none" in made[0].heads() and (rest != mean).any():
        apart = make_setting(replace(draft, offset=rest), targets, sample, None, backend)
        alone = draft.num_variables == 1
        made = [apart] if alone else [s and replace(s, head=h) for s, h in ((apart, "none"), (made[0], "klt"))]
    made.append(make_tall(centred, targets, sample, backend))
    return [s for s in made if s is not None and s.heads()]


def make_tall(draft: GroupPlan, targets: list[Target], sample: Sample, backend: Backend) -> Setting | None:
    """Give the setting of plans whose tiles hold the first axis from end to end, where there are any."""
    if sample.columns is None or draft.domain == "log" or any(t.regions for t in targets):
        return None
    tall = make_setting(replace(draft, geometry=whole_axis(draft.geometry)), targets, sample.columns, None, backend)
    return None if tall is None else replace(tall, tall=True)


def make_setting(
    draft: GroupPlan, targets: list[Target], sample: Sample, model: ModelOption | None, backend: Backend
) -> Setting | None:
    """Work out what the families share, with a model as base or without; nothing where no plan can meet the targets."""
    if model is not None:
        draft = replace(draft, decoder=model.decoder, model=model.sha)
    tol = np.array([t.tolerance(draft.geometry.points) for t in targets])
    if draft.domain == "log":
        return Setting(draft, targets, sample, tol, [], np.zeros(0), None, {})
    left = [_residual(raw, invalid, draft, model, backend) for raw, invalid in sample.boxes]
    tiles = np.concatenate([split_tiles(x, draft.geometry.tile) for x in left], axis=1)
    tiles = tiles[:, :: max(1, -(-tiles.size // (4 * FIT_POINTS)))]
    s = Setting(draft, targets, sample, tol, left, tiles, model, {})
    if s.by_point:
        unit = _point_units(draft, targets, tol)
        return replace(s, closing={"point_unit": unit}) if (unit > 0).all() else None
    return replace(s, closing=_block_stage(s)) if s.by_block else s


def family_tasks(s: Setting) -> list[Task]:
    """List the families that can meet the targets."""
    if s.draft.domain == "log":
        return [("log",)]
    if s.tall:
        return [("transform", s.heads()[-1], "pod", *grid_kinds(s.draft.geometry.tile[1:]))]
    if s.by_point:
        # Without a basis over the variables, so not in a setting whose offsets are for one.
        tasks: list[Task] = [("each point", way) for way in ("lorenzo", "interpolation") if s.head != "klt"]
        if s.by_point_alone and wavelet_options(s.draft):
            tasks += [("corrected", head) for head in s.heads()]
    else:
        ways = ("lorenzo", "interpolation", "wavelet") if wavelet_options(s.draft) else ("lorenzo", "interpolation")
        tasks = [("points", way, head) for head in s.heads() for way in ways]
    if s.model is not None and (s.closing or _base_holds(s)):
        tasks.append(("base",))
    return tasks + [("transform", *kinds) for kinds in kind_options(s.draft, s.sample, s.heads())]


def kind_of(task: Task) -> str:
    """Give the kind of the plans that a task makes."""
    head, *rest = task
    return {"points": rest[0], "each point": rest[0], "corrected": "wavelet"}.get(head, head) if rest else head


def without_basis(task: Task) -> Task:
    """Give the task of the same predictor without a basis over the variables, for one with it; nothing for others."""
    return (*task[:2], "none") if task[0] == "points" and task[2] == "klt" else ()


def make_family(s: Setting, task: Task) -> Family:
    """Fit the bases and steps of a family; it comes out empty where no plan can meet the targets."""
    try:
        return _made(s, task)
    except FormatError:
        # Steps so fine, or so coarse, that arithmetic is no longer exact.
        return Family([])


def _made(s: Setting, task: Task) -> Family:
    kind, *rest = task
    if kind == "log":
        return _log_family(s.draft, s.targets)
    if kind == "each point":
        return _pointwise(s, rest[0])
    if kind == "points":
        return _predicted(s, rest[0], rest[1])
    if kind == "corrected":
        return _corrected(s, rest[0])
    if kind == "base":
        return s.family([("base", replace(s.draft, **s.closing))])
    return _transformed(s, tuple(rest))


def _log_family(draft: GroupPlan, targets: list[Target]) -> Family:
    steps = np.array([float(step_for(t.pw_rel, draft.dtype)) for t in targets])
    if (steps < 2).any():
        return Family([])
    plans = [replace(draft, point_unit=steps, diff_axes=axes) for axes in difference_axes(draft.geometry)]
    return Family([Candidate("log" + ("-lorenzo" if p.diff_axes else ""), p, None, 0, False) for p in plans])


def _pointwise(s: Setting, way: str) -> Family:
    """Every point quantised at its own bound, predicted by differences or by interpolation."""
    base = replace(s.draft, **s.closing)
    if way == "interpolation":
        return s.family([(way, replace(base, levels=k)) for k in level_options(s.draft)])
    plans = [replace(base, diff_axes=a) for a in difference_axes(s.draft.geometry)]
    return s.family([(way if p.diff_axes else "point", p) for p in plans])


def _predicted(s: Setting, way: str, head: str) -> Family:
    """Points quantised for an RMSE, with or without PCA over the variables."""
    if way == "lorenzo":
        plans = []
        for degree, (mixed, steps) in enumerate(s.mixes(head)):
            options = difference_axes(s.draft.geometry)[: 1 if degree else None]
            plans += [replace(_mixing(s, mixed, head), point_unit=steps, diff_axes=a) for a in options]
        return _named(s, way, head, plans)
    if way == "interpolation":
        levels = level_options(s.draft)
        balanced, plain = _balances(s, head, partial(quantise_levels, levels=levels[0]))
        plans = [replace(balanced, levels=k) for k in levels]
        return _named(s, way, head, plans + [replace(p, levels=levels[0]) for p in plain])
    waves, tied = wavelet_options(s.draft), relations(s.draft.num_variables, head, fast=s.fast)
    worth = worth_of(tied[0], nearest=False)
    balanced, plain = _balances(s, head, partial(quantise_waves, wavelet=waves[0], worth=worth))
    plans = [replace(balanced, wavelet=k, related=tied[0]) for k in waves]
    plans += [replace(balanced, wavelet=waves[0], related=t) for t in tied[1:]]
    return _named(s, way, head, plans + [replace(p, wavelet=waves[0], related=tied[0]) for p in plain])


def _corrected(s: Setting, head: str) -> Family:
    """Wavelets at coarser steps than the points' limits ask for, and corrections of the points that miss theirs."""
    mixed, steps = s.mixes(head)[-1]
    none = tuple(AxisBasis("none", n, None, np.zeros(n, np.int64)) for n in (len(s.targets), *s.draft.geometry.block))
    base = replace(_mixing(s, mixed, head), gae=Transform(none), gae_unit=s.closing["point_unit"])
    options = [replace(base, point_unit=steps, wavelet=w) for w in wavelet_options(s.draft)]
    best = min(options, key=partial(_bytes_on_part, s)) if s.model is None and not s.brief else options[0]
    if best.mix is not None and s.model is None:
        turned = replace(best, mix=rotated(best.mix, s.details() / steps[:, None]))
        best = min((best, turned), key=partial(_bytes_on_part, s))
    found = _improving(s, [replace(best, point_unit=steps * k) for k in _COARSER])
    tied = relations(s.draft.num_variables, head, fast=s.fast)
    plans = [replace(found[0], related=t) for t in tied] + [replace(p, related=tied[0]) for p in found[1:]]
    return _named(s, "wavelet", head, plans)


def _improving(s: Setting, plans: list[GroupPlan]) -> list[GroupPlan]:
    """Give the two best plans of ever coarser steps by bytes on a small part, up to where these grow."""
    if s.model is not None:
        # Each trial would take long.
        return plans[:1]
    found: list[tuple[float, GroupPlan]] = []
    for plan in plans[:: 2 if s.brief else 1]:
        best = min((size for size, _ in found), default=math.inf)
        found.append((_bytes_on_part(s, plan), plan))
        if found[-1][0] > _GROWING * best:
            break
    return [plan for _, plan in sorted(found, key=itemgetter(0))[:2]]


def _bytes_on_part(s: Setting, plan: GroupPlan) -> float:
    """Bytes on a small part of the sample, without a model."""
    boxes = few_boxes(s.sample.boxes, _FEW_POINTS)[:_FEW_BOXES]
    try:
        sizes = [trial_chunk(*box, plan, s.targets, model=None, backend=NumpyBackend())[0] for box in boxes]
    except FormatError:
        return math.inf
    return float(sum(sizes))


def _balances(s: Setting, head: str, quantise: Quantiser) -> tuple[GroupPlan, list[GroupPlan]]:
    """Give the draft with the steps of a predictor, balanced by its own errors, and with others worth weighing."""
    found = [(steps, _mixing(s, mixed, head)) for mixed, steps in s.mixes(head)]
    steps, base = found[-1]
    if base.mix is None:
        return replace(base, point_unit=solve_points(s.left, s.sample, s.tol, (steps, None), quantise)), []
    try:
        samples = s.points(), s.details()
        steps, mix = balance_points(s.left, s.sample, s.tol, (steps, base.mix), quantise, *samples)
    except FormatError:
        # Finer steps on the way than exact arithmetic holds.
        mix = base.mix
        steps = solve_points(s.left, s.sample, s.tol, (steps, mix), quantise)
    plain, other = found[0]
    plain = solve_points(s.left, s.sample, s.tol, (plain, other.mix), quantise)
    return replace(base, point_unit=steps, mix=mix), [replace(other, point_unit=plain)]


def _details_of(s: Setting) -> Array:
    waves = wavelet_options(s.draft)
    if not waves:
        return s.points()
    found = []
    for x in few_boxes([(x, x) for x in s.left], FIT_POINTS):
        c = x[0].copy()
        for grid in c:
            waves[0].forward(grid)
        c = c.reshape(len(c), -1)
        found.append(c[:, ((c / s.tol[:, None]) ** 2).sum(axis=0) > _WORTH_BITS])
    all_ = np.concatenate(found, axis=1)
    return all_[:, :: max(1, -(-all_.shape[1] // _DETAILS))]


def _mixing(s: Setting, mixed: Transform, head: str) -> GroupPlan:
    """Give the draft with the stages that close the gap and, for PCA, the basis over the variables."""
    return replace(s.draft, mix=Transform(mixed.axes[:1]) if head == "klt" else None, **s.closing)


def _named(s: Setting, way: str, head: str, plans: list[GroupPlan]) -> Family:
    return s.family([(f"{way}({head})", p) for p in plans])


def _transformed(s: Setting, kinds: tuple[str, ...]) -> Family:
    """Separable transforms over variables and tiles."""
    draft = replace(s.draft, **s.closing)
    if s.by_point:
        return _with_points(s, draft, kinds)
    plans: list[GroupPlan] = []
    for scale in (1.0, 0.8) if s.by_block else (1.0,):
        found = solve_units(s.tiles, s.tol * scale, kinds)
        plans += [replace(draft, transform=t, unit=u) for t, u in (found[:1] if plans else found)]
    if s.tall:
        plans = [p for p in plans if p.transform is not None and _reaches(p.transform, p.unit, s)]
        if not plans and not s.by_block:
            # What points one by one make of an RMSE.
            return _with_points(s, replace(draft, point_unit=s.tol * math.sqrt(12) * AIM), kinds)
    return s.family([(f"transform({','.join(kinds)})", p) for p in plans])


def _with_points(s: Setting, draft: GroupPlan, kinds: tuple[str, ...]) -> Family:
    """Transforms of coarser steps than the limits ask for, and a point stage that closes the gap."""
    t, u = solve_units(s.tiles, s.tol * _FINE_TILES, kinds)[0]
    plans = _improving(s, [replace(draft, transform=t, unit=u * k) for k in _COARSER_TILES])
    return s.family([(f"transform({','.join(kinds)})", p) for p in plans])


def _reaches(t: Transform, unit: Array, s: Setting) -> bool:
    """Tell whether the rounded columns alone leave room under each tolerance: finer steps do not mend them."""
    x = s.tiles / unit.reshape(-1, *(1,) * (s.tiles.ndim - 1))
    q = np.rint(t.forward(x) * 64).astype(np.int64)
    try:
        y, fraction = inverse_of(t, q)
    except FormatError:
        return False
    left = x - y * (2.0**-fraction / 64)
    rms: Array = np.sqrt((left * left).reshape(len(left), -1).mean(axis=1)) * unit
    return bool((rms <= 0.9 * s.tol).all())


def _block_stage(s: Setting) -> dict[str, Any]:
    """The stage that closes block limits: GAE with bins 2 tau / sqrt(P)."""
    points = s.draft.geometry.points
    unit = np.array(
        [2 * t.tolerance(points) * 0.98 if t.by_block else tl for t, tl in zip(s.targets, s.tol, strict=True)]
    )
    return {"gae_unit": unit, "gae": fit_blocks(s.left, s.draft, unit)}


def _residual(raw: Array, invalid: Array, draft: GroupPlan, model: ModelOption | None, backend: Backend) -> Array:
    """What is left of a box after base or offset, invalid points filled."""
    x = fill_invalid(physical(raw, draft), ~invalid)
    parts = Parts()
    if model is not None:
        parts = latents_of(model.encoder, model.decoder, split_blocks(x, draft.geometry), Parts())
    return x - linear_values(parts, draft, x.shape, backend)


def _base_holds(s: Setting) -> bool:
    """Tell whether the base alone meets the global tolerances on the sample."""
    v = len(s.tol)
    sse, count = np.zeros(v), np.zeros(v)
    for x, (_, bad) in zip(s.left, s.sample.boxes, strict=True):
        sse += ((x * ~bad) ** 2).reshape(v, -1).sum(1)
        count += (~bad).reshape(v, -1).sum(1)
    return bool((sse <= AIM**2 * s.tol * s.tol * count).all())


def _point_units(draft: GroupPlan, targets: list[Target], tol: Array) -> Array:
    """Steps of the point stage: twice the bound less the output's rounding; 0 where the type cannot hold it."""
    units = []
    for v, t in enumerate(targets):
        if not math.isfinite(t.point):
            units.append(tol[v] * math.sqrt(12) * AIM)
            continue
        top = max(abs(draft.low[v]), abs(draft.high[v]))
        p = draft.packing[v]
        if p is not None:
            rounding = abs(p[0]) * 0.5
        else:
            rounding = float(np.spacing(np.abs(np.asarray(top).astype(draft.dtype.newbyteorder("="))))) * 0.5
        room = min(t.point, tol[v] * math.sqrt(3)) - rounding
        units.append(max(0.0, 2 * room * (1 - 1e-6)))
    return np.array(units)


def _gain(points: Array) -> float:
    """Bits for each value that PCA over the variables saves at high rates, (V, n) values in tolerances."""
    cov = np.cov(points) + np.eye(len(points)) / 12
    return float(np.log2(np.diag(cov)).mean() - np.linalg.slogdet(cov)[1] / len(cov) / np.log(2)) / 2
