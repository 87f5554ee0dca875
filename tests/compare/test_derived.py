# SPDX-License-Identifier: MIT
"""Quantities of rivals: the same points for all, and none where a rival lacks a variable that one needs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from hbae.compare.derived import table_of
from hbae.compare.run import CompareOptions, compare_file
from hbae.compare.tally import QuantityRow

pytest.importorskip("hdf5plugin")
LAT, LON, TIMES = 40, 36, 6


def field(shift: float, seed: int) -> np.ndarray:
    """A smooth positive field with noise, float32."""
    t, y, x = np.meshgrid(np.arange(TIMES) / 5, np.arange(LAT) / 9, np.arange(LON) / 9, indexing="ij")
    noise = np.random.default_rng(seed).normal(0, 0.02, t.shape)
    return (2 + np.sin(x + t + shift) * np.cos(y) + noise).astype("f4")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a file with two mass fractions, one of them in float64, and a declared fill value and a NaN in OH."""
    dims = ("time", "lat", "lon")
    oh = field(0, 1)
    oh[:, 5:9, 3], oh[2, 20, 20] = -99, np.nan
    ds = xr.Dataset({"Y_OH": (dims, oh), "Y_CH2O": (dims, field(1, 2).astype("f8"))})
    ds = ds.assign_coords(lat=np.linspace(-60, 60, LAT))
    path = tmp_path_factory.mktemp("derived") / "y.nc"
    # The codec of EBCC takes float32 only, so that it lacks CH2O.
    ds.to_netcdf(path, encoding={"Y_OH": {"_FillValue": -99.0}, "Y_CH2O": {"_FillValue": None}})
    return path


def quantities(source: Path, *rivals: str) -> list[dict[str, QuantityRow]]:
    """Give the quantities of hbae and of rivals at 1e-2."""
    names = ("mass_fractions", "area_mean", "gradient")
    options = CompareOptions(bounds=(1e-2,), rivals=rivals, qoi=names, method="linear")
    return [{q.name: q for q in r.quantities} for r in compare_file(source, options).rows[0]]


def test_missing_points_count_for_nobody(source: Path) -> None:
    hbae, zfp = quantities(source, "zfp")
    assert list(hbae) == list(zfp)
    for name, q in hbae.items():
        assert (q.before, q.count) == (zfp[name].before, zfp[name].count)
        assert 0 < q.relative < 1, name
        assert 0 < zfp[name].relative < 1, name
    assert hbae["sum of Y"].count == TIMES * (LAT * LON - 4) - 1


def test_a_rival_without_a_variable_has_no_quantity_of_it(source: Path) -> None:
    pytest.importorskip("numcodecs_wasm_ebcc")
    hbae, ebcc = quantities(source, "ebcc")
    assert set(ebcc) == {"area mean of Y_OH", "gradient of Y_OH"} < set(hbae)


def test_the_table_has_a_column_for_each_coder(source: Path) -> None:
    options = CompareOptions(bounds=(1e-2,), rivals=("zfp", "zstd"), qoi=("gradient",), method="linear")
    head, body = table_of(compare_file(source, options).rows[0])
    assert head == ["quantity", "before", "hbae", "ZFP"]
    assert [line[0] for line in body] == ["gradient of Y_OH", "gradient of Y_CH2O"]
    assert all(cell.endswith(")") for line in body for cell in line[2:])


def test_north_is_up(source: Path, tmp_path: Path) -> None:
    options = CompareOptions(bounds=(1e-2,), rivals=("zfp",), variables=("Y_CH2O",), method="linear")
    pictures = []
    with xr.open_dataset(source) as ds:
        for name, rows in (("south.nc", slice(None)), ("north.nc", slice(None, None, -1))):
            ds.isel(lat=rows, time=slice(1)).to_netcdf(tmp_path / name)
            pictures.append(compare_file(tmp_path / name, options).picture)
    assert pictures[0] is not None
    assert pictures[1] is not None
    assert np.array_equal(pictures[0].original, pictures[1].original)
    for p in pictures:
        for decoded in p.decoded.values():
            assert np.abs(decoded - p.original).max() < 0.2
