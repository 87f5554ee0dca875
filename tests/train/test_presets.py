# SPDX-License-Identifier: MIT
"""Presets from end to end: data of their kind, a model in their blocks, an archive that uses it and holds its bound."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import netCDF4
import numpy as np
import pytest
import xarray as xr

import hbae
from hbae.pipeline.training import train
from hbae.synth import E3SMConfig, Stream, XGCConfig, e3sm_stream, write_stream, xgc_stream

pytest.importorskip("torch")


@dataclass(frozen=True)
class Case:
    """A preset, data for it, and the blocks and hyper-blocks that follow."""

    preset: str
    stream: Callable[[int], Stream]
    block: list[int]
    hyper: list[int]


def globe(seed: int, **size: int) -> Stream:
    return e3sm_stream(E3SMConfig(**{"steps": 33, "nlat": 18, "nlon": 34, "seed": seed} | size))


def plasma(seed: int, **size: int) -> Stream:
    return xgc_stream(XGCConfig(**{"nodes": 5, "seed": seed} | size))


CASES = {
    "e3sm": Case("e3sm", globe, [6, 16, 16], [5, 1, 1]),
    "e3sm by name and size": Case("auto", lambda s: globe(s, nlat=32, nlon=34), [6, 16, 16], [5, 1, 1]),
    "e3sm, few steps": Case("e3sm", lambda s: globe(s, steps=7, nlat=9), [6, 9, 16], [2, 1, 1]),
    "xgc": Case("xgc", plasma, [1, 1, 39, 39], [8, 1, 1, 1]),
    "xgc, other planes": Case("xgc", lambda s: plasma(s, planes=3, nperp=33, npar=37), [1, 1, 33, 37], [3, 1, 1, 1]),
}


@pytest.mark.parametrize("name", CASES)
def test_train_compress_verify(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    for i in range(2):
        write_stream(case.stream(i), tmp_path / f"{i}.nc")
    report = train(tmp_path / "0.nc", tmp_path / "m.hbm", preset=case.preset, budget="2ep")
    assert report.steps > 0
    # A model of one run codes another.
    options = {"model": tmp_path / "m.hbm", "method": "hbae"}
    out = hbae.compress(tmp_path / "1.nc", tmp_path / "1.hbae", "nrmse=1e-2", **options)
    assert out.model_size == report.model_size
    (group,) = hbae.info(tmp_path / "1.hbae")["groups"]
    assert group["variables"] == list(report.names)
    assert "hbae" in group["stages"]
    assert (group["geometry"]["block"], group["geometry"]["hyper"]) == (case.block, case.hyper)
    found = hbae.verify(tmp_path / "1.hbae", tmp_path / "1.nc")
    assert found.ok, found
    with netCDF4.Dataset(tmp_path / "1.nc") as truth:
        truth.set_auto_mask(False)
        back = hbae.decompress(tmp_path / "1.hbae")
        for v in report.names:
            x, y = truth[v][:].astype(float), back[v].values.astype(float)
            ok = x < 1e19 if case.preset != "xgc" else np.ones(x.shape, bool)
            assert (y[~ok] == x[~ok]).all()
            assert np.sqrt(((y - x)[ok] ** 2).mean()) <= 1e-2 * np.ptp(x[ok])


def test_columns_without_latitudes(tmp_path: Path) -> None:
    """E3SM's own grids have one axis of columns."""
    whole = globe(0, nlat=16, nlon=24).whole()["TS"]
    ds = xr.Dataset({"TS": (("time", "ncol"), whole.reshape(len(whole), -1))})
    ds.to_netcdf(tmp_path / "a.nc", engine="netcdf4")
    train(tmp_path / "a.nc", tmp_path / "m.hbm", preset="e3sm", budget="1ep")
    hbae.compress(tmp_path / "a.nc", tmp_path / "a.hbae", "nrmse=1e-2", model=tmp_path / "m.hbm", method="hbae")
    (group,) = hbae.info(tmp_path / "a.hbae")["groups"]
    assert (group["geometry"]["block"], group["geometry"]["hyper"]) == ([6, 64], [5, 1])
    assert hbae.verify(tmp_path / "a.hbae", tmp_path / "a.nc").ok
