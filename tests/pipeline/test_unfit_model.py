# SPDX-License-Identifier: MIT
"""A model for something else than the file: ``auto`` says so and codes without it, ``hbae`` refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import hbae
from hbae.errors import UnfitModelError

pytest.importorskip("torch")
DIMS = ("t", "y", "x")


def field(u_dims: tuple[str, ...] = DIMS, u_type: str = "f4", length: int = 16, **names: str) -> xr.Dataset:
    """Two variables of one grid, or not quite."""
    rng = np.random.default_rng(0)
    t, u = (np.cumsum(rng.normal(size=(length, 16, 16)), axis=2) + 50 for _ in range(2))
    return xr.Dataset({"T": (DIMS, t.astype("f4")), "U": (u_dims, u.astype(u_type))}).rename(names)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    field().to_netcdf(folder / "a.nc")
    hbae.train(folder / "a.nc", folder / "m.hbm", budget="1ep")
    return folder / "m.hbm"


CASES = {
    "another name": (field(U="V"), "nrmse=1e-2", "U not among the lossy variables"),
    "another type": (field(u_type="f8"), "nrmse=1e-2", "not all lossy together on one grid"),
    "other dimensions": (field(u_dims=("t", "y", "z")), "nrmse=1e-2", "not all lossy together on one grid"),
    "another kind of bound": (field(), ["T:nrmse=1e-2", "U:pw_rel=1e-2"], "not all lossy together on one grid"),
    "logarithms": (field(), "pw_rel=1e-2", "no model codes pw_rel"),
    "a short axis": (field(length=1), "nrmse=1e-2", "do not fit variables of shape (1, 16, 16)"),
    "without loss": (field(), ["T:nrmse=1e-2"], "U not among the lossy variables"),
}


@pytest.mark.parametrize("case", CASES)
def test_auto_goes_on_without_it(case: str, model: Path, tmp_path: Path) -> None:
    ds, bound, why = CASES[case]
    report = hbae.compress(ds, tmp_path / "a.hbae", bound, model=model)
    assert len([n for n in report.notes if why in n and n.startswith("model m.hbm: ")]) == 1
    hbae.compress(ds, tmp_path / "b.hbae", bound)
    assert (tmp_path / "a.hbae").read_bytes() == (tmp_path / "b.hbae").read_bytes()
    with pytest.raises(UnfitModelError, match="model m"):
        hbae.compress(ds, tmp_path / "c.hbae", bound, model=model, method="hbae")
    assert not (tmp_path / "c.hbae").exists()


def test_a_fitting_one_is_weighed(model: Path, tmp_path: Path) -> None:
    report = hbae.compress(field(), tmp_path / "a.hbae", "nrmse=1e-2", model=model)
    assert "was weighed" in " ".join(report.notes)
