# SPDX-License-Identifier: MIT
"""Which variables are lossy, and which of them are coded together."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hbae.arrays import Field, Variable
from hbae.blocks import MAX_VALUES, Geometry, choose_preset, plan_geometry
from hbae.bound import Target, resolve_target
from hbae.config import BoundRule, ErrorBound, glob_matches, resolve_bounds
from hbae.errors import ConfigError, UnknownNameError
from hbae.io import packing
from hbae.pipeline.options import CompressOptions
from hbae.pipeline.plan import GroupPlan
from hbae.pipeline.stats import VariableStats

MAX_TOGETHER_BYTES = 48 << 20
MAX_LOSSY_RANK = 7
_LARGE = 1e140


# CF conventions, 4.1 and 4.2.
_PLACE_UNITS = {f"{d}{j}{w}" for d in ("degree", "degrees") for j, w in (("_", "north"), ("_", "east"))} | {
    f"{d}{j}{w}" for d in ("degree", "degrees") for j in ("_", "") for w in ("N", "E")
}
_PLACE_NAMES = {"latitude", "longitude", "grid_latitude", "grid_longitude", "time"} | {
    f"projection_{a}_coordinate" for a in "xyz"
}
# lat, lon, XLAT, TLONG, nav_lat, lat_rho, clat_vertices, grid_center_lat, lonCell and the like; not lat_heat_flux.
# Exodus: coord, coordx; MPAS: xCell, zVertex.
_PLACE = re.compile(
    r"(nav_|grid_|grid_center_|grid_corner_|geo|[xtuvc])?(lat|lon|long|latitude|longitude)"
    r"(_rho|_psi|_u|_v|_m|_c|_bnds|_bounds|_vertices|_corners|_edges|cell|edge|vertex)?"
    r"|coord[xyz]?|[xyz](cell|edge|vertex)",
    re.IGNORECASE,
)


@dataclass(frozen=True, kw_only=True)
class LossyVariable:
    """A variable with bounds: its statistics, its target, and the reason if it is kept without loss."""

    variable: Variable
    bounds: tuple[ErrorBound, ...]
    stats: VariableStats
    target: Target
    packing: tuple[float, float] | None
    reason: str = ""


def lossy_bounds(field: Field, rules: tuple[BoundRule, ...], globs: Iterable[str]) -> dict[str, tuple[ErrorBound, ...]]:
    """Give the bounds of the variables that may lose something, in file order.

    Without a wildcard-free name only floating-point data variables are touched: no coordinates, bounds, formula terms,
    integers.

    Raises
    ------
    UnknownNameError
        When a name or glob matches nothing.
    ConfigError
        When a named variable cannot be lossy (text, bool, complex, integers of 64 bits).
    """
    variables = list(field.variables())
    keep = _supporting(field)
    names = [v.path for v in variables]
    masks = {b.region for r in rules for b in r.bounds}
    free = (v for v in variables if v.path not in keep and not {v.path, v.name} & masks)
    soft = [v.path for v in free if _is_float(v) and v.shape]
    for g in globs:
        if not any(glob_matches(g, n) for n in names):
            raise UnknownNameError(f"vars: {g!r} matches no variable")
    chosen = resolve_bounds(rules, names, soft)
    if globs := tuple(globs):
        chosen = {n: b for n, b in chosen.items() if any(glob_matches(g, n) for g in globs)}
    for n in chosen:
        v = field.variable(n)
        if not _is_float(v) and (packing(v) is None or v.dtype.itemsize > 4):
            raise ConfigError(f"bound {n}: only floats and integers of up to 32 bits can be lossy ({v.dtype})")
        if packing(v) is not None and any(b.kind == "pw_rel" for b in chosen[n]):
            raise ConfigError(f"bound {n}: pw_rel is not defined for integers")
    return {n: chosen[n] for n in names if n in chosen}


def _is_float(v: Variable) -> bool:
    """Half, single and double precision; long doubles have no portable bits and stay lossless."""
    return v.dtype.kind == "f" and v.dtype.itemsize in (2, 4, 8)


def _supporting(field: Field) -> set[str]:
    """Paths of coordinates, bounds and formula terms, which stay lossless unless named.

    Coordinates are those of CF conventions, section 4 (dimension, ``coordinates``, ``axis``, units, standard name), and
    latitudes and longitudes that only their names tell.
    """
    out: set[str] = set()
    coords = set(field.extra.get("coords", ()))
    for v in field.variables():
        if v.dims == (v.name,) or v.name in coords or _tells_place(v):
            out.add(v.path)
        prefix = f"{v.group}/" if v.group else ""
        for key in (
            "bounds",
            "coordinates",
            "climatology",
            "formula_terms",
            "cell_measures",
            "grid_mapping",
            "ancillary_variables",
            # UGRID
            "node_coordinates",
            "edge_coordinates",
            "face_coordinates",
            "volume_coordinates",
        ):
            text = v.attr(key)
            if isinstance(text, str):
                out |= {prefix + w.strip(":") for w in text.split()}
    return out


def _tells_place(v: Variable) -> bool:
    """Tell whether a variable says where or when its points lie, by its units, standard name, axis or name."""
    return (
        str(v.attr("units")) in _PLACE_UNITS
        or str(v.attr("standard_name")) in _PLACE_NAMES
        or str(v.attr("axis")) in ("X", "Y", "Z", "T")
        or bool(_PLACE.fullmatch(v.name))
    )


def judge_variable(
    variable: Variable, bounds: tuple[ErrorBound, ...], stats: VariableStats, span: tuple[float, float] | None
) -> LossyVariable:
    """Resolve a variable's target and say whether it must be kept without loss."""
    width = span[1] - span[0] if span is not None else stats.span
    needs_span = any(b.kind in ("nrmse", "psnr", "block_nrmse", "rel_range") for b in bounds)
    target = resolve_target(bounds, width if math.isfinite(width) else 0.0)
    target = replace(target, reserved=stats.validity.excluded)
    reason = ""
    if stats.valid < 2:
        reason = "fewer than two valid values"
    elif len(variable.shape) > MAX_LOSSY_RANK:
        reason = f"more than {MAX_LOSSY_RANK} axes"
    elif not math.isfinite(stats.span):
        reason = "the range overflows float64"
    elif stats.span == 0 or (needs_span and not width > 0):
        reason = "the range is 0"
    elif _squares_overflow(target, stats):
        reason = "the squares of its errors overflow or vanish in float64"
    else:
        reason = _too_tight(variable, target, stats)
    if math.isfinite(target.pw_rel):
        stats = replace(stats, validity=replace(stats.validity, zeros=True))
    return LossyVariable(
        variable=variable, bounds=bounds, stats=stats, target=target, packing=packing(variable), reason=reason
    )


def _squares_overflow(target: Target, stats: VariableStats) -> bool:
    """Tell whether sums of squared errors could not be judged in float64; limits by point alone need none."""
    norms = [t for t in (target.rmse, target.block_rmse, target.block_l2) if math.isfinite(t)]
    if not norms and math.isfinite(target.pw_rel):
        return False
    top = max(abs(stats.low), abs(stats.high))
    return top > _LARGE or min(stats.span, *norms, target.point) < 1 / _LARGE or max(norms, default=0) > _LARGE


def _too_tight(variable: Variable, target: Target, stats: VariableStats) -> str:
    """Say so when the bound is below what the type resolves."""
    p = packing(variable)
    if p is not None:
        ulp = abs(p[0])
    else:
        native = variable.dtype.newbyteorder("=")
        top = np.asarray(max(abs(stats.low), abs(stats.high))).astype(native)
        ulp = float(np.spacing(top))
    if math.isfinite(target.pw_rel):
        from hbae.pipeline.logdomain import step_for

        return "the bound is below the type's resolution" if step_for(target.pw_rel, variable.dtype) < 2 else ""
    smallest = min(target.point, target.rmse * 2, target.block_rmse * 2, target.block_l2 * 2)
    return "the bound is below the type's resolution" if smallest < ulp else ""


def make_drafts(
    items: list[LossyVariable], options: CompressOptions, model_names: tuple[str, ...] | None
) -> list[tuple[GroupPlan, list[LossyVariable]]]:
    """Put variables of one grid, type and kind of bound together; variables of a model keep the model's order."""
    grouped: dict[Any, list[LossyVariable]] = {}
    for item in items:
        v, log = item.variable, math.isfinite(item.target.pw_rel)
        mine = model_names is not None and v.path in model_names
        pointwise = item.target.by_point and not mine
        regions = bool(item.target.regions) and not mine
        key = (v.group, v.dims, v.shape, v.dtype.str, log, pointwise, item.packing is not None, mine, regions)
        grouped.setdefault(key, []).append(item)
    out = []
    for members in grouped.values():
        if model_names is not None and any(m.variable.path in model_names for m in members):
            members.sort(key=lambda m: model_names.index(m.variable.path))
        for part in _fitting(members, options):
            out.append((_draft(part, options), part))
    return out


def _fitting(members: list[LossyVariable], options: CompressOptions) -> list[list[LossyVariable]]:
    """Split a group that is too wide for one chunk even with the smallest boxes."""
    shape = members[0].variable.shape
    preset = choose_preset(options.preset, shape, len(members))
    g = plan_geometry(
        shape, len(members), members[0].variable.dtype.itemsize, preset, block=options.block, chunk_mib=options.chunk
    )
    nbytes = int(np.prod(g.chunk, dtype=object)) * members[0].variable.dtype.itemsize
    fits = nbytes * len(members) <= max(MAX_TOGETHER_BYTES, 2 * options.chunk * (1 << 20))
    if (fits and g.padded(g.chunk) * len(members) <= MAX_VALUES) or len(members) == 1:
        return [members]
    half = -(-len(members) // 2)
    return _fitting(members[:half], options) + _fitting(members[half:], options)


def check_geometry(geometry: Geometry, num_variables: int) -> None:
    """Refuse blocks so large that a reader would refuse the chunk.

    Raises
    ------
    ConfigError
        When a chunk holds more than 2**24 values.
    """
    if geometry.padded(geometry.chunk) * num_variables > MAX_VALUES:
        raise ConfigError(f"block {geometry.block}: a chunk of whole blocks would hold more than {MAX_VALUES} values")


def _draft(members: list[LossyVariable], options: CompressOptions) -> GroupPlan:
    first = members[0].variable
    preset = choose_preset(options.preset, first.shape, len(members))
    geometry = plan_geometry(
        first.shape, len(members), first.dtype.itemsize, preset, block=options.block, chunk_mib=options.chunk
    )
    check_geometry(geometry, len(members))
    log = math.isfinite(members[0].target.pw_rel)
    limits = None
    if log and any(m.stats.low < 0 < m.stats.high for m in members):
        limits = tuple((m.stats.low, m.stats.high) for m in members)
    low = np.array([m.stats.low for m in members])
    high = np.array([m.stats.high for m in members])
    if log:
        low = np.array([m.stats.smallest if math.isfinite(m.stats.smallest) else 0.0 for m in members])
        high = np.array([max(abs(m.stats.low), abs(m.stats.high)) for m in members])
    zero = np.zeros(len(members))
    return GroupPlan(
        paths=tuple(m.variable.path for m in members),
        dtype=first.dtype,
        geometry=geometry,
        domain="log" if log else "linear",
        bounds=tuple(m.bounds for m in members),
        low=low,
        high=high,
        span=np.array([m.target.span for m in members]),
        offset=low + (high - low) / 2 if not log else zero,
        unit=zero,
        gae_unit=zero,
        point_unit=zero,
        packing=tuple(m.packing for m in members),
        limits=limits,
    )
