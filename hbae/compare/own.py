# SPDX-License-Identifier: MIT
"""hbae itself in a comparison: compressed at a bound, read back, and measured like every rival."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from hbae.arrays import Array, Field
from hbae.compare.load import invalid, read_variable, whole
from hbae.compare.metrics import Errors, Measures, measure, measure_all
from hbae.compare.table import Row, Wish
from hbae.config import glob_matches
from hbae.errors import UnknownNameError
from hbae.io import open_field
from hbae.pipeline.archive import Archive
from hbae.pipeline.compress import compress_field
from hbae.pipeline.options import CompressOptions
from hbae.pipeline.report import Report

KIND = {"nrmse": "nrmse", "max": "rel_range"}
Limits = dict[str, tuple[float, float]]


@dataclass(frozen=True, kw_only=True)
class OwnJob:
    """One compression of a file, or of the variables that globs name, by one worker."""

    source: Path
    variables: tuple[str, ...]
    metric: str
    bound: float
    target: int
    wish: Wish
    options: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Own:
    """What hbae made: its row, the report of the writer, the ranges of values that count, the slice asked for."""

    row: Row
    report: Report
    limits: Limits
    slice: Array | None = None


def run_own(job: OwnJob) -> Own:
    """Compress, decode every chunk and measure each variable that has a range.

    Raises
    ------
    hbae.errors.HbaeError
        As :func:`hbae.compress`.
    """
    with tempfile.TemporaryDirectory(prefix="hbae-compare-") as name, threadpool_limits(1):
        folder = Path(name)
        options = CompressOptions(**job.options, threads=1, overwrite=True)
        field = open_field(job.source)
        field = subset(field, job.variables) if job.variables else field
        begin = time.perf_counter()
        report = compress_field(field, folder / "a.hbae", f"{KIND[job.metric]}={job.bound!r}", options)
        encode = time.perf_counter() - begin - report.seconds.get("train", 0.0)
        wanted = [v.path for v in report.variables if v.span > 0 and math.isfinite(v.span)]
        with Archive(folder / "a.hbae") as archive:
            decoded, decode = _decode(archive, wanted, folder)
            limits = _limits(archive)
        errors, measures, drawn = _measure(job, wanted, decoded, limits)
        for n in wanted:
            job.wish.store(job.target, "hbae", n, decoded[n])
        del decoded
    raw = sum(field.variable(n).nbytes for n in wanted)
    row = Row(
        rival="hbae",
        nbytes=report.size,
        raw_bytes=raw,
        cr=raw / report.size,
        mean_nrmse=math.fsum(e.nrmse for e in errors.values()) / len(errors) if errors else math.nan,
        max_error=max((e.max_over_span for e in errors.values()), default=math.nan),
        encode_mb_s=raw / 1e6 / encode,
        decode_mb_s=raw / 1e6 / decode if decode else math.nan,
        settings=dict.fromkeys(wanted, job.bound),
        missed=[n for n, e in errors.items() if e.by(job.metric) > job.bound],
        skipped={v.path: v.note or "range 0" for v in report.variables if v.path not in errors},
        variants={v.path: v.method for v in report.variables if v.path in errors},
        errors=errors,
        measures=measures,
    )
    return Own(row=row, report=replace(report, path=str(job.source)), limits=limits, slice=drawn)


def subset(field: Field, globs: Sequence[str]) -> Field:
    """Give the variables that globs name with the coordinates of their dimensions, and nothing else.

    Raises
    ------
    UnknownNameError
        When a glob matches nothing.
    """
    paths = [v.path for v in field.variables()]
    for g in globs:
        if not any(glob_matches(g, p) for p in paths):
            raise UnknownNameError(f"vars: {g!r} matches no variable")
    chosen = {p for p in paths if any(glob_matches(g, p) for g in globs)}
    dims = {d for v in field.variables() if v.path in chosen for d in v.dims}
    groups = tuple(
        replace(
            g,
            variables=tuple(v for v in g.variables if v.path in chosen or (v.dims == (v.name,) and v.name in dims)),
        )
        for g in field.groups
    )
    return replace(field, groups=groups)


def _decode(archive: Archive, wanted: list[str], folder: Path) -> tuple[dict[str, Array], float]:
    """Decode all chunks into files on disk; gives the variables and the seconds of decoding alone."""
    out: dict[str, Array] = {}
    spent = 0.0
    for part in archive.parts:
        for p in part.paths:
            v = archive.field.variable(p)
            if p in wanted:
                file = folder / f"{len(out)}.npy"
                out[p] = np.lib.format.open_memmap(file, "w+", dtype=v.dtype, shape=v.shape)
        for i, box in enumerate(part.boxes):
            begin = time.perf_counter()
            arrays = archive.chunk(part, i, keep=False)
            spent += time.perf_counter() - begin
            for p, a in zip(part.paths, arrays, strict=True):
                if p in out:
                    out[p][box] = a
    begin = time.perf_counter()
    small = {p: archive.small(p) for p in wanted if p not in out}
    return out | small, spent + time.perf_counter() - begin


def _limits(archive: Archive) -> Limits:
    """Lowest and highest value that counts, of every lossy variable: what lies outside is a fill value."""
    plans = [archive.plan(part.group) for part in archive.parts if part.group is not None]
    return {
        p: (float(low), float(high))
        for plan in plans
        for p, low, high in zip(plan.paths, plan.low, plan.high, strict=True)
    }


def _measure(
    job: OwnJob, wanted: list[str], decoded: dict[str, Array], limits: Limits
) -> tuple[dict[str, Errors], dict[str, Measures], Array | None]:
    errors: dict[str, Errors] = {}
    measures: dict[str, Measures] = {}
    drawn = None
    for name in wanted:
        x = read_variable(job.source, name, limits.get(name))
        valid = np.isfinite(np.ma.getdata(x)) & ~np.ma.getmaskarray(x)
        original = np.asarray(np.ma.getdata(x))
        errors[name] = measure(original, decoded[name], valid)
        if job.wish.measures:
            measures[name] = measure_all(original, decoded[name], valid)
        if job.wish.picture is not None and job.wish.picture[:2] == (name, job.target):
            drawn = np.array(decoded[name][job.wish.picture[2]])
    return errors, measures, drawn


def read_slice(source: Path, name: str, lead: tuple[int, ...]) -> Array:
    """Give a slice of a variable as float64, NaN where points are missing."""
    variable = open_field(source).variable(name)
    box = (*(slice(i, i + 1) for i in lead), *whole(variable.shape[len(lead) :]))
    x = np.asarray(variable.source.read(box))[(0,) * len(lead)]
    return np.where(invalid(x, variable, None), np.nan, x.astype(np.float64))
