# SPDX-License-Identifier: MIT
"""Finds each rival's setting from the NRMSE that it achieves, and puts rivals side by side over many variables."""

from __future__ import annotations

import math
import multiprocessing
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np

from hbae.arrays import Array
from hbae.blocks.fill import fill_invalid
from hbae.compare.metrics import Errors, measure
from hbae.compare.rivals import RIVALS, Rival
from hbae.errors import ConfigError, FieldError, UnknownNameError

Bracket = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """One rival on one variable at the setting found; ``nrmse`` is achieved, ``seconds`` of one run on the whole."""

    setting: float
    bytes: int
    raw_bytes: int
    nrmse: float
    max_error: float
    span: float
    encode_seconds: float
    decode_seconds: float
    reached: bool


@dataclass(frozen=True, kw_only=True)
class Row:
    """One rival over all variables: total bytes, ratio, mean NRMSE, largest error over range, MB/s (10^6 bytes).

    ``reached`` tells whether every variable met its target; speeds are per core.
    """

    rival: str
    bytes: int
    raw_bytes: int
    cr: float
    nrmse: float
    max_error: float
    encode_speed: float
    decode_speed: float
    variables: int
    skipped: tuple[str, ...]
    reached: bool
    settings: Mapping[str, float]


def tune(
    rival: Rival,
    array: Array,
    target_nrmse: float,
    *,
    valid: Array | None = None,
    sample: int | None = 1 << 18,
    tolerance: float = 0.01,
    start: float | None = None,
    evaluations: int = 5,
) -> Tuned:
    """Give the rival's smallest result whose achieved NRMSE is at most the target, and near it where it can be reached.

    Parameters
    ----------
    valid : array of bool, optional
        Points that count (default: the finite ones); the others are filled smoothly, alike for every rival.
    sample : int, optional
        Arrays of more points are first tried on about one eighth of the largest spatial axis, in one block with all of
        time; None tries on the whole.
    tolerance : float
        How far below the target is close enough, relative.
    start : float, optional
        First setting over the range, from an earlier run.

    Raises
    ------
    ConfigError
        For a target or tolerance that is not positive.
    FieldError
        For an array of range 0 or without valid points.
    """
    if not target_nrmse > 0 or not tolerance > 0:
        raise ConfigError("tune: target and tolerance must be positive")
    mask = np.isfinite(array) if valid is None else valid & np.isfinite(array)
    if not mask.any() or array[mask].max() == array[mask].min():
        raise FieldError("tune: the array has range 0 or no valid points")
    if not mask.all():
        array = fill_invalid(array[None], mask[None])[0].astype(array.dtype)
    span = float(array[mask].max()) - float(array[mask].min())
    guess = (start or 3 * target_nrmse) * span
    if sample is not None and array.size > sample:
        box = _eighth(array, mask, span)
        part, part_mask = np.ascontiguousarray(array[box]), mask[box]
        guess = _search(_Trial(rival, part, part_mask, span), guess, target_nrmse, 4 * tolerance, evaluations).setting
        # the last word is the whole array's: one run, more only where it is off by more than 2 %
        return _search(_Trial(rival, array, mask, span), guess, target_nrmse, max(tolerance, 0.02), evaluations)
    return _search(_Trial(rival, array, mask, span), guess, target_nrmse, tolerance, 3 * evaluations)


def _eighth(array: Array, mask: Array, span: float) -> tuple[slice, ...]:
    """Choose an eighth of the longest axis but the first: the slab whose mean square gradient is nearest the whole's."""
    axis = 0 if array.ndim == 1 else 1 + int(np.argmax(array.shape[1:]))
    width = max(array.shape[axis] // 8, min(16, array.shape[axis]))
    starts = range(0, array.shape[axis] - width + 1, width)
    other = tuple(a for a in range(array.ndim) if a != axis)
    rough = np.square(np.diff(array[:: max(1, array.shape[0] // 8)] if axis else array, axis=axis) / span)
    profile = rough.mean(axis=other, dtype=np.float64)
    wanted = profile.mean()
    counts = mask.sum(axis=other)
    usable = [s for s in starts if counts[s : s + width].any()]
    best = min(usable, key=lambda s: abs(profile[s : s + width].mean() - wanted))
    return tuple(slice(best, best + width) if a == axis else slice(None) for a in range(array.ndim))


@dataclass(frozen=True)
class _Trial:
    rival: Rival
    array: Array
    mask: Array
    span: float

    def run(self, setting: float, target: float) -> Tuned:
        """Encode, decode and measure; the NRMSE is over the whole variable's range."""
        t0 = time.perf_counter()
        payload = self.rival.encode(self.array, setting)
        t1 = time.perf_counter()
        decoded = self.rival.decode(payload, self.array.shape, self.array.dtype)
        t2 = time.perf_counter()
        found = measure(self.array, decoded, self.mask)
        errors = Errors(found.rmse, found.max_error, self.span)
        return Tuned(
            setting=setting,
            bytes=len(payload),
            raw_bytes=self.array.nbytes,
            nrmse=errors.nrmse,
            max_error=errors.max_error,
            span=self.span,
            encode_seconds=t1 - t0,
            decode_seconds=t2 - t1,
            reached=errors.nrmse <= target,
        )


def _search(trial: _Trial, guess: float, target: float, tolerance: float, evaluations: int) -> Tuned:
    """Bracket and close in on the target in log(setting), log(nrmse); give the best result that meets the target."""
    aim = math.log(target * (1 - tolerance / 2))
    low: Bracket | None = None  # meets the target
    high: Bracket | None = None  # misses it
    best, last, x = None, None, math.log(guess)
    for count in range(evaluations + 8):
        if count >= evaluations and best is not None:
            break
        last = trial.run(math.exp(x), target)
        y = math.log(max(last.nrmse, target * 1e-6))
        if last.reached:
            best = last if best is None or last.bytes < best.bytes else best
            low = (x, y) if low is None or x > low[0] else low
        else:
            high = (x, y) if high is None or x < high[0] else high
        if last.reached and last.nrmse >= target * (1 - tolerance):
            break
        following = _next(low, high, aim)
        if low is not None and high is not None and abs(high[0] - low[0]) < 1e-3:
            break
        x = following
    if best is not None:
        return best
    if last is None:
        raise ConfigError("tune: no evaluations were allowed")
    return last


def _next(low: Bracket | None, high: Bracket | None, aim: float) -> float:
    """Give the next log setting: secant inside a bracket, kept off its ends; else proportional, at most a factor e^3."""
    if low is not None and high is not None:
        slope = (high[1] - low[1]) / (high[0] - low[0]) if high[0] != low[0] else 1.0
        part = (aim - low[1]) / slope / (high[0] - low[0]) if slope > 0 else 0.5
        return low[0] + (high[0] - low[0]) * min(max(part, 0.1), 0.9)
    x, y = low or high or (0.0, aim)
    step = min(max(aim - y, -3.0), 3.0)
    return x + (1.1 * step if high is None else 1.02 * step)


def compare_variables(
    arrays: Mapping[str, Callable[[], Array]],
    targets: Mapping[str, float],
    rivals: Iterable[str] = ("SZ3", "SPERR", "ZFP"),
    *,
    processes: int = 2,
    starts: Mapping[str, Mapping[str, float]] | None = None,
) -> list[Row]:
    """Tune every rival on every variable to that variable's target NRMSE and add the bytes up; one row per rival.

    Variables of range 0 or without valid points are left out for all and named in ``skipped``.

    Parameters
    ----------
    arrays : mapping of name to callable
        Called in a worker process to load one variable (so it must be picklable where ``processes`` > 1).
    starts : mapping of rival to mapping of name to setting over range, optional
        ``Row.settings`` of a neighbouring target, scaled by the ratio of targets: saves evaluations.

    Raises
    ------
    UnknownNameError
        For a rival that is not known or a variable without a target.
    """
    chosen = list(rivals)
    for r in chosen:
        if r not in RIVALS:
            raise UnknownNameError(f"rival {r!r} is not known; known: {', '.join(RIVALS)}")
    for name in arrays:
        if name not in targets:
            raise UnknownNameError(f"variable {name!r} has no target")
    jobs = [
        (load, targets[name], chosen, {r: (starts or {}).get(r, {}).get(name) for r in chosen})
        for name, load in arrays.items()
    ]
    if processes > 1 and len(jobs) > 1:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(processes, mp_context=context) as pool:
            results = list(pool.map(_one, jobs))
    else:
        results = [_one(job) for job in jobs]
    found = dict(zip(arrays, results, strict=True))
    return [_row(r, {n: t[r] for n, t in found.items() if t}, tuple(n for n, t in found.items() if not t)) for r in chosen]


def _one(job: tuple[Callable[[], Array], float, list[str], dict[str, float | None]]) -> dict[str, Tuned]:
    """Tune all rivals on one variable; empty where it has range 0 or no valid points."""
    load, target, rivals, starts = job
    array = load()
    valid = np.ones(array.shape, bool)
    if isinstance(array, np.ma.MaskedArray):
        valid = ~np.ma.getmaskarray(array)
        array = array.data
    valid &= np.isfinite(array)
    if not valid.any() or array[valid].max() == array[valid].min():
        return {}
    return {r: tune(RIVALS[r](), array, target, valid=valid, start=starts[r]) for r in rivals}


def _row(rival: str, results: Mapping[str, Tuned], skipped: tuple[str, ...]) -> Row:
    size, raw = sum(t.bytes for t in results.values()), sum(t.raw_bytes for t in results.values())
    encode, decode = sum(t.encode_seconds for t in results.values()), sum(t.decode_seconds for t in results.values())
    return Row(
        rival=rival,
        bytes=size,
        raw_bytes=raw,
        cr=raw / size if size else math.nan,
        nrmse=math.fsum(t.nrmse for t in results.values()) / len(results) if results else math.nan,
        max_error=max((t.max_error / t.span for t in results.values()), default=0.0),
        encode_speed=raw / 1e6 / encode if encode else math.nan,
        decode_speed=raw / 1e6 / decode if decode else math.nan,
        variables=len(results),
        skipped=skipped,
        reached=all(t.reached for t in results.values()),
        settings={n: t.setting / t.span for n, t in results.items()},
    )
