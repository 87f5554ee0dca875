# SPDX-License-Identifier: MIT
"""Quantities of interest before and after: moments, mass fractions, area means, gradients (docs/quantities.md)."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hbae.arrays import Array, Box, Field, Variable
from hbae.compare.tally import Pairs, QuantityRow, Tally, relative
from hbae.errors import ConfigError
from hbae.io import open_field
from hbae.pipeline.archive import Archive

# Enthalpies of formation at 298 K (kJ/mol) and molar masses (g/mol); elements in their standard state count 0.
ENTHALPY = {
    "H": (218.0, 1.008), "O": (249.2, 15.999), "OH": (37.3, 17.007), "H2O": (-241.8, 18.015), "HO2": (12.3, 33.006),
    "H2O2": (-135.9, 34.014), "CO": (-110.5, 28.010), "CO2": (-393.5, 44.009), "CH3": (146.5, 15.035),
    "CH4": (-74.6, 16.043), "CH2O": (-109.2, 30.026), "C2H2": (228.2, 26.038), "C2H4": (52.4, 28.054),
    "C2H6": (-84.0, 30.070), "C3H8": (-104.7, 44.097), "NO": (91.1, 30.006), "NO2": (34.2, 46.005),
    "N2O": (82.1, 44.013), "NH3": (-45.9, 17.031), "HCN": (129.3, 27.025),
}  # fmt: skip
LATITUDES = ("lat", "latitude", "nav_lat")
_LON = ("lon", "longitude", "nav_lon")


def quantities(
    path: str | os.PathLike[str], against: Any, names: Sequence[str], *, model: Path | None = None
) -> list[QuantityRow]:
    """Give the quantities of those names before and after, computed box by box.

    Parameters
    ----------
    path : path
        The archive.
    against : path, Field or xarray.Dataset
        What was compressed.
    names : sequence of str
        ``moments``, ``mass_fractions``, ``area_mean``, ``gradient``.

    Raises
    ------
    ConfigError
        For an unknown name, or when the file has nothing that a quantity is defined for.
    FormatError
        When the archive is damaged.
    """
    check_names(names)
    original = against if isinstance(against, Field) else open_field(against)
    with Archive(path, model=model) as archive:
        return quantities_of(Pairs.of_archive(archive, original), names)


def quantities_of(pairs: Pairs, names: Sequence[str]) -> list[QuantityRow]:
    """Give the quantities of those names for any pairs of values before and after.

    Raises
    ------
    ConfigError
        When there is nothing that a quantity is defined for, unless variables are lost.
    """
    rows: list[QuantityRow] = []
    with np.errstate(all="ignore"):
        for name in names:
            found = QUANTITIES[name](pairs)
            if not found and not pairs.lost:
                raise ConfigError(f"qoi {name}: no lossy variable has what it needs (docs/quantities.md)")
            rows += found
    return rows


def check_names(names: Sequence[str]) -> None:
    """Refuse names that are no quantities.

    Raises
    ------
    ConfigError
        When one is unknown.
    """
    for name in names:
        if name not in QUANTITIES:
            raise ConfigError(f"qoi: unknown {name!r}; known: {', '.join(QUANTITIES)}")


def _moments(pairs: Pairs) -> list[QuantityRow]:
    """Density, flow and temperature of every f over a perpendicular and a parallel velocity."""
    rows: list[QuantityRow] = []
    for v in pairs.chosen():
        perp = [a for a, d in enumerate(v.dims) if "perp" in d.lower()]
        par = [a for a, d in enumerate(v.dims) if "par" in d.lower()]
        if len(perp) != 1 or len(par) != 1:
            continue
        axes = perp[0], par[0]
        speeds = [_coordinate(pairs, v, a) for a in axes]
        tallies = [Tally(f"{k} of {v.path}") for k in ("density", "flow", "temperature")]
        for box in pairs.boxes(v, whole=axes):
            both = [_moments_of(np.moveaxis(f, axes, (-2, -1)), *speeds) for f in pairs.read(v, box)]
            for tally, x, y in zip(tallies, *both, strict=True):
                tally.add(x, y)
        rows += [t.row() for t in tallies]
    return rows


def _moments_of(f: Array, perp: Array, par: Array) -> tuple[Array, Array, Array]:
    """Give n, u and T (v squared, mass 1) of f (..., perp, par) by the trapezoidal rule with 2 pi v_perp."""
    cells = np.outer(2 * math.pi * perp * _widths(perp), _widths(par))
    n = np.einsum("...ij,ij->...", f, cells)
    u = np.einsum("...ij,ij->...", f, cells * par) / n
    square = np.einsum("...ij,ij->...", f, cells * (perp[:, None] ** 2 + par**2))
    return n, u, (square / n - u * u) / 3


def _widths(x: Array) -> Array:
    """Weights of the trapezoidal rule."""
    w = np.zeros(len(x))
    half = np.diff(x) / 2
    w[:-1] += half
    w[1:] += half
    return w


def _coordinate(pairs: Pairs, v: Variable, axis: int) -> Array:
    """Values of a dimension's coordinate; without one, 0, 1, ... (a parallel velocity: around 0)."""
    found = pairs.sibling(v, v.dims[axis])
    n = v.shape[axis]
    if found is not None and found.shape == (n,):
        return pairs.small(found)
    index = np.arange(n, dtype=np.float64)
    return index - (n - 1) / 2 if "par" in v.dims[axis].lower() else index


def _mass_fractions(pairs: Pairs) -> list[QuantityRow]:
    """Sum of all Y_*, chemical enthalpy, and the product of CH2O and OH, for every group and grid."""
    grids: dict[tuple[Any, ...], list[Variable]] = {}
    every = [v for v in pairs.original.variables() if v.name.startswith("Y_") and v.dtype.kind == "f"]
    for v in every:
        grids.setdefault((v.group, v.dims, v.shape), []).append(v)
    rows: list[QuantityRow] = []
    for members in grids.values():
        paths = {v.path for v in members}
        if not pairs.paths & paths or pairs.lost & paths:
            continue
        first = next(v for v in members if v.path in pairs.paths)
        where = f" in {first.group}" if first.group else ""
        tallies = {
            k: Tally(f"{k}{where}") for k in ("sum of Y", "chemical enthalpy (J/kg)", "heat release (Y_CH2O Y_OH)")
        }
        for box in pairs.boxes(first):
            for k, (x, y) in _mixture(pairs, members, box).items():
                tallies[k].add(x, y)
        rows += [t.row() for t in tallies.values() if t.count]
    return rows


def _mixture(pairs: Pairs, members: list[Variable], box: Box) -> dict[str, tuple[Array, Array]]:
    total, heat, marker = (np.zeros(1),) * 2, (np.zeros(1),) * 2, (np.ones(1),) * 2
    seen: set[str] = set()
    for v in members:
        name, both = v.name[2:].upper(), pairs.read(v, box)
        seen.add(name)
        total = (total[0] + both[0], total[1] + both[1])
        if name in ENTHALPY:
            # kJ/mol over g/mol is MJ/kg.
            h = 1e6 * ENTHALPY[name][0] / ENTHALPY[name][1]
            heat = (heat[0] + h * both[0], heat[1] + h * both[1])
        if name in ("CH2O", "OH"):
            marker = (marker[0] * both[0], marker[1] * both[1])
    out = {"sum of Y": total}
    if seen & set(ENTHALPY):
        out["chemical enthalpy (J/kg)"] = heat
    if {"CH2O", "OH"} <= seen:
        out["heat release (Y_CH2O Y_OH)"] = marker
    return out


def _area_mean(pairs: Pairs) -> list[QuantityRow]:
    """Mean over the area of every variable that lies on a sphere or a mesh with areas."""
    rows: list[QuantityRow] = []
    for v in pairs.chosen():
        found = _area(pairs, v)
        if found is None:
            continue
        axes, weights = found
        rest = tuple(n for a, n in enumerate(v.shape) if a not in axes)
        sums = [np.zeros(rest) for _ in range(3)]
        for box in pairs.boxes(v):
            x, y = pairs.read(v, box)
            shape = [s.stop - s.start if a in axes else 1 for a, s in enumerate(box)]
            w = np.broadcast_to(weights[tuple(box[a] for a in axes)].reshape(shape), x.shape)
            ok = np.isfinite(x)
            place = tuple(s for a, s in enumerate(box) if a not in axes)
            for total, part in zip(sums, (w * x, w * y, w), strict=True):
                total[place] += np.where(ok, part, 0.0).sum(axis=axes)
        tally = Tally(f"area mean of {v.path}")
        tally.add(sums[0] / sums[2], sums[1] / sums[2])
        rows.append(tally.row())
    return rows


def _area(pairs: Pairs, v: Variable) -> tuple[tuple[int, ...], Array] | None:
    """Give the axes of the area and its weights: a variable ``area``, else cos(latitude) over latitude, longitude."""
    area = pairs.sibling(v, "area")
    if area is not None and area.dims and set(area.dims) <= set(v.dims):
        axes = tuple(v.dims.index(d) for d in area.dims)
        if axes == tuple(sorted(axes)) and area.shape == tuple(v.shape[a] for a in axes):
            return axes, np.nan_to_num(pairs.small(area))
    lat = next((a for a, d in enumerate(v.dims) if d.lower() in LATITUDES), None)
    if lat is None:
        return None
    degrees = pairs.sibling(v, v.dims[lat])
    if degrees is None or degrees.shape != (v.shape[lat],):
        return None
    w = np.cos(np.deg2rad(pairs.small(degrees)))
    lon = next((a for a, d in enumerate(v.dims) if d.lower() in _LON), None)
    if lon is None:
        return (lat,), w
    grid = np.multiply.outer(w, np.ones(v.shape[lon]))
    return ((lat, lon), grid) if lat < lon else ((lon, lat), grid.T)


def _gradient(pairs: Pairs) -> list[QuantityRow]:
    """RMS of the differences of neighbours along all axes, and of their errors, for every variable."""
    return [_gradient_of(pairs, v) for v in pairs.chosen() if any(n > 1 for n in v.shape)]


def _gradient_of(pairs: Pairs, v: Variable) -> QuantityRow:
    sums, count, worst = np.zeros(3), 0, 0.0
    for box in pairs.boxes(v):
        # One more layer in front of every axis: each pair of neighbours is met once, in the box of the later one.
        wide = tuple(slice(max(0, s.start - 1), s.stop) for s in box)
        x, y = pairs.read(v, wide)
        for axis in range(len(box)):
            own = tuple(
                slice(None) if a == axis else slice(s.start - w.start, None)
                for a, (s, w) in enumerate(zip(box, wide, strict=True))
            )
            before, after = np.diff(x[own], axis=axis), np.diff(y[own], axis=axis)
            ok = np.isfinite(before)
            e = np.where(np.isfinite(after), after - before, math.inf)[ok]
            sums += [float((a * a).sum()) for a in (before[ok], after[ok], e)]
            count += e.size
            worst = max(worst, float(np.abs(e).max(initial=0.0)))
    before, after, rmse = np.sqrt(sums / count) if count else np.full(3, math.nan)
    return QuantityRow(
        name=f"gradient of {v.path}",
        before=float(before),
        after=float(after),
        rmse=float(rmse),
        relative=relative(float(rmse), float(before)),
        max_error=worst,
        count=count,
    )


QUANTITIES: dict[str, Callable[[Pairs], list[QuantityRow]]] = {
    "moments": _moments,
    "mass_fractions": _mass_fractions,
    "area_mean": _area_mean,
    "gradient": _gradient,
}
