# SPDX-License-Identifier: MIT
"""A deflated original is inflated once by verify, however its stored chunks lie."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import hbae
from hbae.arrays import Array, Box
from hbae.io import netcdf4_

SHAPE = (8, 96, 96)


def test_stored_chunks_are_inflated_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    t = np.cumsum(np.random.default_rng(5).normal(size=SHAPE), axis=0).astype("f4")
    stored = {"zlib": True, "chunksizes": (1, *SHAPE[1:])}
    xr.Dataset({"t": (("time", "y", "x"), t)}).to_netcdf(tmp_path / "a.nc", encoding={"t": stored})
    hbae.compress(tmp_path / "a.nc", tmp_path / "a.hbae", "abs=0.1", method="linear", chunk=0.0625)
    assert hbae.info(tmp_path / "a.hbae")["groups"][0]["chunks"] > 4
    inflated = 0
    read = netcdf4_.NetcdfSource.read

    def counted(self: netcdf4_.NetcdfSource, box: Box) -> Array:
        nonlocal inflated
        if self.shape == SHAPE:
            steps = zip(box, stored["chunksizes"], strict=True)  # type: ignore[call-overload]
            inflated += math.prod(-(-b.stop // s) - b.start // s for b, s in steps)
        out: Array = read(self, box)
        return out

    monkeypatch.setattr(netcdf4_.NetcdfSource, "read", counted)
    assert hbae.verify(tmp_path / "a.hbae", tmp_path / "a.nc").ok
    assert inflated == SHAPE[0]
