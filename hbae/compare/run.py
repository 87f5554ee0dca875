# SPDX-License-Identifier: MIT
"""A whole comparison: hbae at several bounds on a file, and each rival tuned to what hbae achieved there."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from hbae.arrays import Array, Field
from hbae.compare.derived import check_fit, with_quantities
from hbae.compare.environment import machine, versions
from hbae.compare.interface import METRICS, package
from hbae.compare.load import read_variable
from hbae.compare.own import KIND, Limits, Own, OwnJob, read_slice, run_own
from hbae.compare.quantities import LATITUDES, check_names
from hbae.compare.rivals import TOGETHER, USUAL, find_all
from hbae.compare.table import Row, Wish, compare_targets
from hbae.config import parse_rule
from hbae.errors import ConfigError, FieldError
from hbae.io import open_field
from hbae.pipeline.groups import lossy_bounds
from hbae.processes import WorkerPool

Progress = Callable[[str, float], None]
MEASURES = ("psnr", "ssim", "dssim", "spectrum_ratio", "error_autocorrelation")
TERMS = (
    "Each rival is tuned, variable by variable, to the error that hbae achieved on that variable; its setting is found "
    "by bisection on the achieved error, at most 1 % below it where it can (ZFP: the largest power of two below it). "
    "PCA is one setting for all variables of a grid, weighted so that each comes near its own target.",
    "Each rival uses the algorithm, mode and order of axes that is smallest for the variable.",
    "Rivals count their payload only; hbae counts its whole file: model, tables, metadata, all other variables.",
    "Variables of range 0 are out for all. A variable that hbae kept without loss is tuned to the bound itself.",
    "Points that are missing (fill values, not finite) count for nobody; rivals see them filled smoothly.",
    "Speeds are of one core for everybody, training left out; hbae's encoding includes the choice of its plan and the "
    "check of every bound. EBCC and TTHRESH run as WebAssembly, so that their speeds say nothing.",
)


@dataclass(frozen=True, kw_only=True)
class CompareOptions:
    """What to compare.

    ``bounds``: of the metric ``nrmse`` or ``max`` (largest error over the range). ``rivals``: names, ``all`` for every
    one. ``variables``: globs; only these and their coordinates go into hbae's file. ``qoi``: names of quantities of
    interest. ``threads``: single-core jobs side by side. ``model``, ``method``, ``preset``, ``budget``, ``seed``: as
    for compress.

    Raises
    ------
    ConfigError
        When an option makes no sense.
    """

    bounds: tuple[float, ...]
    metric: str = "nrmse"
    rivals: tuple[str, ...] = USUAL
    variables: tuple[str, ...] = ()
    qoi: tuple[str, ...] = ()
    model: Path | None = None
    method: str = "auto"
    preset: str = "auto"
    budget: str | None = None
    seed: int = 0
    threads: int = 1

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise ConfigError(f"metric: unknown {self.metric!r}; known: {', '.join(METRICS)}")
        if not self.bounds or any(not (math.isfinite(b) and b > 0) for b in self.bounds):
            raise ConfigError("bounds: expected positive numbers, for example 1e-2,1e-3")
        if len(set(self.bounds)) != len(self.bounds):
            raise ConfigError("bounds: a number stands twice")
        if self.threads < 1:
            raise ConfigError("threads: must be at least 1")
        check_names(self.qoi)

    def compress_options(self) -> dict[str, Any]:
        """Give what compress is called with."""
        return {k: getattr(self, k) for k in ("model", "method", "preset", "budget", "seed")}

    def to_json(self) -> dict[str, Any]:
        """Give the configuration as JSON values."""
        doc = {k: getattr(self, k) for k in self.__dataclass_fields__}
        return doc | {"model": str(self.model) if self.model is not None else None}


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One slice of a variable: as it is, and as each coder gives it back at one bound; the last row is the top."""

    variable: str
    bound: float
    index: tuple[int, ...]
    original: Array
    decoded: dict[str, Array]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """All rows at all bounds, hbae first, with what is needed to make them again."""

    source: str
    options: CompareOptions
    rows: list[list[Row]]
    own: list[dict[str, Any]]
    notes: list[str]
    picture: Picture | None
    versions: dict[str, str] = field(default_factory=versions)
    machine: dict[str, Any] = field(default_factory=machine)

    @property
    def held(self) -> bool:
        """Tell whether hbae is within every bound, as measured here."""
        return not any(rows[0].missed for rows in self.rows)

    def to_json(self) -> dict[str, Any]:
        """Give everything but the pictures as JSON values; numbers may be infinite or NaN."""
        return {
            "source": self.source,
            "configuration": self.options.to_json(),
            "versions": self.versions,
            "machine": self.machine,
            "terms": list(TERMS),
            "notes": self.notes,
            "held": self.held,
            "results": [
                {"bound": b, "rows": [row_json(r) for r in rows], "hbae": own}
                for b, rows, own in zip(self.options.bounds, self.rows, self.own, strict=True)
            ],
        }


def row_json(r: Row) -> dict[str, Any]:
    """Give a row with its figures by variable."""
    return {
        "name": r.rival,
        "bytes": r.nbytes,
        "raw_bytes": r.raw_bytes,
        "cr": r.cr,
        "nrmse": r.mean_nrmse,
        "max_error": r.max_error,
        **{k: r.mean(k) for k in MEASURES},
        "encode_mb_s": r.encode_mb_s,
        "decode_mb_s": r.decode_mb_s,
        "missed": r.missed,
        "skipped": r.skipped,
        "variables": {
            n: {"setting": r.settings[n], "variant": r.variants[n], "bytes": r.sizes.get(n), **r.measures[n].to_json()}
            for n in r.measures
        },
        **({"quantities": [q.to_json() for q in r.quantities]} if r.quantities else {}),
    }


def compare_file(source: Path, options: CompareOptions, progress: Progress | None = None) -> Comparison:
    """Compress a file with hbae at every bound, tune every rival to what was achieved, and measure all alike.

    Raises
    ------
    MissingExtraError
        If a rival's package is not installed; before anything is compressed.
    FieldError
        When no variable can be compared.
    UnknownNameError, ConfigError
        For names and options that make no sense.
    """
    if not options.qoi:
        return _compare(source, options, progress, None)
    with tempfile.TemporaryDirectory(prefix="hbae-compare-") as folder:
        return _compare(source, options, progress, Path(folder))


def _compare(source: Path, options: CompareOptions, progress: Progress | None, keep: Path | None) -> Comparison:
    chosen = find_all(options.rivals)
    package("scipy.ndimage")
    field = open_field(source)
    rule = parse_rule(f"{KIND[options.metric]}={options.bounds[0]!r}")
    names = list(lossy_bounds(field, (rule,), options.variables))
    if not names:
        raise FieldError(f"{source}: no floating-point data variable to compare")
    check_fit(field, names, options.qoi)
    place = _choose_picture(source, field, names)
    drawn = None if place is None else (place[0], len(options.bounds) // 2, place[1])
    wish = Wish(measures=True, picture=drawn, keep=keep)
    own = []
    for i, o in enumerate(_run_own(source, options, wish)):
        own.append(o)
        if progress is not None:
            progress("hbae", (i + 1) / len(options.bounds))
    compared = list(own[0].row.errors)
    if not compared:
        raise FieldError(f"{source}: no variable has a range")
    grids = _grids(field, compared)
    dropped = () if any(len(g) > 1 for g in grids) else tuple(r for r in chosen if r in TOGETHER)
    limits = {n: _limits_of(own, n) for n in compared}
    found = compare_targets(
        {n: partial(read_variable, source, n, limits[n]) for n in compared},
        [_targets(o.row, b, options.metric) for o, b in zip(own, options.bounds, strict=True)],
        [r for r in chosen if r not in dropped],
        metric=options.metric,
        grids=grids,
        processes=options.threads,
        wish=wish,
        progress=progress,
    )
    rows = [[o.row, *(r for r in rivals if r.errors)] for o, (rivals, _) in zip(own, found, strict=True)]
    if options.qoi:
        known = {n: pair for n, pair in limits.items() if pair is not None}
        rows = with_quantities(rows, source, options.qoi, known, wish, options.threads)
    return Comparison(
        source=str(source),
        options=options,
        rows=rows,
        own=[_details(o) for o in own],
        notes=_notes(own, found, dropped, options),
        picture=None if place is None else _picture(source, place, own, found, options),
    )


def _run_own(source: Path, options: CompareOptions, wish: Wish) -> Iterator[Own]:
    """Run hbae at every bound, ``threads`` of them side by side."""
    jobs = [
        OwnJob(
            source=source,
            variables=options.variables,
            metric=options.metric,
            bound=b,
            target=i,
            wish=wish,
            options=options.compress_options(),
        )
        for i, b in enumerate(options.bounds)
    ]
    if options.threads > 1 and len(jobs) > 1:
        with WorkerPool(min(options.threads, len(jobs))) as pool:
            yield from pool.map(run_own, jobs)
    else:
        yield from map(run_own, jobs)


def _targets(row: Row, bound: float, metric: str) -> dict[str, float]:
    return {n: e.by(metric) or bound for n, e in row.errors.items()}


def _limits_of(own: Sequence[Own], name: str) -> tuple[float, float] | None:
    known: list[Limits] = [o.limits for o in own if name in o.limits]
    return known[0][name] if known else None


def _grids(field: Field, names: Sequence[str]) -> list[list[str]]:
    found: dict[Any, list[str]] = {}
    for n in names:
        v = field.variable(n)
        found.setdefault((v.dims, v.shape, v.dtype.str), []).append(n)
    return list(found.values())


def _choose_picture(source: Path, field: Field, names: Sequence[str]) -> tuple[str, tuple[int, ...]] | None:
    """Choose the largest variable that has maps, and the slice of it that varies most, of at most 16."""
    flat = [field.variable(n) for n in names if sum(k > 1 for k in field.variable(n).shape[-2:]) == 2]
    if not flat:
        return None
    v = max(flat, key=lambda v: v.nbytes)
    lead = v.shape[:-2]
    count = math.prod(lead)
    places = [np.unravel_index(int(i), lead) for i in np.unique(np.linspace(0, count - 1, min(16, count)).astype(int))]
    best = max((tuple(int(i) for i in p) for p in places), key=lambda p: _spread(read_slice(source, v.path, p)))
    return v.path, best


def _spread(x: Array) -> float:
    known = x[np.isfinite(x)]
    return float(known.std()) if known.size else -1.0


def _picture(
    source: Path,
    place: tuple[str, tuple[int, ...]],
    own: Sequence[Own],
    found: Sequence[tuple[list[Row], Mapping[str, Array]]],
    options: CompareOptions,
) -> Picture | None:
    at = len(options.bounds) // 2
    mine = own[at].slice
    if mine is None:
        return None
    rows = slice(None, None, -1) if _north_first(open_field(source), place[0]) else slice(None)
    return Picture(
        variable=place[0],
        bound=options.bounds[at],
        index=place[1],
        original=read_slice(source, *place)[rows],
        decoded={n: x[rows] for n, x in {"hbae": mine, **found[at][1]}.items()},
    )


def _north_first(field: Field, path: str) -> bool:
    """Tell whether the rows of a variable's maps go from north to south."""
    v = field.variable(path)
    dim = v.dims[-2]
    found = next((o for o in field.variables() if o.path in (f"{v.group}/{dim}", dim) and o.dims == (dim,)), None)
    if dim.lower() not in LATITUDES or found is None:
        return False
    ends = [float(found.source.read((slice(i, i + 1),))[0]) for i in (0, found.shape[0] - 1)]
    return ends[0] > ends[1]


def _details(o: Own) -> dict[str, Any]:
    r = o.report
    return {"seconds": r.seconds, "bytes_by_part": r.sizes, "model_bytes": r.model_size, "notes": list(r.notes)}


def _notes(
    own: Sequence[Own],
    found: Sequence[tuple[list[Row], Mapping[str, Array]]],
    dropped: Sequence[str],
    options: CompareOptions,
) -> list[str]:
    notes = [f"{r}: left out, no two variables lie on one grid" for r in dropped]
    for o, (rows, _), b in zip(own, found, options.bounds, strict=True):
        notes += [f"{b:g}: {note}" for note in o.report.notes]
        exact = [n for n, e in o.row.errors.items() if e.by(options.metric) == 0]
        if exact:
            notes.append(f"{b:g}: hbae is exact on {_some(exact)}; rivals may use the whole bound there")
        out = {n: why for n, why in o.row.skipped.items() if n not in o.row.errors}
        notes += [f"{b:g}: {n} is out for all: {why}" for n, why in out.items()]
        for r in rows:
            if r.missed:
                notes.append(f"{b:g}: {r.rival} does not come down to its target on {_some(r.missed)}")
            if r.skipped:
                why = next(iter(r.skipped.values()))
                notes.append(f"{b:g}: {r.rival} is without {_some(list(r.skipped))}: {why}")
    return notes


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
