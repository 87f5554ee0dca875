# SPDX-License-Identifier: MIT
"""Measures of two-dimensional slices: SSIM, data SSIM and the power of small scales.

A slice spans the last two axes. At most 64 slices are looked at, evenly spread over the leading axes, and of a slice
at most the 2048 x 2048 points in its middle: memory and time stay bounded for variables of any size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from hbae.arrays import Array
from hbae.blocks.fill import fill_invalid
from hbae.compare.interface import package

SLICES = 64
LONGEST = 2048
WINDOW, SIGMA = 11, 1.5


def ssim(original: Array, decoded: Array, valid: Array, span: float) -> float:
    """Give the mean structural similarity (Wang et al. 2004) of the slices; NaN where they are smaller than a window.

    Gaussian window of 11 x 11 points, sigma 1.5, L = ``span``, K1 = 0.01, K2 = 0.03; windows hold valid points only.
    """
    if not span > 0:
        return math.nan
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    return _mean(_similarity(x, y, m, c1, c2) for x, y, m in slices(original, decoded, valid) if _wide(x))


def dssim(original: Array, decoded: Array, valid: Array) -> float:
    """Give the mean data SSIM (Baker et al. 2022) of the slices; NaN where they are smaller than a window.

    Each pair of slices is scaled to [0, 1] by its joint range and rounded to 255 steps; both constants are 1e-8.
    """
    found = []
    for x, y, m in slices(original, decoded, valid):
        if not _wide(x) or not m.any():
            continue
        low = min(float(x[m].min()), float(y[m].min()))
        span = max(float(x[m].max()), float(y[m].max())) - low
        scaled = [np.round((np.where(m, a, low) - low) / (span or 1.0) * 255) / 255 for a in (x, y)]
        found.append(_similarity(scaled[0], scaled[1], m, 1e-8, 1e-8))
    return _mean(found)


def spectrum_ratio(original: Array, decoded: Array, valid: Array) -> float:
    """Give the power of the decoded slices over that of the original ones, at wavelengths of 2 to 4 points.

    Sums of the squared Fourier amplitudes of the slices (their mean removed, a Hann window in front; of rank 1: of the
    whole) over wave numbers from half the Nyquist wave number up to it, in any direction. Below 1, small scales are
    lost; above 1, noise was added. NaN where the original has none or an axis is shorter than 8 points.
    """
    before = after = 0.0
    for x, y, m in slices(original, decoded, valid):
        if min(x.shape) < 8 or not m.any():
            continue
        filled = fill_invalid(x[None], m[None])[0]
        error = np.where(m, y - x, 0.0)
        before += _power(filled)
        after += _power(filled + error)
    return after / before if before > 0 else math.nan


def slices(original: Array, decoded: Array, valid: Array) -> Iterator[tuple[Array, Array, Array]]:
    """Give pairs of slices in float64 with their valid points; a variable of rank 1 is one slice of rank 1."""
    lead = original.shape[:-2]
    count = math.prod(lead)
    for i in np.unique(np.linspace(0, count - 1, min(SLICES, count)).round().astype(int)) if count else ():
        at = np.unravel_index(int(i), lead) if lead else ()
        rest = tuple(_middle(n) for n in original.shape[len(lead) :])
        key: tuple[Any, ...] = (*(int(a) for a in at), *rest)
        yield original[key].astype(np.float64), decoded[key].astype(np.float64), np.asarray(valid[key])


def _middle(n: int) -> slice:
    start = max(0, (n - LONGEST) // 2)
    return slice(start, min(n, start + LONGEST))


def _wide(x: Array) -> bool:
    return x.ndim == 2 and min(x.shape) >= WINDOW


def _similarity(x: Array, y: Array, m: Array, c1: float, c2: float) -> float:
    """Mean over the valid points; windows at borders and holes are cut, their weights scaled up."""
    if not m.any():
        return math.nan
    weight = _blur(m.astype(np.float64))
    shift = float(x[m].mean())
    a, b = np.where(m, x - shift, 0.0), np.where(m, y - shift, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean_a, mean_b, aa, bb, ab = (_blur(v) / weight for v in (a, b, a * a, b * b, a * b))
        var_a, var_b = np.maximum(aa - mean_a**2, 0), np.maximum(bb - mean_b**2, 0)
        cov = ab - mean_a * mean_b
        mean_a, mean_b = mean_a + shift, mean_b + shift
        s = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1) * (2 * cov + c2) / (var_a + var_b + c2)
    return float(s[m].mean())


def _blur(x: Array) -> Array:
    correlate1d = package("scipy.ndimage").correlate1d
    d = np.arange(WINDOW) - WINDOW // 2
    g = np.exp(-(d**2) / (2 * SIGMA**2))
    g /= g.sum()
    for axis in (0, 1):
        x = correlate1d(x, g, axis=axis, mode="constant")
    return x


def _power(x: Array) -> float:
    """Power between half the Nyquist wave number and the whole, every wave counted with its mirror image."""
    x = x - x.mean()
    for axis, n in enumerate(x.shape):
        x = x * np.hanning(n).reshape([-1 if a == axis else 1 for a in range(x.ndim)])
    power = np.abs(np.fft.rfftn(x)) ** 2
    n = x.shape[-1]
    mirrored = np.full(n // 2 + 1, 2.0)
    mirrored[0] = 1.0
    if n % 2 == 0:
        mirrored[-1] = 1.0
    k2 = np.fft.rfftfreq(n) ** 2
    if x.ndim == 2:
        k2 = k2 + (np.fft.fftfreq(x.shape[0]) ** 2)[:, None]
    return float((power * mirrored)[(k2 >= 0.25**2) & (k2 <= 0.5**2)].sum())


def _mean(values: Iterator[float] | list[float]) -> float:
    known = [v for v in values if math.isfinite(v)]
    return sum(known) / len(known) if known else math.nan
