# SPDX-License-Identifier: MIT
"""Datasets as fields and fields as lazy Datasets."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import hbae
from hbae.errors import FieldError, UnknownNameError
from hbae.io import open_field, same_field, to_dataset, write_field


def _nasty() -> xr.Dataset:
    ds = xr.Dataset(
        {
            "T": (("t", "x"), np.arange(6, dtype=">f4").reshape(2, 3), {"units": "K", "valid": np.float32(3), "n": 3}),
            "flag": ("x", np.array([True, False, True]), {"ok": True, "none": None, "d": {"a": 1}, "l": [1, 2]}),
            "name": ("x", np.array(["a", "h\u00e9", ""], object)),
            "fixed": ("x", np.array(["ab", "c", ""], "U3")),
            "bytes": ("x", np.array([b"a", b"", b"xy"], "S2")),
            "step": ("t", np.array([1, 2], "m8[s]")),
            "scalar": np.float64(-0.0),
            "empty": (("e", "x"), np.zeros((0, 3), "f2")),
            "z": ("x", np.array([1j, 2, np.nan], "c8"), {"t": (1, 2), "w": [1, "a"], "vec": np.array([1, 2], "i2")}),
        },
        coords={
            "t": np.array(["2000-01-01", "NaT"], "M8[ns]"),
            "x": [3, 1, 2],
            "lat": ("x", np.array([1.0, np.nan, 3.0])),
            "run": "first",
        },
        attrs={"title": "x", "n": 3, "f": 1.5, "np": np.int16(3), "list": ["a", "b"], "b": b"raw"},
    )
    ds["T"].encoding = {"_FillValue": np.float32(-1), "zlib": True, "chunksizes": (1, 3), "dtype": np.dtype("i2")}
    ds["t"].encoding = {"units": "days since 2000-01-01", "calendar": "standard"}
    ds.encoding = {"unlimited_dims": {"t"}}
    return ds


def _same_dataset(a: xr.Dataset, b: xr.Dataset) -> None:
    xr.testing.assert_identical(a, b)
    assert list(a.variables) == list(b.variables) or set(a.variables) == set(b.variables)
    assert list(a.sizes) == list(b.sizes)
    for name in a.variables:
        x, y = a[name], b[name]
        assert x.dtype == y.dtype, name
        assert x.values.tobytes() == y.values.tobytes() or x.dtype == object
        assert {k: type(v) for k, v in x.attrs.items()} == {k: type(v) for k, v in y.attrs.items()}
    assert {k: type(v) for k, v in a.attrs.items()} == {k: type(v) for k, v in b.attrs.items()}


def test_dataset_comes_back() -> None:
    ds = _nasty()
    field = open_field(ds)
    back = to_dataset(field)
    _same_dataset(ds, back)
    assert back["T"].encoding["_FillValue"] == np.float32(-1)
    assert back["t"].encoding["units"] == "days since 2000-01-01"
    assert same_field(field, open_field(back)) == []
    _same_dataset(ds, pickle.loads(pickle.dumps(back)))


def test_dataset_comes_back_from_an_archive(tmp_path: Path) -> None:
    """Dates, durations, text, bytes, scalars and byte orders, in memory at once or read when asked for."""
    ds = _nasty()
    hbae.compress(ds, tmp_path / "a.hbae", method="lossless")
    with hbae.open(tmp_path / "a.hbae") as lazy:
        for back in (hbae.decompress(tmp_path / "a.hbae"), lazy.load()):
            xr.testing.assert_identical(back, ds)
            assert {n: v.dtype for n, v in back.variables.items()} == {n: v.dtype for n, v in ds.variables.items()}


def test_dataset_without_index() -> None:
    ds = _nasty().drop_indexes("x")
    assert set(to_dataset(open_field(ds)).xindexes) == {"t"}


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ({"a": ("x", np.array([1, "a"], object))}, "a: an object of type int among the strings"),
        ({"a": ("x", pd.Categorical(["a", "b"]))}, "a: values of the extension type"),
        ({"a": ("x", np.zeros(2), {"f": open})}, "a: attribute 'f': a value of type builtin_function_or_method"),
        ({3: ("x", np.zeros(2))}, "the name 3 of a Dataset"),
    ],
)
def test_dataset_refusals(key: Any, message: str) -> None:
    with pytest.raises(FieldError, match=message):
        to_dataset(open_field(xr.Dataset(key))).load()


def test_multi_index_is_refused() -> None:
    index = pd.MultiIndex.from_arrays([[1, 2], [3, 4]], names=["a", "b"])
    ds = xr.Dataset(coords=xr.Coordinates.from_pandas_multiindex(index, "x"))
    with pytest.raises(FieldError, match="a multi-index cannot be kept"):
        open_field(ds)


def test_data_array() -> None:
    array = xr.DataArray(np.arange(3.0), dims="x", name="a", coords={"x": [1, 2, 3]})
    xr.testing.assert_identical(to_dataset(open_field(array))["a"], array)
    with pytest.raises(FieldError, match="a DataArray without a name"):
        open_field(array.rename(None))


@pytest.mark.parametrize("suffix", [".nc", ".zarr", ".h5"])
def test_dates_are_decoded_again(tmp_path: Path, suffix: str) -> None:
    ds = xr.Dataset(
        {"a": ("t", [1.0, 2.0, 3.0])}, coords={"t": np.array(["2000-01-01T01", "1900-01-01", "2262"], "M8[ns]")}
    )
    ds["d"] = ("t", np.array([1, 2, 3], "m8[ns]"))
    write_field(open_field(ds), tmp_path / f"a{suffix}")
    again = xr.decode_cf(to_dataset(open_field(tmp_path / f"a{suffix}")))
    assert again["t"].values.astype("M8[ns]").tolist() == ds["t"].values.tolist()
    if suffix == ".nc":
        with xr.open_dataset(tmp_path / "a.nc", decode_timedelta=True) as opened:
            xr.testing.assert_equal(opened, ds)


def test_lazy_indexing(tmp_path: Path) -> None:
    values = np.arange(4 * 5 * 6, dtype="f4").reshape(4, 5, 6)
    xr.Dataset({"a": (("x", "y", "z"), values)}).to_netcdf(tmp_path / "a.nc", engine="netcdf4")
    a = to_dataset(open_field(tmp_path / "a.nc"))["a"]
    assert not a.variable._in_memory
    for key in (
        (slice(None, None, -1),), (1,), (-1, slice(4, 1, -2)), (slice(0, 0),), ([3, 0, 0], slice(None), [5, 1]),
        (slice(1, 4, 2), slice(None), slice(-3, None)), (slice(10, 20),),
    ):  # fmt: skip
        want = values[np.ix_(key[0], range(5), key[2])] if isinstance(key[0], list) else values[key]
        assert a[key].values.tolist() == want.tolist()
    points = a.isel(x=xr.DataArray([0, 3], dims="p"), y=xr.DataArray([4, 0], dims="p"))
    assert points.values.tolist() == values[[0, 3], [4, 0]].tolist()
    assert a[1:3][0, ::-1][2:].values.tolist() == values[1:3][0, ::-1][2:].tolist()
    with pytest.raises(UnknownNameError, match="no group 'g'"):
        to_dataset(open_field(tmp_path / "a.nc"), "g")


def test_an_opened_dataset_stays_lazy_and_comes_back(tmp_path: Path) -> None:
    ds = xr.Dataset(
        {"a": (("t", "x"), np.array([[1.0, np.nan], [3, 4]]), {"units": "K"})},
        coords={"t": np.array(["2000-01-01", "2000-01-02"], "M8[ns]"), "x": ["u", "v"]},
    )
    packed = {"a": {"dtype": "i2", "scale_factor": 0.5, "_FillValue": -1}}
    ds.to_netcdf(tmp_path / "a.nc", engine="netcdf4", encoding=packed, unlimited_dims=["t"])
    with xr.open_dataset(tmp_path / "a.nc") as opened:
        field = open_field(opened)
        assert field.dims_of("")["t"].unlimited
        assert field.variable("a").source.read((slice(0, 1), slice(0, 1))).tolist() == [[1.0]]
        assert not opened["a"].variable._in_memory
        back = to_dataset(field)
        assert back["a"].encoding["scale_factor"] == 0.5
        assert back["a"].encoding["dtype"] == np.dtype("i2")
        xr.testing.assert_identical(back.load(), ds)


@pytest.mark.parametrize("engine", ["netcdf4", "scipy"])
def test_files_open_as_xarray_opens_them(tmp_path: Path, engine: Any) -> None:
    ds = xr.Dataset({"a": ("x", np.arange(3.0), {"u": "m"})}, coords={"x": [1, 2, 3], "lat": ("x", [1.0, 2, 3])})
    ds.to_netcdf(tmp_path / "a.nc", engine=engine)
    with xr.open_dataset(tmp_path / "a.nc", decode_cf=False, engine=engine) as want:
        xr.testing.assert_identical(to_dataset(open_field(tmp_path / "a.nc")), want)


def test_dataset_to_files_and_back(tmp_path: Path) -> None:
    ds = _nasty()
    for name in ("flag", "empty"):
        with pytest.raises(FieldError, match="netCDF"):
            write_field(open_field(ds[[name]]), tmp_path / "a.nc")
    for suffix in (".zarr", ".h5"):
        write_field(open_field(ds), tmp_path / f"a{suffix}")
        field = open_field(tmp_path / f"a{suffix}")
        write_field(field, tmp_path / f"b{suffix}")
        assert same_field(field, open_field(tmp_path / f"b{suffix}")) == []
        back = to_dataset(field)
        for name in ("T", "flag", "name", "fixed", "bytes", "empty", "z"):
            assert back[name].values.tolist() == ds[name].values.tolist() or name == "z"
            assert back[name].dims == ds[name].dims
        assert back["T"].dtype == np.dtype(">f4")
        assert field.dims_of("")["t"].unlimited


@pytest.mark.parametrize("names", [("b", "a", "c"), ("c", "b", "a"), ("a", "b", "c")])
def test_dimensions_keep_their_order(names: tuple[str, ...], tmp_path: Path) -> None:
    ds = xr.Dataset({"v": (names, np.zeros((2, 3, 4)))})
    field = open_field(ds)
    assert [d.name for d in field.groups[0].dims] == list(ds.sizes) == list(names)
    write_field(field, tmp_path / "a.nc")
    assert [d.name for d in open_field(tmp_path / "a.nc").groups[0].dims] == list(names)
    assert list(to_dataset(field).sizes) == list(names)
