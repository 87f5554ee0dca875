# SPDX-License-Identifier: MIT
"""Snapshots that are combinations of few: the leading basis of the first axis is found, pays, and keeps promises."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import hbae
from hbae.arrays import Array
from hbae.bound.fit import fit_transform
from hbae.pipeline.archive import Archive

DIMS = ("member", "part", "node")


def snapshots(shape: tuple[int, int, int] = (120, 2, 400), rank: int = 4, noise: float = 1e-4) -> Array:
    """Members in no order, nodes in no order."""
    rng = np.random.default_rng(9)
    modes = rng.normal(size=(rank, shape[1] * shape[2])) / np.arange(1, rank + 1)[:, None]
    x = rng.normal(size=(shape[0], rank)) @ modes + rng.normal(0, noise, (shape[0], shape[1] * shape[2]))
    return x.reshape(shape).astype("f4")


def methods(report: Any) -> set[str]:
    return {v.method for v in report.variables}


@pytest.mark.parametrize("bound", [("nrmse", 1e-2), ("nrmse", 1e-3), ("abs", 0.05), ("block_nrmse", 1e-2)])
@pytest.mark.parametrize("chunk", [None, 0.0625], ids=["one chunk", "many chunks"])
def test_bounds_hold(bound: tuple[str, float], chunk: float | None, judged: Callable[..., Any], tmp_path: Path) -> None:
    x = snapshots()
    x[3:9, 0, 50:70] = np.nan
    ds = xr.Dataset({"a": (DIMS, x), "b": (DIMS, 2 * x[::-1].copy() + 1)})
    options = {"chunk": chunk} if chunk else {}
    judged(ds, tmp_path / "a.hbae", {"a": [bound], "b": [bound]}, method="linear", **options)


def test_it_is_chosen_and_small_and_read_by_the_second_reader(tmp_path: Path) -> None:
    path, x = tmp_path / "a.hbae", snapshots((300, 2, 700))
    report = hbae.compress(xr.Dataset({"a": (DIMS, x)}), path, "nrmse=1e-3", method="linear")
    assert methods(report) == {"transform(none,pod,klt,klt)"}
    assert report.size < x.nbytes / 60, "4 x (300 + 1400) numbers of one or two bytes"
    with Archive(path) as a:
        basis = a.plan(0).transform
        assert basis is not None
        assert basis.axes[1].size == 300
        assert basis.axes[1].kept < 12
    reader = Path(__file__).parents[1] / "reference_reader.py"
    subprocess.run([sys.executable, reader, path, tmp_path], check=True, capture_output=True)
    with hbae.open(path) as ds:
        assert np.load(tmp_path / "a.npy").tobytes() == ds["a"].values.tobytes()
        assert ds["a"][17, :, 5:9].values.tobytes() == ds["a"].values[17, :, 5:9].tobytes()


@pytest.mark.parametrize("bound", [1e-6, 1e-8])
def test_bounds_finer_than_its_columns(
    bound: float, judged: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Columns have 15 bits: points close the gap that they leave."""
    ds = xr.Dataset({"a": (DIMS, snapshots((200, 2, 300), noise=0.0).astype("f8"))})
    judged(ds, tmp_path / "a.hbae", {"a": [("nrmse", bound)]}, method="linear")
    with Archive(tmp_path / "a.hbae") as a:
        plan = a.plan(0)
        assert plan.transform is not None
        assert plan.transform.axes[1].kept < 100
        assert plan.point_unit.all()
    monkeypatch.setattr("hbae.pipeline.setting.make_tall", lambda *_: None)
    without = hbae.compress(ds, tmp_path / "b.hbae", f"nrmse={bound}", method="linear")
    assert (tmp_path / "a.hbae").stat().st_size < 0.7 * without.size


def test_noise_and_long_axes_go_another_way(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    ds = xr.Dataset({"a": (DIMS, rng.normal(size=(120, 2, 400)).astype("f4"))})
    assert not any("pod" in m for m in methods(hbae.compress(ds, tmp_path / "n.hbae", "nrmse=1e-2", method="linear")))
    long = xr.Dataset({"a": (DIMS, snapshots((1100, 1, 40)))})
    assert not any("pod" in m for m in methods(hbae.compress(long, tmp_path / "l.hbae", "nrmse=1e-2", method="linear")))


def test_what_is_left_out_is_small() -> None:
    x = snapshots((80, 1, 500), rank=3, noise=0.0)[None].reshape(1, 1, 80, 500).astype("f8")
    t = fit_transform(x, ("none", "pod", "none"), room=1e-4)
    assert t.axes[1].kept == 3
    q = np.rint(t.forward(x) * 2**10).astype(np.int64)
    f = t.fraction_for(float(np.abs(q).max()))
    assert np.abs(t.inverse(q, f) * 2.0**-f / 2**10 - x).max() < 0.01
