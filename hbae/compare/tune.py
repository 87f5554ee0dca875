# SPDX-License-Identifier: MIT
"""Finds each rival's setting from the NRMSE that it achieves, and puts rivals side by side over many variables."""

from __future__ import annotations

import math
import multiprocessing
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np

from hbae.arrays import Array
from hbae.blocks.fill import fill_invalid
from hbae.compare.metrics import measure
from hbae.compare.rivals import RIVALS, Rival, find
from hbae.errors import ConfigError, FieldError, UnknownNameError

Point = tuple[float, float]  # log(setting), log(nrmse)
Source = Callable[[], Array] | Array

NEAR = 0.93  # a result of at least this part of its target is near enough
STEP = math.log(2)
FAR = 0.85  # a result below this part of its target earns more runs
SMALL = 1 << 20  # bytes; smaller arrays are tuned as a whole


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """One rival on the whole of one variable at the setting found; errors are those achieved, over the valid points."""

    setting: float
    nbytes: int
    raw_bytes: int
    nrmse: float
    max_error: float
    span: float
    encode_seconds: float
    decode_seconds: float
    reached: bool
    runs: int = 1  # on the whole array


@dataclass(frozen=True, kw_only=True)
class Row:
    """One rival over all variables: total bytes, ratio, mean NRMSE, largest error over range, MB/s (10^6 bytes).

    Attributes
    ----------
    nbytes : int
        Sum of the payloads; no container or metadata counted.
    encode_mb_s, decode_mb_s : float
        Of one process, on the whole arrays at the final settings.
    settings : dict
        Final setting over range, by variable: fit for ``starts`` at the next target once scaled by the targets' ratio.
    missed : list of str
        Variables whose result is above the target (it counts all the same).
    skipped : dict
        Variables that do not count in this row, and why; all else is over the others.
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


def tune(
    rival: Rival,
    array: Array,
    target_nrmse: float,
    *,
    valid: Array | None = None,
    start: float | None = None,
    evaluations: int = 5,
) -> Tuned:
    """Give the rival's result on the array whose achieved NRMSE is at most the target, and near it if possible.

    Arrays of more than 1 MB are tried on a typical eighth first, then run as a whole: once where that is within 7 %
    below the target, else twice, and more often only to get below it or within 15 %.
    A rival whose setting works in steps lands within a step, a factor of about 2.

    Parameters
    ----------
    valid : array of bool, optional
        Points that count (default: the finite ones); the others are filled smoothly, alike for every rival.
    start : float, optional
        First setting over the range, from an earlier run.
    evaluations : int
        Runs on the eighth, at most.

    Raises
    ------
    ConfigError
        For a target or number of evaluations that is not positive.
    FieldError
        For an array of range 0, without valid points, or that the rival does not take.
    """
    if not target_nrmse > 0 or evaluations < 1:
        raise ConfigError("tune: target and evaluations must be positive")
    return _tune(rival, *_prepare(array, valid), target_nrmse, start, evaluations)


def _prepare(array: Array, valid: Array | None) -> tuple[Array, Array]:
    """Give the array with values at every point, and its valid points."""
    masked = np.ma.getmaskarray(array) if isinstance(array, np.ma.MaskedArray) else False
    array = np.asarray(np.ma.getdata(array))
    if array.dtype.kind != "f" or array.dtype.itemsize not in (4, 8):
        raise FieldError(f"rivals take float32 and float64, not {array.dtype}")
    mask = np.isfinite(array) & ~np.asarray(masked) & (True if valid is None else valid)
    if not mask.any():
        raise FieldError("no valid points")
    if array[mask].max() == array[mask].min():
        raise FieldError("constant: range 0")
    if not mask.all():
        array = fill_invalid(array[None], mask[None])[0].astype(array.dtype)
    return array, mask


def _tune(rival: Rival, array: Array, mask: Array, target: float, start: float | None, evaluations: int) -> Tuned:
    values = array if mask.all() else array[mask]
    span = float(values.max()) - float(values.min())
    whole = _Trial(rival, array, mask, span, target)
    x, slope = math.log((start or 2 * target) * span), 1.0
    if array.nbytes < SMALL:
        return _search(whole, x, slope, 0.97, 2 * evaluations, 6)[0]
    box = typical_eighth(array, mask)
    part = _Trial(rival, np.ascontiguousarray(array[box]), mask[box], span, target)
    aim = math.log(target * (1.0 if rival.steps else 0.95))  # the whole tends to be a little worse than its eighth
    points = _scout(part, x, aim, evaluations)
    slope = _slope(points, aim, slope)
    return _search(whole, _next(points, aim, slope), slope, NEAR, 2, 3)[0]


@dataclass(frozen=True)
class _Trial:
    rival: Rival
    array: Array
    mask: Array
    span: float
    target: float

    def run(self, setting: float) -> Tuned:
        """Encode, decode and measure; the NRMSE is over the whole variable's range."""
        t0 = time.perf_counter()
        encoded = self.rival.encode(self.array, setting)
        t1 = time.perf_counter()
        decoded = self.rival.decode(encoded, self.array.shape, self.array.dtype)
        t2 = time.perf_counter()
        found = measure(self.array, decoded, self.mask)
        nrmse = found.rmse / self.span
        return Tuned(
            setting=setting,
            nbytes=encoded.nbytes,
            raw_bytes=self.array.nbytes,
            nrmse=nrmse,
            max_error=found.max_error,
            span=self.span,
            encode_seconds=t1 - t0,
            decode_seconds=t2 - t1,
            reached=nrmse <= self.target,
        )


def typical_eighth(array: Array, mask: Array) -> tuple[slice, ...]:
    """Choose a block of all times, half of y and a quarter of x: mean square slope nearest the whole's, as a ratio.

    Of rank 2, an eighth of the last axis; of rank 1, of the only one. Blocks without valid points are not chosen.
    """
    last = array.ndim - 1
    parts = {last: 4, last - 1: 2} if array.ndim > 2 else {last: 8}
    width = {a: max(array.shape[a] // n, min(array.shape[a], 16)) for a, n in parts.items()}
    boxes: list[tuple[slice, ...]] = [()]
    for a, n in enumerate(array.shape):
        w = width.get(a, n)
        boxes = [(*b, slice(s, s + w)) for b in boxes for s in range(0, n - w + 1, w)]
    steps = tuple(slice(None, None, 4 if n > 16 and a < last else 1) for a, n in enumerate(array.shape))
    thin, typical = [], []
    for box in boxes:
        if mask[box].any():
            rough = float(np.mean(np.square(np.diff(array[box][steps].astype(np.float64), axis=-1))))
            thin.append(box)
            typical.append(rough)
    mean = sum(typical) / len(typical) if typical else 0.0
    if not mean > 0 or not math.isfinite(mean):
        return (slice(None),) * array.ndim
    return min(zip(typical, thin, strict=True), key=lambda p: abs(math.log(p[0] / mean)) if p[0] > 0 else math.inf)[1]


def _aim(rival: Rival, near: float) -> float:
    return 1.0 if rival.steps else (1 + near) / 2


def _search(trial: _Trial, x: float, slope: float, near: float, usual: int, more: int) -> tuple[Tuned, list[Point]]:
    """Give the smallest result that meets the target (else the last), and all points; ``more`` runs where far off."""
    rival, target = trial.rival, trial.target
    aim = math.log(target * _aim(rival, near))
    near = 0.5 if rival.steps else near
    points: list[Point] = []
    best: Tuned | None = None
    while True:
        x = min(x, math.log(trial.span))  # beyond, nothing is left to lose
        if rival.steps:
            x = math.floor(x / STEP + 1e-6) * STEP
            if any(abs(x - p[0]) < STEP / 2 for p in points):
                if best is not None:
                    break
                x = min(p[0] for p in points) - STEP
        last = trial.run(2.0 ** round(x / STEP) if rival.steps else math.exp(x))
        points.append((x, math.log(max(last.nrmse, target * 1e-9))))
        if last.reached and (best is None or last.nbytes < best.nbytes):
            best = last
        if last.reached and last.nrmse >= near * target:
            break
        if x >= math.log(trial.span) and last.reached:
            break
        far = best is None or (best.nrmse < FAR * target and not rival.steps)
        if len(points) >= usual + (more if far else 0):
            break
        slope = _slope(points, aim, slope)
        x = _next(points, aim, slope)
    return replace(best or last, runs=len(points)), points


def _scout(trial: _Trial, x: float, aim: float, evaluations: int) -> list[Point]:
    """Give points of log(setting), log(nrmse), the last one within 5 % of the aim where the evaluations suffice."""
    points: list[Point] = []
    for _ in range(evaluations):
        x = min(x, math.log(trial.span))
        nrmse = trial.run(math.exp(x)).nrmse
        points.append((x, math.log(max(nrmse, trial.target * 1e-9))))
        near = abs(points[-1][1] - aim) < (STEP / 2 if trial.rival.steps else 0.05)
        if near or (x >= math.log(trial.span) and points[-1][1] < aim):
            break
        x = _next(points, aim, _slope(points, aim, 1.0))
    return points


def _slope(points: list[Point], aim: float, default: float) -> float:
    """Give d log(nrmse) / d log(setting) of the two points nearest the aim; the default where there are no two."""
    (xa, ya), (xb, yb) = sorted(points, key=lambda p: abs(p[1] - aim))[:2] if len(points) > 1 else ((0.0, 0.0),) * 2
    if abs(xa - xb) < 1e-6:
        return default
    slope = (ya - yb) / (xa - xb)
    return min(slope, 2.0) if slope > 0.3 else default  # errors may jump up and down with the setting


def _next(points: list[Point], aim: float, slope: float) -> float:
    """Give the next log setting: along the slope, at most a factor e^3, inside any bracket, and never one tried before.

    Errors need not grow with the setting: where all points are on one side of the aim, it moves on from the outermost.
    """
    below = max((p for p in points if p[1] <= aim), default=None)
    above = min((p for p in points if p[1] > aim), default=None)
    x, y = min(points, key=lambda p: abs(p[1] - aim)) if below and above else below or above or (0.0, aim)
    x += min(max((aim - y) / slope, -3.0), 3.0)
    if below and above and below[0] < above[0]:
        margin = 0.05 * (above[0] - below[0])
        return min(max(x, below[0] + margin), above[0] - margin)
    while any(abs(x - p[0]) < 0.01 for p in points):
        x += 0.02 if above is None else -0.02
    return x


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
    chosen = [find(r) for r in rivals]
    for name in arrays:
        if name not in targets:
            raise UnknownNameError(f"variable {name!r} has no target")
        if not targets[name] > 0:
            raise ConfigError(f"variable {name!r}: the target must be positive")
    for r in chosen:
        RIVALS[r]().require()
    begin = {find(r): s for r, s in (starts or {}).items()}
    jobs = [
        (source, targets[name], chosen, [begin.get(r, {}).get(name) for r in chosen]) for name, source in arrays.items()
    ]
    if processes > 1 and len(jobs) > 1:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(processes, len(jobs)), mp_context=context) as pool:
            results = list(pool.map(_one, jobs))
    else:
        results = [_one(job) for job in jobs]
    return [_row(r, {n: found[i] for n, found in zip(arrays, results, strict=True)}) for i, r in enumerate(chosen)]


def _one(job: tuple[Source, float, list[str], list[float | None]]) -> list[Tuned | str]:
    """Tune all rivals on one variable; a reason in place of a result where one does not apply."""
    source, target, rivals, starts = job
    try:
        array, mask = _prepare(source() if callable(source) else source, None)
    except FieldError as e:
        return [str(e)] * len(rivals)
    found: list[Tuned | str] = []
    for name, start in zip(rivals, starts, strict=True):
        try:
            found.append(_tune(RIVALS[name](), array, mask, target, start, 5))
        except FieldError as e:
            found.append(str(e))
    return found


def _row(rival: str, found: Mapping[str, Tuned | str]) -> Row:
    results = {n: t for n, t in found.items() if isinstance(t, Tuned)}
    size, raw = sum(t.nbytes for t in results.values()), sum(t.raw_bytes for t in results.values())
    encode, decode = sum(t.encode_seconds for t in results.values()), sum(t.decode_seconds for t in results.values())
    return Row(
        rival=rival,
        nbytes=size,
        raw_bytes=raw,
        cr=raw / size if size else math.nan,
        mean_nrmse=math.fsum(t.nrmse for t in results.values()) / len(results) if results else math.nan,
        max_error=max((t.max_error / t.span for t in results.values()), default=math.nan),
        encode_mb_s=raw / 1e6 / encode if encode else math.nan,
        decode_mb_s=raw / 1e6 / decode if decode else math.nan,
        settings={n: t.setting / t.span for n, t in results.items()},
        missed=[n for n, t in results.items() if not t.reached],
        skipped={n: t for n, t in found.items() if isinstance(t, str)},
    )
