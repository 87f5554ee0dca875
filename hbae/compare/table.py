# SPDX-License-Identifier: MIT
"""Puts rivals side by side over many variables: one row per rival, all at the error that was reached elsewhere."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import quote

import numpy as np
from threadpoolctl import threadpool_limits

from hbae.arrays import Array
from hbae.compare.metrics import Errors, Measures, measure_all
from hbae.compare.rivals import RIVALS, TOGETHER, find, find_all, is_lossless
from hbae.compare.tally import QuantityRow
from hbae.compare.tune import Tuned, prepare, tune_prepared
from hbae.errors import ConfigError, FieldError, UnknownNameError
from hbae.processes import WorkerPool

Source = Callable[[], Array] | Array
Progress = Callable[[str, float], None]
Found = dict[tuple[int, str], "Result | str"]  # by target and rival


@dataclass(frozen=True, kw_only=True)
class Row:
    """One coder over all variables: total bytes, ratio, mean NRMSE, largest error over range, MB/s (10^6 bytes).

    Attributes
    ----------
    nbytes : int
        Sum of the payloads; no container or metadata counted.
    encode_mb_s, decode_mb_s : float
        Of one process, on the whole arrays at the final settings.
    settings : dict
        Final setting over range, by variable: fit for ``starts`` at the next target once scaled by the targets' ratio.
        Of variables that were taken together, the common setting in units of their targets.
    missed : list of str
        Variables whose result is above the target (it counts all the same).
    skipped : dict
        Variables that do not count in this row, and why; all else is over the others.
    variants : dict
        The way that was smallest, by variable.
    sizes : dict
        Bytes by variable, of those that were taken alone.
    errors, measures : dict
        Errors, and all other measures where they were asked for, by variable.
    quantities : list
        Quantities of interest, where they were asked for.
    """

    rival: str
    nbytes: int
    raw_bytes: int
    cr: float
    mean_nrmse: float
    max_error: float
    encode_mb_s: float
    decode_mb_s: float
    settings: dict[str, float]
    missed: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    variants: dict[str, str] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    errors: dict[str, Errors] = field(default_factory=dict)
    measures: dict[str, Measures] = field(default_factory=dict)
    quantities: list[QuantityRow] = field(default_factory=list)

    def mean(self, name: str) -> float:
        """Give the mean of a measure over the variables that have it; infinite or NaN where none is finite."""
        values = [getattr(m, name) for m in self.measures.values()]
        known = [v for v in values if math.isfinite(v)]
        return sum(known) / len(known) if known else next((v for v in values if v == v), math.nan)


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What to compute beside sizes and errors: all measures; one slice of a variable at one target, as decoded.

    ``starts``: where to begin, settings over the range by rival and variable. ``keep``: a folder that takes all decoded
    values of coders with loss, at :meth:`place`.
    """

    measures: bool = False
    picture: tuple[str, int, tuple[int, ...]] | None = None  # variable, target, index of the leading axes
    starts: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    keep: Path | None = None

    def store(self, target: int, coder: str, name: str, values: Array) -> None:
        """Keep decoded values, if that was asked for."""
        if self.keep is not None:
            np.save(self.place(target, coder, name), values)

    def place(self, target: int, coder: str, name: str) -> Path:
        """Give the file that takes a variable's decoded values.

        Raises
        ------
        ConfigError
            When nothing is kept.
        """
        if self.keep is None:
            raise ConfigError("no folder was given for decoded values")
        return self.keep / f"{target}-{coder}-{quote(name, safe='')}.npy"


@dataclass(frozen=True, kw_only=True)
class Result:
    """A tuned rival on named variables, with their measures and, where it was asked for, the decoded slice."""

    names: tuple[str, ...]
    tuned: Tuned
    measures: tuple[Measures, ...] = ()
    slice: Array | None = None


@dataclass(frozen=True, kw_only=True)
class _Job:
    """Variables, one array each, with their targets (several sets) and the rivals to run on them, one after another."""

    names: tuple[str, ...]
    sources: tuple[Source, ...]
    targets: tuple[tuple[float, ...], ...]
    rivals: tuple[str, ...]
    metric: str
    starts: tuple[float | None, ...]
    wish: Wish


def compare_variables(
    arrays: Mapping[str, Source],
    targets: Mapping[str, float],
    rivals: Sequence[str] = ("sz3", "sperr", "zfp"),
    *,
    processes: int = 2,
    starts: Mapping[str, Mapping[str, float]] | None = None,
) -> list[Row]:
    """Tune every rival on every variable to that variable's target NRMSE and add the bytes up; one row per rival.

    Parameters
    ----------
    arrays : mapping of name to array or callable
        A callable is called in a worker process to load one variable: it must be picklable where ``processes`` > 1
        (``functools.partial(read_variable, path, name)`` is). Masked and non-finite points do not count.
    targets : mapping of name to float
        NRMSE to reach, by variable.
    rivals : sequence of str
        Names in :data:`~hbae.compare.rivals.RIVALS`, in any case.
    starts : mapping of rival to mapping of name to setting over range, optional
        Where to begin: ``Row.settings`` of a neighbouring target, scaled by the ratio of targets.

    Raises
    ------
    UnknownNameError
        For a rival that is not known or a variable without a target.
    ConfigError
        For a target that is not positive.
    MissingExtraError
        If a rival's package is not installed.
    """
    return compare_targets(arrays, [targets], rivals, processes=processes, wish=Wish(starts=starts or {}))[0][0]


def compare_targets(
    arrays: Mapping[str, Source],
    targets: Sequence[Mapping[str, float]],
    rivals: Sequence[str],
    *,
    metric: str = "nrmse",
    grids: Sequence[Sequence[str]] = (),
    processes: int = 2,
    wish: Wish | None = None,
    progress: Progress | None = None,
) -> list[tuple[list[Row], dict[str, Array]]]:
    """Do what :func:`compare_variables` does for several sets of targets, each variable being loaded once for all.

    Parameters
    ----------
    metric : str
        What the targets are: ``nrmse``, or ``max`` for the largest error over the range.
    grids : sequence of sequences of names
        Variables of one grid and type, which the rivals with PCA take together (by default: each alone).
    wish : Wish, optional
        Measures and pictures to make.

    Returns
    -------
    list of (rows, slices)
        One per set of targets; slices by rival, where the picture was asked for at that set.

    Raises
    ------
    UnknownNameError, ConfigError, MissingExtraError
        As :func:`compare_variables`.
    """
    chosen = find_all(rivals)
    for wanted in targets:
        for name in arrays:
            if name not in wanted:
                raise UnknownNameError(f"variable {name!r} has no target")
            if not wanted[name] > 0:
                raise ConfigError(f"variable {name!r}: the target must be positive")
    jobs = list(_jobs(arrays, targets, chosen, metric, grids, wish or Wish()))
    results = []
    for i, found in enumerate(_run_all(jobs, processes)):
        results.append(found)
        if progress is not None:
            progress("rivals", (i + 1) / len(jobs))
    return [_collect(t, arrays, chosen, jobs, results) for t in range(len(targets))]


def _jobs(
    arrays: Mapping[str, Source],
    targets: Sequence[Mapping[str, float]],
    rivals: tuple[str, ...],
    metric: str,
    grids: Sequence[Sequence[str]],
    wish: Wish,
) -> Iterator[_Job]:
    """Cut the work: a grid and a rival with PCA, the largest first; then a variable and all other rivals."""
    starts = {find(r): s for r, s in wish.starts.items()}

    def job(names: Sequence[str], chosen: tuple[str, ...]) -> _Job:
        return _Job(
            names=tuple(names),
            sources=tuple(arrays[n] for n in names),
            targets=tuple(tuple(t[n] for n in names) for t in targets),
            rivals=chosen,
            metric=metric,
            starts=tuple(starts.get(r, {}).get(names[0]) for r in chosen),
            wish=wish,
        )

    gridded = {n for g in grids for n in g}
    together = [list(g) for g in grids] + [[n] for n in arrays if n not in gridded]
    for grid in sorted(together, key=len, reverse=True):
        yield from (job(grid, (r,)) for r in rivals if r in TOGETHER)
    alone = tuple(r for r in rivals if r in RIVALS)
    if alone:
        yield from (job([n], alone) for n in arrays)


def _run_all(jobs: Sequence[_Job], processes: int) -> Iterator[Found]:
    if processes > 1 and len(jobs) > 1:
        with WorkerPool(min(processes, len(jobs))) as pool:
            yield from pool.map(_run, jobs)
    else:
        yield from map(_run, jobs)


def _run(job: _Job) -> Found:
    """Tune the rivals of a job at all its targets; a reason in place of a result where one does not apply."""
    found: Found = {}
    with threadpool_limits(1):
        try:
            pairs = [prepare(s() if callable(s) else s) for s in job.sources]
        except FieldError as e:
            return {(t, r): str(e) for t in range(len(job.targets)) for r in job.rivals}
        for name, start in zip(job.rivals, job.starts, strict=True):
            last: tuple[float, float] | None = None
            for t, targets in enumerate(job.targets):
                if last is not None:
                    start = last[0] * targets[0] / last[1]
                try:
                    tuned = _tuned(name, pairs, targets, job.metric, start)
                except FieldError as e:
                    found[t, name] = str(e)
                    continue
                last = (tuned.setting / (tuned.errors[0].span or 1.0), targets[0])
                found[t, name] = _result(job, t, pairs, tuned)
                if not is_lossless(name):
                    for variable, values in zip(job.names, tuned.decoded, strict=True):
                        job.wish.store(t, name, variable, values)
    return found


def _tuned(
    name: str, pairs: list[tuple[Array, Array]], targets: tuple[float, ...], metric: str, start: float | None
) -> Tuned:
    if name in RIVALS:
        return tune_prepared(RIVALS[name](), *pairs[0], targets[0], metric=metric, start=start)
    klt = TOGETHER[name]()
    if len(pairs) == 1:
        return tune_prepared(klt.inner, *pairs[0], targets[0], metric=metric, start=start)
    return klt.tune([a for a, _ in pairs], [m for _, m in pairs], targets, metric)


def _result(job: _Job, target: int, pairs: list[tuple[Array, Array]], tuned: Tuned) -> Result:
    rows = list(zip(pairs, tuned.decoded, strict=True))
    measures = tuple(measure_all(a, y, m) for (a, m), y in rows) if job.wish.measures else ()
    picture = None
    if job.wish.picture is not None:
        name, at, lead = job.wish.picture
        if at == target and name in job.names:
            picture = np.array(tuned.decoded[job.names.index(name)][lead])
    return Result(names=job.names, tuned=replace(tuned, decoded=()), measures=measures, slice=picture)


def _collect(
    target: int, arrays: Mapping[str, Source], rivals: tuple[str, ...], jobs: list[_Job], results: list[Found]
) -> tuple[list[Row], dict[str, Array]]:
    rows: list[Row] = []
    slices: dict[str, Array] = {}
    for r in rivals:
        found: dict[str, Result | str] = {}
        for job, result in zip(jobs, results, strict=True):
            if (target, r) in result:
                found |= dict.fromkeys(job.names, result[target, r])
        found = {n: found[n] for n in arrays}
        rows.append(_row(r, found))
        drawn = [f.slice for f in found.values() if isinstance(f, Result) and f.slice is not None]
        if drawn:
            slices[r] = drawn[0]
    return rows, slices


def _row(rival: str, found: Mapping[str, Result | str]) -> Row:
    results = list({id(f): f for f in found.values() if isinstance(f, Result)}.values())
    size, raw = sum(f.tuned.nbytes for f in results), sum(f.tuned.raw_bytes for f in results)
    encode, decode = (sum(f.tuned.encode_seconds for f in results), sum(f.tuned.decode_seconds for f in results))
    own = {n: (f, f.names.index(n)) for n, f in found.items() if isinstance(f, Result)}
    errors = {n: f.tuned.errors[i] for n, (f, i) in own.items()}
    return Row(
        rival=rival,
        nbytes=size,
        raw_bytes=raw,
        cr=raw / size if size else math.nan,
        mean_nrmse=math.fsum(e.nrmse for e in errors.values()) / len(errors) if errors else math.nan,
        max_error=max((e.max_over_span for e in errors.values()), default=math.nan),
        encode_mb_s=raw / 1e6 / encode if encode else math.nan,
        decode_mb_s=raw / 1e6 / decode if decode else math.nan,
        settings={
            n: f.tuned.setting / (f.tuned.errors[i].span if len(f.names) == 1 else 1) for n, (f, i) in own.items()
        },
        missed=[n for n, (f, _) in own.items() if not f.tuned.reached],
        skipped={n: f for n, f in found.items() if isinstance(f, str)},
        variants={n: f.tuned.variant for n, (f, _) in own.items()},
        sizes={n: f.tuned.nbytes for n, (f, _) in own.items() if len(f.names) == 1},
        errors=errors,
        measures={n: f.measures[i] for n, (f, i) in own.items() if f.measures},
    )
