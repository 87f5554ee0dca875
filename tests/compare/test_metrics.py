# SPDX-License-Identifier: MIT
"""Every measure against its formula written out plainly, or against a value worked out by hand."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest

from hbae.compare import measure_all
from hbae.compare.metrics import SLAB, error_autocorrelation
from hbae.compare.structure import LONGEST, SLICES, dssim, slices, spectrum_ratio, ssim
from hbae.errors import FieldError


@pytest.fixture
def pair() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    x = np.cumsum(rng.normal(size=(3, 17, 19)), axis=2) + 280
    y = x + rng.normal(size=x.shape) * 0.3
    return x, y, np.ones(x.shape, bool)


def plain_similarity(x: np.ndarray, y: np.ndarray, ok: np.ndarray, c1: float, c2: float) -> float:
    """SSIM of a slice with loops over points and windows."""
    g = np.exp(-((np.arange(11) - 5.0) ** 2) / (2 * 1.5**2))
    found = []
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            if not ok[i, j]:
                continue
            rows, cols = slice(max(0, i - 5), i + 6), slice(max(0, j - 5), j + 6)
            w = np.outer(g, g)[5 - i + rows.start : 5 - i + x.shape[0], 5 - j + cols.start : 5 - j + x.shape[1]]
            m = ok[rows, cols]
            w, a, b = w[: m.shape[0], : m.shape[1]][m], x[rows, cols][m], y[rows, cols][m]
            mu, nu = np.average(a, weights=w), np.average(b, weights=w)
            va, vb = np.average((a - mu) ** 2, weights=w), np.average((b - nu) ** 2, weights=w)
            cov = np.average((a - mu) * (b - nu), weights=w)
            found.append((2 * mu * nu + c1) * (2 * cov + c2) / ((mu**2 + nu**2 + c1) * (va + vb + c2)))
    return float(np.mean(found))


def test_ssim_is_that_of_the_formula_with_and_without_holes(pair):
    x, y, ok = pair
    span = float(np.ptp(x))
    for mask in (ok, np.random.default_rng(1).random(x.shape) > 0.2):
        terms = [
            plain_similarity(a, b, m, (0.01 * span) ** 2, (0.03 * span) ** 2)
            for a, b, m in zip(x, y, mask, strict=True)
        ]
        holed = np.where(mask, y, np.nan)
        assert ssim(x, holed, mask, span) == pytest.approx(np.mean(terms), rel=1e-9)
    assert ssim(x, x, ok, span) == pytest.approx(1)


def test_dssim_scales_and_rounds_each_pair_of_slices(pair):
    x, y, ok = pair
    terms = []
    for a, b, m in zip(x, y, ok, strict=True):
        low = min(a.min(), b.min())
        high = max(a.max(), b.max())
        p, q = (np.round((v - low) / (high - low) * 255) / 255 for v in (a, b))
        terms.append(plain_similarity(p, q, m, 1e-8, 1e-8))
    assert dssim(x, y, ok) == pytest.approx(np.mean(terms), rel=1e-6)
    assert dssim(x, x, ok) == pytest.approx(1)


def test_spectrum_ratio_is_that_of_a_plain_fourier_sum():
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(2, 9, 10))
    for a, b in ((x, y), (x[0], y[0])):
        power = []
        for v in (a, b):
            v = v - v.mean()
            windows = [0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n) / (n - 1)) for n in v.shape]
            v = v * (np.outer(*windows) if v.ndim == 2 else windows[0])
            total = 0.0
            for k in np.ndindex(v.shape):
                f = [(m if m <= n // 2 else m - n) / n for m, n in zip(k, v.shape, strict=True)]
                if 0.25 <= math.hypot(*f) <= 0.5:
                    phase = sum(fi * g for fi, g in zip(f, np.indices(v.shape), strict=True))
                    total += abs((v * np.exp(-2j * np.pi * phase)).sum()) ** 2
            power.append(total)
        assert spectrum_ratio(a, b, np.ones(a.shape, bool)) == pytest.approx(power[1] / power[0], rel=1e-9)


def test_spectrum_ratio_tells_smoothing_from_noise():
    x = np.random.default_rng(2).normal(size=(4, 64, 64))
    ok = np.ones(x.shape, bool)
    assert spectrum_ratio(x, x * 0.5, ok) == pytest.approx(0.25)
    assert spectrum_ratio(x, (x + np.roll(x, 1, 2) + np.roll(x, 1, 1)) / 3, ok) < 0.5
    assert spectrum_ratio(x, x + np.random.default_rng(3).normal(size=x.shape), ok) == pytest.approx(2, rel=0.1)


def test_autocorrelation_is_that_of_the_formula():
    rng = np.random.default_rng(4)
    e = rng.normal(size=(6, 7, 8))
    e[:, 1:] += 0.8 * e[:, :-1]
    x, ok = rng.normal(size=e.shape), rng.random(e.shape) > 0.1
    found = []
    for axis in range(3):
        d, m = np.moveaxis(e - e[ok].mean(), axis, 0), np.moveaxis(ok, axis, 0)
        both = m[1:] & m[:-1]
        found.append((d[1:] * d[:-1])[both].mean() / e[ok].var())
    assert error_autocorrelation(x, x + e, ok) == pytest.approx(max(found, key=abs), rel=1e-6)
    assert abs(found[1]) == max(map(abs, found))


def test_autocorrelation_by_hand_and_across_slabs():
    x = np.zeros(6)
    # Errors 1 -1 1 -1 1 -1: neighbours always differ.
    assert error_autocorrelation(x, np.array([1.0, -1, 1, -1, 1, -1]), np.ones(6, bool)) == pytest.approx(-1)
    assert math.isnan(error_autocorrelation(x, x, np.ones(6, bool)))
    long = np.tile([1.0, 1, -1, -1], (2 * SLAB + 8) // 4)
    # Of a period of four pairs two agree and two differ; the last pair of all has no follower.
    assert error_autocorrelation(np.zeros(long.size), long, np.ones(long.size, bool)) == pytest.approx(0, abs=1e-5)


def test_all_measures_together_and_where_they_are_not_defined(pair):
    x, y, _ = pair
    m = measure_all(x, y)
    e = y - x
    assert m.nrmse == pytest.approx(np.sqrt((e**2).mean()) / np.ptp(x))
    assert m.max_error == pytest.approx(np.abs(e).max() / np.ptp(x))
    assert m.psnr == pytest.approx(-20 * np.log10(m.nrmse))
    assert all(math.isfinite(v) for v in m.to_json().values())
    line = measure_all(x[0, 0], y[0, 0])
    assert math.isnan(line.ssim)
    assert math.isnan(line.dssim)
    assert math.isfinite(line.spectrum_ratio)
    broken = measure_all(x, np.where(x > 280, np.nan, y))
    assert broken.nrmse == math.inf
    assert math.isnan(broken.ssim)
    with pytest.raises(FieldError, match="shapes differ"):
        measure_all(x, y[1:])


def test_slices_and_memory_stay_bounded():
    x = np.zeros((100, 4, 3, 3000), "f4")
    found = list(slices(x, x, np.ones(x.shape, bool)))
    assert len(found) == SLICES
    assert found[0][0].shape == (3, LONGEST)
    big = np.random.default_rng(0).random(size=(200, 100, 200), dtype="f4")
    tracemalloc.start()
    measure_all(big, big + np.float32(0.1), np.ones(big.shape, bool))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < big.nbytes + 12 * 8 * SLAB
