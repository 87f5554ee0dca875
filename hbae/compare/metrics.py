# SPDX-License-Identifier: MIT
"""Errors between an original and a decoded array, in float64 over the valid points; temporaries stay small."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise

import numpy as np

from hbae.arrays import Array
from hbae.compare.structure import dssim, spectrum_ratio, ssim
from hbae.errors import FieldError

SLAB = 1 << 20  # points that are turned into float64 at a time


@dataclass(frozen=True)
class Errors:
    """Errors of one variable: root mean square and largest (its units), over ``span`` = max - min of the original."""

    rmse: float
    max_error: float
    span: float

    @property
    def nrmse(self) -> float:
        """RMSE over the range; 0 for an exact array, infinite for an inexact one of range 0."""
        return self._over_span(self.rmse)

    @property
    def max_over_span(self) -> float:
        """Largest error over the range; 0 for an exact array, infinite for an inexact one of range 0."""
        return self._over_span(self.max_error)

    @property
    def psnr(self) -> float:
        """-20 log10(nrmse), dB."""
        return -20 * math.log10(self.nrmse) if self.nrmse > 0 else math.inf

    def by(self, metric: str) -> float:
        """Give the error over the range that a metric names: ``nrmse`` or ``max``."""
        return self.max_over_span if metric == "max" else self.nrmse

    def _over_span(self, error: float) -> float:
        if error == 0:
            return 0.0
        return error / self.span if self.span > 0 else math.inf


@dataclass(frozen=True, kw_only=True)
class Measures:
    """All that is reported of one decoded variable; NaN where a measure is not defined for its shape.

    ``max_error`` is over the range, as ``nrmse``; docs/compare.md defines each.
    """

    nrmse: float
    max_error: float
    psnr: float
    ssim: float
    dssim: float
    spectrum_ratio: float
    error_autocorrelation: float

    def to_json(self) -> dict[str, float]:
        """Give the figures by name."""
        return asdict(self)


def measure(original: Array, decoded: Array, valid: Array | None = None) -> Errors:
    """Measure ``decoded`` against ``original`` over the valid (by default: finite) points, any shape.

    A decoded point that is not finite makes the errors infinite.

    Raises
    ------
    FieldError
        If the shapes differ.
    """
    if original.shape != decoded.shape:
        raise FieldError(f"shapes differ: {original.shape} and {decoded.shape}")
    mask = np.isfinite(original) if valid is None else valid
    whole = bool(mask.all())
    x = original.ravel() if whole else original[mask]
    y = decoded.ravel() if whole else decoded[mask]
    if x.size == 0:
        return Errors(0.0, 0.0, 0.0)
    span = float(x.max()) - float(x.min())
    total, largest = [], 0.0
    for start in range(0, x.size, SLAB):
        e = y[start : start + SLAB].astype(np.float64)
        e -= x[start : start + SLAB]
        if not np.isfinite(e).all():
            return Errors(math.inf, math.inf, span)
        total.append(float(np.dot(e, e)))
        largest = max(largest, float(e.max()), float(-e.min()))
    return Errors(math.sqrt(math.fsum(total) / x.size), largest, span)


def measure_all(original: Array, decoded: Array, valid: Array | None = None) -> Measures:
    """Give every measure of a decoded variable, any shape; what lies outside the valid points does not count.

    Raises
    ------
    FieldError
        If the shapes differ.
    """
    mask = np.isfinite(original) if valid is None else valid
    e = measure(original, decoded, mask)
    ok = math.isfinite(e.rmse)
    return Measures(
        nrmse=e.nrmse,
        max_error=e.max_over_span,
        psnr=e.psnr,
        ssim=ssim(original, decoded, mask, e.span) if ok else math.nan,
        dssim=dssim(original, decoded, mask) if ok else math.nan,
        spectrum_ratio=spectrum_ratio(original, decoded, mask) if ok else math.nan,
        error_autocorrelation=error_autocorrelation(original, decoded, mask) if ok else math.nan,
    )


def error_autocorrelation(original: Array, decoded: Array, valid: Array) -> float:
    """Give the autocorrelation of the error at lag 1: of all axes, the one largest in magnitude; NaN without error.

    Along an axis: mean product of the deviations (from the mean error) of neighbours, over their mean square; pairs of
    valid points count.
    """
    rank = original.ndim
    count = total = square = 0.0
    pairs, products, sums = [0.0] * rank, [0.0] * rank, [0.0] * rank
    before: tuple[Array, Array] | None = None
    for rows in _slabs(original.shape):
        ok = valid[rows]
        e = np.where(ok, decoded[rows].astype(np.float64) - original[rows], 0.0)
        count, total, square = count + float(ok.sum()), total + float(e.sum()), square + float(np.vdot(e, e))
        for axis in range(rank):
            a, m = (
                (e, ok) if axis or before is None else (np.concatenate((before[0], e)), np.concatenate((before[1], ok)))
            )
            low, high = (_shifted(axis, s) for s in (slice(None, -1), slice(1, None)))
            both = m[low] & m[high]
            pairs[axis] += float(both.sum())
            products[axis] += float((a[low] * a[high]).sum())
            sums[axis] += float(((a[low] + a[high]) * both).sum())
        before = (e[-1:], ok[-1:])
    if count == 0:
        return math.nan
    mean = total / count
    variance = square / count - mean * mean
    if not variance > 0:
        return math.nan
    found = [
        (p - mean * s + n * mean * mean) / n / variance for n, p, s in zip(pairs, products, sums, strict=True) if n > 0
    ]
    return max(found, key=abs, default=math.nan)


def _shifted(axis: int, along: slice) -> tuple[slice, ...]:
    return (*(slice(None),) * axis, along)


def _slabs(shape: tuple[int, ...]) -> Iterator[slice]:
    """Cut the first axis into runs of about ``SLAB`` points."""
    rows = shape[0] if shape else 1
    each = math.prod(shape[1:])
    step = max(1, SLAB // max(each, 1))
    cuts = [*range(0, rows, step), rows]
    yield from (slice(a, b) for a, b in pairwise(cuts))
