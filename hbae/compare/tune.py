# SPDX-License-Identifier: MIT
"""Finds a rival's best way and setting from the error that it achieves on one variable."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

import numpy as np

from hbae.arrays import Array
from hbae.blocks.fill import fill_invalid
from hbae.compare.interface import METRICS, Rival
from hbae.compare.metrics import Errors, measure
from hbae.compare.search import NEAR, Run, following, scan, scout, search, slope_at
from hbae.errors import ConfigError, FieldError

SMALL = 1 << 20  # bytes; smaller arrays are tuned as a whole
SCANNED = 4 << 20  # bytes; of smaller arrays all ways are tuned, and settings around the ones found tried
FINALISTS = 2  # ways that are tuned on the whole array
CLOSE = 1.03  # a way that promises more bytes than this times the best is not tuned


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """A rival on the whole of one or more variables at the setting found; errors are achieved, over the valid points.

    Attributes
    ----------
    setting : float
        In the units of the variable (PCA: in units of the targets).
    variant : str
        The way that was smallest.
    runs : int
        Runs on the whole array of that way.
    decoded : tuple of array
        The decoded variables.
    """

    setting: float
    variant: str
    nbytes: int
    raw_bytes: int
    errors: tuple[Errors, ...]
    encode_seconds: float
    decode_seconds: float
    reached: bool
    runs: int = 1
    decoded: tuple[Array, ...] = field(default=(), repr=False, compare=False)


def tune(
    rival: Rival,
    array: Array,
    target: float,
    *,
    metric: str = "nrmse",
    valid: Array | None = None,
    start: float | None = None,
    evaluations: int = 5,
) -> Tuned:
    """Give the rival's smallest result on the array with an achieved error of at most the target, near it if possible.

    Every variant of the rival is run at one setting on a typical eighth of the array (of less than 1 MB: the whole).
    The best two are tuned there, then on the whole: once where that is within 1 % below the target (3 % for less than
    1 MB), else up to four times, and more often only to get below it or within 15 %. Where settings work in steps, it
    is the largest that meets the target. Of less than 4 MB, all variants are tuned, and 20 settings around the one
    found are tried too.

    Parameters
    ----------
    target : float
        Error over the range: NRMSE, or the largest error for the metric ``max``.
    valid : array of bool, optional
        Points that count (default: the finite ones); the others are filled smoothly, alike for every rival.
    start : float, optional
        First setting over the range, from an earlier run.
    evaluations : int
        Runs on the eighth, at most, for one variant.

    Raises
    ------
    ConfigError
        For a target or number of evaluations that is not positive, or an unknown metric.
    FieldError
        For an array of range 0, without valid points, or that the rival does not take.
    """
    if not target > 0 or evaluations < 1:
        raise ConfigError("tune: target and evaluations must be positive")
    if metric not in METRICS:
        raise ConfigError(f"tune: unknown metric {metric!r}; known: {', '.join(METRICS)}")
    return tune_prepared(rival, *prepare(array, valid), target, metric=metric, start=start, evaluations=evaluations)


def prepare(array: Array, valid: Array | None = None) -> tuple[Array, Array]:
    """Give the array with values at every point, and its valid points.

    Raises
    ------
    FieldError
        For types that no rival takes, without valid points, or of range 0.
    """
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


def tune_prepared(
    rival: Rival,
    array: Array,
    mask: Array,
    target: float,
    *,
    metric: str,
    start: float | None = None,
    evaluations: int = 5,
) -> Tuned:
    """Do what :func:`tune` does, on an array that :func:`prepare` gave."""
    values = array if mask.all() else array[mask]
    span = float(values.max()) - float(values.min())
    whole = Single(rival, array, mask, span, target, metric)
    usual = 2.0 if metric == "nrmse" else 1.0
    x = math.log((start or usual * target) * span)
    ways = rival.variants(array.shape, metric)
    part = whole
    if array.nbytes >= SMALL:
        box = typical_eighth(array, mask)
        part = replace(whole, array=np.ascontiguousarray(array[box]), mask=mask[box])
    try:
        way, run = _smallest(whole, part, ways, x, evaluations)
    except FieldError:
        if part is whole:
            raise
        # The eighth may be too small for a rival that takes the whole.
        way, run = _smallest(whole, whole, ways, x, evaluations)
    return Tuned(
        setting=run.setting,
        variant=way.label,
        nbytes=run.nbytes,
        raw_bytes=array.nbytes,
        errors=run.errors,
        encode_seconds=run.encode_seconds,
        decode_seconds=run.decode_seconds,
        reached=run.reached,
        runs=run.runs,
        decoded=run.decoded,
    )


@dataclass(frozen=True)
class Single:
    """A :class:`~hbae.compare.search.Trial` of one rival on one array; errors are over the whole variable's range."""

    rival: Rival
    array: Array
    mask: Array
    span: float
    target: float
    metric: str

    @property
    def steps(self) -> bool:
        """As the rival."""
        return self.rival.steps

    @property
    def top(self) -> float:
        """The range."""
        return self.span

    def run(self, setting: float) -> Run:
        """Encode, decode and measure."""
        t0 = time.perf_counter()
        encoded = self.rival.encode(self.array, setting)
        t1 = time.perf_counter()
        decoded = self.rival.decode(encoded, self.array.shape, self.array.dtype)
        t2 = time.perf_counter()
        errors = replace(measure(self.array, decoded, self.mask), span=self.span)
        return Run(
            setting=setting,
            nbytes=encoded.nbytes,
            loss=errors.by(self.metric) / self.target,
            errors=(errors,),
            encode_seconds=t1 - t0,
            decode_seconds=t2 - t1,
            decoded=(decoded,),
        )


def _smallest(whole: Single, part: Single, ways: Sequence[Rival], x: float, evaluations: int) -> tuple[Rival, Run]:
    """Give the way that is smallest on the whole, and its result."""
    # The whole tends to be a little worse than its eighth.
    aim = 0.0 if whole.steps or part is whole else math.log(0.95)
    small = whole.array.nbytes < SCANNED
    finalists, x = _best(part, ways, x, every=small)
    found = [_settle(replace(whole, rival=w), replace(part, rival=w), x, aim, evaluations) for w in finalists]
    if small and not whole.steps:
        found = [(w, scan(replace(whole, rival=w), run) if w.bounds else run) for w, run in found]
    return min(found, key=lambda f: (not f[1].reached, f[1].nbytes))


def _best(part: Single, ways: Sequence[Rival], x: float, *, every: bool) -> tuple[list[Rival], float]:
    """Give the ways that promise to be smallest at equal error, judged by one run of each, and a better log setting.

    ``every``: all that take the shape, as one run does not tell ways apart where sizes jump.
    """
    if len(ways) == 1:
        return list(ways), x
    if ways[0].bounds:
        points = scout(replace(part, rival=ways[0]), x, 0.0, 3)
        x = min(following(points, 0.0, slope_at(points, 0.0, 1.0)), math.log(part.top))
    costs: dict[float, Rival] = {}
    for w in ways:
        # Some ways may not take the shape; if the usual one does not, its reason has been raised above.
        with suppress(FieldError):
            # Equal costs mean that the two ways are one to the rival.
            costs.setdefault(_cost(replace(part, rival=w).run(math.exp(x)), part.array.size), w)
    if every and ways[0].bounds:
        return list(costs.values()), x
    most = FINALISTS if ways[0].bounds else 1
    return [costs[c] for c in sorted(costs)[:most] if c <= CLOSE * min(costs)], x


def _cost(run: Run, points: int) -> float:
    """Bytes, put right for the error: one bit per point that carries bits for each factor of 2."""
    rate = max(8 * run.nbytes / points, 1.5)
    return run.nbytes * min(max(run.loss, 1e-3), 1e3) ** (1 / rate) if run.loss > 0 else float(run.nbytes)


def _settle(whole: Single, part: Single, x: float, aim: float, evaluations: int) -> tuple[Rival, Run]:
    """Tune one way: on the part, then on the whole."""
    if not whole.rival.bounds:
        return whole.rival, whole.run(1.0)
    if part.array is whole.array:
        return whole.rival, search(whole, x, 1.0, 0.97, 2 * evaluations, 6)
    points = scout(part, x, aim, evaluations)
    slope = slope_at(points, aim, 1.0)
    return whole.rival, search(whole, following(points, aim, slope), slope, NEAR, 4, 4)


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
