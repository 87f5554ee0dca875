# SPDX-License-Identifier: MIT
"""Chooses stages and steps for a group by the real bytes of sample boxes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from hbae.arrays import Array
from hbae.blocks import Geometry, fill_invalid, split_blocks, split_tiles
from hbae.bound import ROUNDING, Target, dead_zone, fit_transform
from hbae.exact import BASIS_BITS, AxisBasis, Backend, Transform
from hbae.exact.interpolate import FRACTION, level_steps
from hbae.pipeline.chunk import Parts, linear_values
from hbae.pipeline.encode import LEVEL_ROUNDING, BlockEncoder, encode_chunk, physical
from hbae.pipeline.levels import encode_levels
from hbae.pipeline.plan import GroupPlan, Levels, encode_plan

_AIM = 0.985
_WEIGHT_ROUNDS = 5
_FIRST_POINTS = 1 << 19
_TRIAL_POINTS = 3 << 20
_FINALISTS = 3
_FIT_POINTS = 1 << 21


@dataclass(frozen=True)
class Sample:
    """Boxes of a group: stored values (V, *box), invalid points, and the group's size over the sample's."""

    boxes: list[tuple[Array, Array]]
    ratio: float


@dataclass(frozen=True)
class Choice:
    """A plan, its estimated bytes for the group, whether it is the lossless one, and its name for the report."""

    plan: GroupPlan
    estimate: float
    lossless: bool
    name: str


def choose_plan(
    draft: GroupPlan, targets: list[Target], sample: Sample, methods: tuple[str, ...], *, model: BlockEncoder | None,
    model_plan: GroupPlan | None, model_bytes: int, backend: Backend,
) -> Choice:
    """Give the plan with the fewest bytes among the methods allowed; ties go to the simpler one.

    ``draft`` holds all that is fixed (names, geometry, ranges); ``model_plan`` is the draft with the model's decoder.
    """
    candidates: list[_Candidate] = []
    if "lossless" in methods:
        candidates.append(_Candidate("lossless", draft, None, 0, True))
    if draft.domain == "log":
        if "linear" in methods:
            candidates += [_Candidate(n, p, None, 0, False) for n, p in _log_plans(draft, targets)]
    else:
        if "linear" in methods:
            candidates += [_Candidate(n, p, None, 0, False) for n, p in _plans(draft, targets, sample, None, backend)]
        if "hbae" in methods and model is not None and model_plan is not None:
            found = _plans(model_plan, targets, sample, model, backend)
            candidates += [_Candidate(f"hbae+{n}", p, model, model_bytes, False) for n, p in found]
    if not candidates:
        candidates.append(_Candidate("lossless", draft, None, 0, True))
    choices: list[tuple[float, _Candidate]] = []
    for points, keep in ((_FIRST_POINTS, _FINALISTS), (_TRIAL_POINTS, 1)):
        trial = _trial_part(sample, points)
        choices = [(c.fixed + _bytes(c, targets, trial, backend) * trial.ratio, c) for c in candidates]
        choices.sort(key=lambda choice: choice[0])
        candidates = [c for _, c in choices[:keep]]
    size, best = choices[0]
    return Choice(best.plan, size, best.lossless, best.name)


@dataclass(frozen=True)
class _Candidate:
    """A plan on trial; ``extra``: bytes of the model that it needs."""

    name: str
    plan: GroupPlan
    model: BlockEncoder | None
    extra: int
    lossless: bool

    @property
    def fixed(self) -> int:
        """Bytes that do not grow with the data."""
        return self.extra + len(encode_plan(self.plan))


def _trial_part(sample: Sample, points: int) -> Sample:
    """Use no more boxes than needed to weigh plans."""
    total = sum(raw.size for raw, _ in sample.boxes)
    kept, seen = [], 0
    for raw, invalid in sample.boxes:
        if kept and seen + raw.size > points:
            break
        kept.append((raw, invalid))
        seen += raw.size
    return Sample(kept, sample.ratio * total / max(seen, 1))


def _bytes(c: _Candidate, targets: list[Target], sample: Sample, backend: Backend) -> float:
    """Real bytes of the sample's boxes."""
    return sum(
        len(encode_chunk(raw, bad, c.plan, targets, model=c.model, backend=backend, lossless=c.lossless).payload)
        for raw, bad in sample.boxes
    )


def _log_plans(draft: GroupPlan, targets: list[Target]) -> Iterator[tuple[str, GroupPlan]]:
    from hbae.pipeline.logdomain import step_for

    steps = np.array([float(step_for(t.pw_rel, draft.dtype)) for t in targets])
    if (steps < 2).any():
        return
    for axes in _difference_options(draft.geometry):
        yield "log-lorenzo" if axes else "log", replace(draft, point_unit=steps, diff_axes=axes)


def _difference_options(geometry: Geometry) -> list[tuple[int, ...]]:
    axes = tuple(i for i, n in enumerate(geometry.shape) if n > 1)
    options = [(), axes]
    if len(axes) > 1:
        options += [axes[1:], axes[:1]]
    return options


def _plans(
    draft: GroupPlan, targets: list[Target], sample: Sample, model: BlockEncoder | None, backend: Backend
) -> Iterator[tuple[str, GroupPlan]]:
    """Walk over the plans that meet the targets with the stages at hand."""
    points = draft.geometry.points
    tol = np.array([t.tolerance(points) for t in targets])
    left = [_residual(raw, invalid, draft, model, backend) for raw, invalid in sample.boxes]
    tiles = np.concatenate([split_tiles(x, draft.geometry.tile) for x in left])
    tiles = tiles[:: max(1, tiles.size // _FIT_POINTS)]
    by_point = any(t.by_point for t in targets)
    by_block = any(t.by_block for t in targets)
    options = _difference_options(draft.geometry) if model is None else [()]
    unit = _point_units(draft, targets, tol) if by_point else np.zeros(len(tol))
    for axes in options:
        name = "lorenzo" if axes else "point"
        if by_point and (unit > 0).all():
            yield name, replace(draft, point_unit=unit, diff_axes=axes)
    if by_point and (unit > 0).all():
        for levels in _level_options(draft):
            yield "interpolation", replace(draft, point_unit=unit, levels=levels)
    if not by_point:
        none = ("none",) * len(draft.geometry.shape)
        for head in ("none", "klt") if draft.num_variables > 1 else ("none",):
            mixed, steps = solve_units(tiles, tol, (head, *none), rounding=0.5)
            mix = Transform(mixed.axes[:1]) if head == "klt" else None
            for axes in options:
                yield f"lorenzo({head})", replace(draft, point_unit=steps, diff_axes=axes, mix=mix)
            if not by_block:
                first = _level_options(draft)[0]
                steps = _solve_levels(left, sample, tol, steps, mix, first)
                for levels in _level_options(draft):
                    yield f"interpolation({head})", replace(draft, point_unit=steps, mix=mix, levels=levels)
    extra: dict[str, object] = {}
    if by_point:
        if not (unit > 0).all():
            return
        extra = {"point_unit": unit}
    elif by_block:
        gae_unit = np.array([2 * t.tolerance(points) * 0.98 if t.by_block else tl for t, tl in zip(targets, tol, strict=True)])
        extra = {"gae_unit": gae_unit, "gae": _fit_blocks(left, draft, gae_unit)}
    if model is not None and (by_point or by_block or _base_holds(left, sample, tol)):
        yield "base", replace(draft, **extra)  # type: ignore[arg-type]
    scales = (0.5, 1.0) if by_point else (0.8, 1.15) if by_block else (1.0,)
    for kinds, scale in product(_kind_options(draft, sample), scales):
        transform, steps = solve_units(tiles, tol * scale, kinds)
        yield f"transform({','.join(kinds)})", replace(draft, transform=transform, unit=steps, **extra)  # type: ignore[arg-type]


def _level_options(draft: GroupPlan) -> list[Levels]:
    """Orders of axes and predictors worth trying."""
    r = len(draft.geometry.shape)
    steps = tuple(level_steps(8, 1.5))
    up, down = tuple(range(r)), tuple(reversed(range(r)))
    return [Levels(order, cubic, steps) for order in dict.fromkeys((up, down)) for cubic in (True, False)]


def _solve_levels(
    left: list[Array], sample: Sample, tol: Array, units: Array, mix: Transform | None, levels: Levels
) -> Array:
    """Find point units at which interpolation meets every variable's tolerance on part of the sample."""
    units = units.copy()
    boxes = _few(list(zip(left, (~bad for _, bad in sample.boxes), strict=True)))
    for last in (False, False, True):
        sse, count = np.zeros(len(tol)), np.zeros(len(tol))
        for x, ok in boxes:
            column = units.reshape(-1, *(1,) * (x.ndim - 1))
            y = x / column
            if mix is not None:
                y = mix.forward(y.reshape(1, len(y), -1)).reshape(-1, *x.shape[1:])
            t = encode_levels(y, levels, LEVEL_ROUNDING)[1] * 2.0**-FRACTION
            if mix is not None and mix.axes[0].matrix is not None:
                m = np.ldexp(mix.axes[0].matrix.astype(np.float64), -BASIS_BITS)
                t = (m @ t.reshape(len(t), -1)).reshape(x.shape)
            e = (x - t * column) * ok
            sse += (e * e).reshape(len(e), -1).sum(1)
            count += ok.reshape(len(e), -1).sum(1)
        ratio = np.sqrt(sse / np.maximum(count, 1)) / tol
        units *= np.minimum(1.0, _AIM / ratio) if last else np.clip(_AIM / np.maximum(ratio, 1e-9), 0.25, 4.0)
    return units


def _few(boxes: list[tuple[Array, Array]]) -> list[tuple[Array, Array]]:
    """The first boxes, up to a number of points."""
    kept, seen = [], 0
    for x, ok in boxes:
        if kept and seen + x.size > _FIT_POINTS:
            break
        kept.append((x, ok))
        seen += x.size
    return kept


def _residual(
    raw: Array, invalid: Array, draft: GroupPlan, model: BlockEncoder | None, backend: Backend
) -> Array:
    """What is left of a box after base or offset, invalid points filled."""
    x = fill_invalid(physical(raw, draft), ~invalid)
    parts = Parts()
    if model is not None:
        z, zb = model.encode(split_blocks(x, draft.geometry).astype(np.float32))
        parts = Parts(z=z, zb=zb)
    return x - linear_values(parts, draft, x.shape, backend)


def _base_holds(left: list[Array], sample: Sample, tol: Array) -> bool:
    """Tell whether the base alone meets the global tolerances on the sample."""
    sse = sum(((x * ~inv) ** 2).reshape(len(tol), -1).sum(1) for x, (_, inv) in zip(left, sample.boxes, strict=True))
    count = sum((~inv).reshape(len(tol), -1).sum(1) for _, inv in sample.boxes)
    return bool((sse <= _AIM**2 * tol * tol * count).all())


def _point_units(draft: GroupPlan, targets: list[Target], tol: Array) -> Array:
    """Steps of the point stage: twice the bound less the output's rounding; 0 where the type cannot hold it."""
    units = []
    for v, t in enumerate(targets):
        if not math.isfinite(t.point):
            units.append(tol[v] * math.sqrt(12) * _AIM)
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


def _kind_options(draft: GroupPlan, sample: Sample) -> list[tuple[str, ...]]:
    """Basis kinds to try: PCA over the variables always, PCA or DCT over the grid axes."""
    head = "klt" if draft.num_variables > 1 else "none"
    r = len(draft.geometry.shape)
    options = [(head, *("dct",) * r)]
    if sum(raw.nbytes for raw, _ in sample.boxes) * sample.ratio > 1 << 20:
        options.append((head, *("klt" if t <= 64 else "dct" for t in draft.geometry.tile)))
    if 1 < draft.num_variables < 8:
        options.append(("none", *options[-1][1:]))
    return options


def _fit_blocks(left: list[Array], draft: GroupPlan, unit: Array) -> Transform:
    """Fit the block basis on the sample's residual, separable, shared by the variables."""
    column = (-1, *(1,) * len(draft.geometry.shape))
    tiles = np.concatenate([split_tiles(x / unit.reshape(column), draft.geometry.block) for x in left])
    kinds = ("none", *("klt" if b <= 16 else "dct" for b in draft.geometry.block))
    return fit_transform(tiles, kinds)


def solve_units(
    tiles: Array, tol: Array, kinds: tuple[str, ...], *, rounding: float = ROUNDING
) -> tuple[Transform, Array]:
    """Give a transform and steps (V,) so that every variable's RMSE on the tiles is at most ``tol``, nearly equal.

    The steps start at the tolerances; a variable that comes out better than asked gets a larger step, and the reverse.
    """
    column = (1, -1, *(1,) * (tiles.ndim - 2))
    weights = tol.copy()
    transform = fit_transform(tiles / weights.reshape(column), kinds)
    if transform.axes[0].matrix is None:
        c = transform.forward(tiles / weights.reshape(column))
        return transform, weights * _scales_apart(c, tol, weights, rounding)
    scale: float | None = None
    for _ in range(_WEIGHT_ROUNDS):
        c = transform.forward(tiles / weights.reshape(column))
        scale = _scale_for(c, weights, tol, transform, rounding, around=scale)
        ratio = _ratios(c, np.array(scale), weights, tol, transform, rounding)
        weights = weights * np.clip(_AIM / np.maximum(ratio, 1e-9), 0.5, 3.0)
    c = transform.forward(tiles / weights.reshape(column))
    scale = _scale_for(c, weights, tol, transform, rounding, around=scale, worst=True)
    return transform, weights * scale


def _scales_apart(c: Array, tol: Array, weights: Array, rounding: float) -> Array:
    """Find each variable's own step by bisection, where the transform does not mix variables."""
    low, high = np.full(len(tol), 2.0**-6), np.full(len(tol), 2.0**12)
    none = Transform((AxisBasis("none", len(tol), None, np.zeros(len(tol), np.int64)),))
    for _ in range(16):
        mid = np.sqrt(low * high)
        good = _ratios(c, mid.reshape(1, -1, *(1,) * (c.ndim - 2)), weights, tol, none, rounding) <= _AIM
        low, high = np.where(good, mid, low), np.where(good, high, mid)
    return low


def _scale_for(
    c: Array, weights: Array, tol: Array, transform: Transform, rounding: float, *, around: float | None, worst: bool = False
) -> float:
    """Find the step (in units of the weights) at which the worst or the mean ratio to the tolerance is just met."""
    low, high = (2.0**-6, 2.0**12) if around is None else (around / 4, around * 4)
    for _ in range(12 if around is None else 8):
        mid = math.sqrt(low * high)
        ratio = _ratios(c, np.array(mid), weights, tol, transform, rounding)
        value = ratio.max() if worst else math.sqrt(float((ratio**2).mean()))
        low, high = (mid, high) if value <= _AIM else (low, mid)
    return low


def _ratios(c: Array, scale: Array, weights: Array, tol: Array, transform: Transform, rounding: float) -> Array:
    """RMSE of each variable over its tolerance when coefficients are quantised with that step."""
    e = dead_zone(c / scale, rounding)
    e *= -scale
    e += c
    first = transform.axes[0]
    e = np.moveaxis(e, 1, 0).reshape(e.shape[1], -1)
    if first.matrix is None:
        mse = np.einsum("ij,ij->i", e, e) / e.shape[1]
    else:
        m = np.ldexp(first.matrix.astype(np.float64), -BASIS_BITS)
        mse = np.einsum("ij,ij->i", m @ (e @ e.T), m) / e.shape[1]
    ratio: Array = np.sqrt(np.maximum(mse, 0)) * weights / tol
    return ratio


def with_block_limits(plan: GroupPlan, targets: list[Target], sample: Sample) -> tuple[GroupPlan, list[Target]]:
    """Give the plan with a block stage, and targets whose global RMSE is asked of every block (which implies it)."""
    tight = [replace(t, block_rmse=min(t.block_rmse, t.rmse)) for t in targets]
    points = plan.geometry.points
    unit = np.array([2 * t.tolerance(points) * 0.98 for t in tight])
    if plan.gae is None:
        left = [fill_invalid(physical(raw, plan), ~bad) - plan.offset.reshape(-1, *(1,) * (raw.ndim - 1)) for raw, bad in sample.boxes]
        plan = replace(plan, gae=_fit_blocks(left, plan, unit))
    return replace(plan, gae_unit=unit), tight
