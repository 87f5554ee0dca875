# SPDX-License-Identifier: MIT
"""The judgement of decoded values is the last word: bounds hold though the decoder's formula gives whatever it likes.

Plans are careful enough that their values seldom miss a bound, so that a judge who sleeps would not be noticed.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import hbae.pipeline.encode as encode
import hbae.pipeline.parts as parts
from hbae.arrays import Array

SHAPE = (12, 20, 18)
DIMS = ("t", "y", "x")
Wrong = Callable[[Array], Array]


def noise(dtype: str) -> Array:
    """White noise; its range is about 8."""
    return np.random.default_rng(8).normal(0, 1, SHAPE).astype(dtype)


def every(step: int, by: float) -> Wrong:
    """All values right but every so many."""

    def wrong(x: Array) -> Array:
        y = x.copy()
        inner = y.reshape(-1)[::step]
        # Away from the ends of the range, where the clip mends.
        inner += np.where(inner > 0, -by, by)
        return y

    return wrong


def last_block(by: float) -> Wrong:
    """All values right but those of the last 4 x 4 x 4."""

    def wrong(x: Array) -> Array:
        y = x.copy()
        y[-4:, -4:, -2:] += np.where(y[-4:, -4:, -2:] > 0, -by, by)
        return y

    return wrong


def span_of(x: Array) -> float:
    return float(x.max()) - float(x.min())


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Callable[[Array, Wrong], None]:
    """Give a function that makes the last formula answer ``wrong(original)`` for the whole grid."""
    real = parts.linear_values

    def install(original: Array, wrong: Wrong) -> None:
        def answer(p: Any, plan: Any, shape: tuple[int, ...], backend: Any) -> Array:
            if shape[1:] != original.shape:
                return real(p, plan, shape, backend)
            return wrong(original.astype(np.float64))[None].copy()

        monkeypatch.setattr(parts, "_alone", lambda parts, plan: None)
        monkeypatch.setattr(parts, "linear_values", answer)
        monkeypatch.setattr(encode, "linear_values", answer)

    return install


@pytest.mark.parametrize(("kind", "value"), [("abs", 0.1), ("rel_range", 0.0125)])
@pytest.mark.parametrize(("step", "over"), [(7, 1 + 5e-7), (200, 2.0), (1, 1 + 5e-7), (1, 10.0)])
def test_points(
    kind: str, value: float, step: int, over: float, answering: Any, judged: Callable[..., Any], tmp_path: Path
) -> None:
    x = noise("f8")
    limit = value * (span_of(x) if kind == "rel_range" else 1)
    answering(x, every(step, limit * over))
    judged(xr.Dataset({"T": (DIMS, x)}), tmp_path / "a.hbae", {"T": [(kind, value)]}, method="linear")


@pytest.mark.parametrize("ulps", [1.5, 3.25, 40.75])
def test_points_that_only_the_cast_moves_over_their_limit(
    ulps: float, answering: Any, judged: Callable[..., Any], tmp_path: Path
) -> None:
    x = noise("f4")
    limit = ulps * float(np.spacing(np.float32(2)))
    answering(x, every(1, limit * (1 - 1e-7)))
    judged(xr.Dataset({"T": (DIMS, x)}), tmp_path / "a.hbae", {"T": [("abs", limit)]}, method="linear")


@pytest.mark.parametrize("kind", ["block_nrmse", "l2"])
@pytest.mark.parametrize("wrong", ["last", "all", "hair"])
def test_blocks(kind: str, wrong: str, answering: Any, judged: Callable[..., Any], tmp_path: Path) -> None:
    x = noise("f8")
    value = 0.01 if kind == "block_nrmse" else 0.01 * span_of(x) * 8
    by = 0.01 * span_of(x) * {"last": 3.0, "all": 3.0, "hair": 1 + 5e-7}[wrong]
    answering(x, last_block(by) if wrong == "last" else every(1, by))
    judged(xr.Dataset({"T": (DIMS, x)}), tmp_path / "a.hbae", {"T": [(kind, value)]}, method="linear", block=(4, 4, 4))


@pytest.mark.parametrize(("kind", "value"), [("nrmse", 0.01), ("psnr", 40.0)])
@pytest.mark.parametrize("over", [1 + 5e-7, 1.02, 30.0])
def test_whole_variables(
    kind: str, value: float, over: float, answering: Any, judged: Callable[..., Any], tmp_path: Path
) -> None:
    x = noise("f8")
    answering(x, every(1, 0.01 * span_of(x) * over))
    judged(xr.Dataset({"T": (DIMS, x)}), tmp_path / "a.hbae", {"T": [(kind, value)]}, method="linear")


@pytest.mark.parametrize("scale", [0.01, 1e-4])
def test_packed_integers(scale: float, answering: Any, tmp_path: Path) -> None:
    """An error of three steps is over or under three times the scale by a rounding, point by point."""
    import hbae

    stored = np.rint(noise("f8") * 4000).astype("i2")
    attrs = {"scale_factor": scale, "add_offset": 250.0}
    unpacked = stored.astype("f8") * scale + 250.0
    answering(unpacked, every(1, 3 * scale))
    path = tmp_path / "a.hbae"
    hbae.compress(xr.Dataset({"T": (DIMS, stored, attrs)}), path, f"T:abs={3 * scale!r}", method="linear")
    back = hbae.decompress(path)["T"].values
    assert back.dtype == stored.dtype
    assert np.abs(back.astype("f8") * scale + 250.0 - unpacked).max() <= 3 * scale
