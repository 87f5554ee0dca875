# SPDX-License-Identifier: MIT
"""Verify finds every kind of miss, in any chunk, and only there: the original is moved, the archive stays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import hbae
from hbae.pipeline.archive import Archive

SHAPE = (24, 20, 36)
DIMS = ("t", "y", "x")
BLOCK = (4, 4, 4)
KINDS = {
    "abs": 0.05,
    "rel_range": 0.005,
    "pw_rel": 0.05,
    "l2": 0.4,
    "block_nrmse": 0.005,
    "nrmse": 0.005,
    "psnr": 46.0,
}


def original() -> xr.Dataset:
    rng = np.random.default_rng(3)
    x = rng.normal(0, 1, SHAPE)
    x[0, 0, :2] = -6, 6  # the range, wherever values are moved
    return xr.Dataset({n: (DIMS, x + k) for k, n in enumerate("ab")})


@pytest.fixture(scope="module", params=list(KINDS))
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """An archive of several chunks with a bound of that kind."""
    kind, path = request.param, tmp_path_factory.mktemp("judged") / "a.hbae"
    hbae.compress(original(), path, f"{kind}={KINDS[kind]!r}", method="linear", block=BLOCK, chunk=0.0625)
    with Archive(path) as a:
        assert len(a.parts[0].boxes) > 2
    return kind, path


def moved(ds: xr.Dataset, name: str, where: tuple[slice, ...], by: float) -> xr.Dataset:
    """Values of a part pushed towards zero, away from what was decoded."""
    out = ds.copy(deep=True)
    part = out[name].values[where]
    out[name].values[where] = part - by * np.sign(part)
    return out


def test_the_original_itself_passes(written: tuple[str, Path]) -> None:
    report = hbae.verify(written[1], original())
    assert report.ok
    assert report.failures == ()


@pytest.mark.parametrize("where", ["first", "last"])
def test_one_value_or_block_that_moved_is_found(written: tuple[str, Path], where: str) -> None:
    kind, path = written
    block = tuple(slice(4, 8) for _ in SHAPE) if where == "first" else tuple(slice(n - 4, n) for n in SHAPE)
    by = {"l2": 0.2, "block_nrmse": 0.3}.get(kind, 0.4)
    if kind in ("nrmse", "psnr"):
        block, by = tuple(slice(0, 8) if where == "first" else slice(n - 8, n) for n in SHAPE), 2.0
    report = hbae.verify(path, moved(original(), "b", block, by))
    assert report.failures
    assert all(f.startswith("b: ") for f in report.failures)


def test_a_whole_variable_a_little_over_is_found(written: tuple[str, Path]) -> None:
    """No point and no block stands out: what is over is the sum."""
    kind, path = written
    if kind not in ("nrmse", "psnr"):
        return
    limit = 0.005 * 12 if kind == "nrmse" else 10 ** (-46.0 / 20) * 12
    ds = original()
    decoded = hbae.decompress(path)["a"].values
    error = decoded - ds["a"].values
    now = float(np.sqrt((error**2).mean()))
    assert now <= limit
    for factor, passes in ((0.999, True), (1.001, False)):
        other = ds.copy(deep=True)
        other["a"].values[...] = decoded - error * (factor * limit / now)
        other["a"].values[0, 0, :2] = ds["a"].values[0, 0, :2]
        report = hbae.verify(path, other)
        assert any("RMSE" in f for f in report.failures) != passes
