# SPDX-License-Identifier: MIT
"""P7: steps of variables that a basis mixes bring all errors near what is allowed, and that makes files smaller."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import hbae
from hbae.arrays import Array
from hbae.errors import FormatError
from hbae.exact import Transform, Wavelet
from hbae.pipeline import families
from hbae.pipeline.rounding import WORTH
from hbae.pipeline.sampling import Sample
from hbae.pipeline.steps import _point_ratios, balance_points, solve_points, solve_units
from hbae.pipeline.waves import encode_waves, quantise_waves

WAVELET = Wavelet(((0,), (1, 2)))


def fronts(count: int) -> Array:
    """Variables (V, t, y, x) that are functions of three fields with fronts, with a little noise."""
    rng = np.random.default_rng(0)
    t, y, x = np.meshgrid(np.arange(16), np.arange(64), np.arange(64), indexing="ij")
    fields = [np.tanh(4 * np.sin(x / 9 + t / 7 + k) + 3 * np.cos(y / (6 + k) - t / 11)) for k in range(3)]
    parts = rng.normal(size=(count, 3))
    mixed = [np.exp(1.2 * np.tensordot(p, fields, 1)) + 0.002 * rng.normal(size=t.shape) for p in parts]
    return np.stack(mixed)


def coded_size(x: Array, units: Array, mix: Transform) -> int:
    """Bytes of all coefficients at those steps."""
    mixed = mix.forward((x / units[:, None, None, None]).reshape(len(x), -1)).reshape(x.shape)
    return len(encode_waves(mixed, WAVELET, worth=WORTH, related="rests")[0])


def test_errors_are_balanced_as_the_wavelet_makes_them() -> None:
    x = fronts(12)
    tol = 1e-2 * np.ptp(x, axis=(1, 2, 3))
    sample = Sample([(x, np.zeros(x.shape, bool))], 1.0)
    quantise = partial(quantise_waves, wavelet=WAVELET, worth=WORTH)
    points = x.reshape(len(x), -1)
    mixed, steps = solve_units(points, tol, ("klt",), rounding=0.5)[-1]
    mix = Transform(mixed.axes[:1])
    plain = solve_points([x], sample, tol, (steps, mix), quantise)
    balanced, refitted = balance_points([x], sample, tol, (steps, mix), quantise, points, points)
    boxes = [(x, np.ones(x.shape, bool))]
    before = _point_ratios(boxes, tol, plain, mix, quantise)
    after = _point_ratios(boxes, tol, balanced, refitted, quantise)
    assert max(before.max(), after.max()) < 1.03
    assert before.min() < 0.85
    assert after.min() > 0.9
    sizes = coded_size(x, balanced, refitted), coded_size(x, plain, mix)
    assert sizes[0] < 0.98 * sizes[1]


def test_where_balancing_leaves_exact_arithmetic_steps_stay(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def too_fine(*_: Any) -> Any:
        raise FormatError("too large for exact arithmetic")

    monkeypatch.setattr(families, "balance_points", too_fine)
    ds = xr.Dataset({f"v{i}": (("t", "y", "x"), a) for i, a in enumerate(fronts(3))})
    report = hbae.compress(ds, tmp_path / "a.hbae", "nrmse=1e-3", method="linear", threads=1)
    assert max(v.nrmse for v in report.variables) <= 1e-3


def test_no_step_grows_beyond_so_many_tolerances() -> None:
    """A variable of which nothing is seen on the sample may do something elsewhere."""
    rng, k = np.random.default_rng(0), np.hypot(*np.meshgrid(np.fft.fftfreq(64), np.fft.fftfreq(64))) + 0.02
    x = np.stack([np.fft.ifft2(np.fft.fft2(rng.normal(size=(64, 64))) * k**-2).real for _ in range(3)])
    x = np.concatenate([x, np.zeros((1, 64, 64))])
    tol, points = np.array([*(0.01 * np.ptp(x[:3], axis=(1, 2))), 1.0]), x.reshape(4, -1)
    mix, units = solve_units(points, tol, ("klt",), rounding=0.5)[-1]
    quantise = partial(quantise_waves, wavelet=Wavelet(((0, 1),)), worth=0.1)
    sample = Sample([(x, np.zeros(x.shape, bool))], 1.0)
    units, _ = balance_points([x], sample, tol, (units, mix), quantise, points, points[:, ::4])
    assert (units[:3] < 5 * tol[:3]).all()
    assert 16 * tol[3] < units[3] < 40 * tol[3]
