# SPDX-License-Identifier: MIT
"""Integers without packing: lossy where they are named, their bounds hold on the stored numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import hbae
from hbae.errors import ConfigError

TYPES = ["i1", "u1", "<i2", ">u2", "<i4", ">i4", "<u4"]


def walk(dtype: str, shape: tuple[int, ...], seed: int, spread: float) -> np.ndarray:
    """Rough and smooth numbers that reach both ends of the type."""
    info = np.iinfo(dtype)
    rng = np.random.default_rng(seed)
    x = rng.normal(size=shape).cumsum(-1) * spread + (info.max + info.min) / 2
    out: np.ndarray = np.clip(np.rint(x), info.min, info.max).astype(dtype)
    out.flat[0], out.flat[-1] = info.min, info.max
    return out


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    dtype=st.sampled_from(TYPES),
    shape=st.sampled_from([(50,), (9, 31), (3, 20, 21), (2, 5, 6, 7)]),
    seed=st.integers(0, 99),
    kind=st.sampled_from(["abs", "rel_range", "nrmse"]),
    exponent=st.floats(-6, 0),
    fill=st.booleans(),
)
def test_bounds_hold(
    dtype: str, shape: tuple[int, ...], seed: int, kind: str, exponent: float, fill: bool, tmp_path: Path
) -> None:
    info = np.iinfo(dtype)
    x = walk(dtype, shape, seed, (float(info.max) - info.min) * 10 ** (seed % 5 - 4))
    attrs = {"_FillValue": np.array(info.max, dtype)[()]} if fill else {}
    dims = [f"d{i}" for i in range(len(shape))]
    good = x != info.max if fill else np.ones(x.shape, bool)
    span = float(x[good].astype("f8").max() - x[good].astype("f8").min())
    value = 10.0**exponent * (span if kind == "abs" else 1)
    hbae.compress(xr.Dataset({"v": (dims, x, attrs)}), tmp_path / "a.hbae", f"v:{kind}={value!r}", overwrite=True)
    y = hbae.decompress(tmp_path / "a.hbae")["v"].values
    assert y.dtype == x.dtype
    assert np.array_equal(y[~good], x[~good])
    e = np.abs(y.astype("f8") - x.astype("f8"))[good]
    if kind in ("abs", "rel_range"):
        assert e.max() <= value * (span if kind == "rel_range" else 1)
    else:
        assert np.sqrt((e * e).mean()) <= value * span
    assert hbae.verify(tmp_path / "a.hbae", xr.Dataset({"v": (dims, x, attrs)})).ok


def test_they_are_smaller_and_only_lossy_when_named(tmp_path: Path) -> None:
    x = np.rint(np.random.default_rng(0).normal(size=(20, 64, 64)).cumsum(1) * 1000).astype("i4")
    ds = xr.Dataset({"v": (("t", "y", "x"), x)})
    named = hbae.compress(ds, tmp_path / "a.hbae", "v:abs=50")
    assert named.size < hbae.compress(ds, tmp_path / "b.hbae", "abs=50").size / 2
    assert np.array_equal(hbae.decompress(tmp_path / "b.hbae")["v"].values, x)
    error = np.abs(hbae.decompress(tmp_path / "a.hbae")["v"].values.astype("i8") - x).max()
    assert 25 < error <= 50


@pytest.mark.parametrize(("dtype", "bound"), [("i8", "abs=5"), ("u8", "abs=5"), ("i4", "pw_rel=0.1"), ("?", "abs=0.5")])
def test_what_cannot_be_lossy_is_refused(dtype: str, bound: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="bound v"):
        hbae.compress(xr.Dataset({"v": ("x", np.ones(9, dtype))}), tmp_path / "a.hbae", f"v:{bound}")
    assert not list(tmp_path.iterdir())
