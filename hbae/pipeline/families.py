# SPDX-License-Identifier: MIT
"""The plans worth weighing for a group: families of stages with their variants, each family a task of its own."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from operator import itemgetter

import numpy as np

from hbae.arrays import Array
from hbae.bound import Target, precise, rotated
from hbae.errors import FormatError
from hbae.exact import AxisBasis, Transform
from hbae.exact.backend import NumpyBackend
from hbae.pipeline.encode import trial_chunk
from hbae.pipeline.levels import quantise_levels
from hbae.pipeline.logdomain import step_for
from hbae.pipeline.parts import inverse_of
from hbae.pipeline.plan import GroupPlan
from hbae.pipeline.rounding import worth_of
from hbae.pipeline.sampling import few_boxes
from hbae.pipeline.setting import Candidate, Family, Setting
from hbae.pipeline.steps import AIM, Quantiser, balance_points, solve_points, solve_units
from hbae.pipeline.variants import difference_axes, grid_kinds, kind_options, level_options, relations, wavelet_options
from hbae.pipeline.waves import quantise_waves

# Steps of wavelets whose points are corrected, in those that would leave few to correct; noise wants the coarse ones.
_COARSER = (1.0, 1.5, 2.5, 6.0, 15.0, 60.0)
# The same for transforms, in steps that leave an RMSE of so many tolerances.
_FINE_TILES = 0.5
_COARSER_TILES = (1.0, 2.5, 6.0, 15.0, 40.0)
# Coarser steps are tried on so many points, of so many boxes, until they take so many times the bytes of the best ones.
_FEW_POINTS, _FEW_BOXES, _GROWING = 1 << 18, 4, 1.01


# What names a family within a setting.
Task = tuple[str, ...]


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
        details = s.details() / steps[:, None]
        mix = precise(rotated(best.mix, details), details)
        best = min((best, replace(best, mix=mix)), key=partial(_bytes_on_part, s))
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


def _base_holds(s: Setting) -> bool:
    """Tell whether the base alone meets the global tolerances on the sample."""
    v = len(s.tol)
    sse, count = np.zeros(v), np.zeros(v)
    for x, (_, bad) in zip(s.left, s.sample.boxes, strict=True):
        sse += ((x * ~bad) ** 2).reshape(v, -1).sum(1)
        count += (~bad).reshape(v, -1).sum(1)
    return bool((sse <= AIM**2 * s.tol * s.tol * count).all())
