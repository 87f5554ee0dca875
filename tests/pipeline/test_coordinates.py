# SPDX-License-Identifier: MIT
"""What says where points lie stays lossless unless it is named; what only sounds alike does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import hbae

PLACES = {
    "lat": {},
    "LON": {},
    "XLONG": {},
    "nav_lat": {},
    "lonCell": {},
    "clat_vertices": {},
    "grid_corner_lon": {},
    "coordx": {},
    "zVertex": {},
    "mesh_x": {},
    "u1": {"units": "degrees_north"},
    "u2": {"units": "degreesE"},
    "u3": {"standard_name": "projection_x_coordinate"},
    "u4": {"axis": "Y"},
}
FIELDS = {n: {} for n in ("lat_heat_flux", "long_wave", "flat", "alon", "coords", "xcells")}
FIELDS["salt"] = {"units": "degrees_C"}


@pytest.fixture
def mesh() -> xr.Dataset:
    rng = np.random.default_rng(4)
    names = PLACES | FIELDS
    made = {n: (("cell",), np.cumsum(rng.normal(size=4000)), a) for n, a in names.items()}
    ugrid = {"cf_role": "mesh_topology", "node_coordinates": "mesh_x mesh_y"}
    return xr.Dataset({**made, "mesh": ((), np.int32(0), ugrid)})


def test_places_without_being_named_stay_lossless(mesh: xr.Dataset, tmp_path: Path) -> None:
    hbae.compress(mesh, tmp_path / "a.hbae", "nrmse=1e-2", method="linear")
    back = hbae.decompress(tmp_path / "a.hbae")
    changed = {str(n) for n in mesh.variables if back[n].values.tobytes() != mesh[n].values.tobytes()}
    assert changed == set(FIELDS)


def test_a_named_place_keeps_its_bound(mesh: xr.Dataset, tmp_path: Path) -> None:
    hbae.compress(mesh, tmp_path / "a.hbae", ["lat:abs=0.01", "lat_heat_flux:abs=0.5"], method="linear")
    back = hbae.decompress(tmp_path / "a.hbae")
    error = np.abs(back["lat"].values - mesh["lat"].values).max()
    assert 0 < error <= 0.01
    assert back["LON"].values.tobytes() == mesh["LON"].values.tobytes()
