# SPDX-License-Identifier: MIT
"""Bounds by region hold on decoded values inside and outside, whatever the mask looks like."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import hbae
from hbae.arrays import Array
from hbae.config import ErrorBound, parse_rule
from hbae.errors import ConfigError, HbaeError
from hbae.pipeline.archive import Archive

DIMS = ("t", "y", "x")
SHAPE = (6, 20, 28)


def masks() -> dict[str, tuple[tuple[str, ...], Array]]:
    """Hostile regions: of every type and set of dimensions, empty, full, scattered."""
    rng = np.random.default_rng(2)
    half = np.zeros(SHAPE[1:], "i2")
    half[:, :9] = -3
    some = np.where(rng.random(SHAPE) < 0.02, 1.0, np.nan)
    some[0] = 0.0
    return {
        "empty": (DIMS[1:], np.zeros(SHAPE[1:], bool)),
        "full": (DIMS, np.ones(SHAPE, "u1")),
        "nan": (DIMS[1:], np.full(SHAPE[1:], np.nan, "f4")),
        "half": (DIMS[1:], half),
        "board": (DIMS, (np.indices(SHAPE).sum(0) % 2).astype(bool)),
        "some": (DIMS, some),
        "times": (DIMS[:1], np.array([0, 1, 0, 0, 2, 0], "i8")),
        "scalar": ((), np.array(1.0)),
    }


def field(mask: str, dtype: str = "f4") -> xr.Dataset:
    """A rough field with NaN and zeros beside a mask."""
    rng = np.random.default_rng(4)
    x = np.cumsum(rng.normal(0, 1, SHAPE), axis=2) + 3
    x[2, 3, 4:9] = np.nan
    x[1, 5, 6:20] = 0.0
    return xr.Dataset({"T": (DIMS, x.astype(dtype)), "m": masks()[mask]})


def inside(ds: xr.Dataset) -> Array:
    """The region on the grid of T, by xarray's own alignment of names."""
    m = (ds.m.astype("f8").fillna(0) != 0).broadcast_like(ds["T"])
    return np.asarray(m.transpose(*DIMS).values)


@pytest.mark.parametrize("mask", list(masks()))
@pytest.mark.parametrize("bounds", ["abs=0.01@m,abs=0.5", "rel_range=1e-4@m,nrmse=1e-2", "pw_rel=1e-4@m,pw_rel=0.05"])
def test_both_bounds_hold(mask: str, bounds: str, tmp_path: Path) -> None:
    ds, path = field(mask), tmp_path / "a.hbae"
    hbae.compress(ds, path, f"T:{bounds}", method="linear", chunk=0.0625, block=(2, 4, 4))
    x, y = ds["T"].values.astype("f8"), hbae.decompress(path)["T"].values.astype("f8")
    ok = np.isfinite(x)
    assert (np.isfinite(y) == ok).all()
    e, region = np.abs(y - x)[ok], inside(ds)[ok]
    near, size, span = e[region], np.abs(x[ok]), x[ok].max() - x[ok].min()
    if bounds.startswith("abs"):
        assert near.max(initial=0) <= 0.01
        assert e.max() <= 0.5
        assert e[~region].max(initial=1) > 0.1 or region.mean() > 0.4
    elif bounds.startswith("rel_range"):
        assert near.max(initial=0) <= 1e-4 * span
        assert np.sqrt((e * e).mean()) <= 1e-2 * span
    else:
        assert (near <= 1e-4 * size[region]).all()
        assert (e <= 0.05 * size).all()
    assert hbae.verify(path, ds).ok
    assert hbae.verify(path).ok


@pytest.mark.parametrize("loose", ["abs=0.5", "nrmse=1e-2"])
def test_a_small_region_costs_little(loose: str, tmp_path: Path) -> None:
    ds = field("half").assign(m=((*DIMS[1:],), np.pad(np.ones((4, 4), bool), ((0, 16), (0, 24)))))
    sizes = [
        hbae.compress(ds, tmp_path / f"{i}.hbae", f"T:{b}", method="linear", chunk=0.0625, block=(2, 4, 4)).size
        for i, b in enumerate((loose, f"abs=0.01@m,{loose}", "abs=0.01"))
    ]
    assert sizes[0] <= sizes[1] < 0.75 * sizes[2]


def test_the_bytes_do_not_depend_on_the_number_of_workers(tmp_path: Path) -> None:
    ds = field("half")
    for k in (1, 2):
        hbae.compress(
            ds,
            tmp_path / f"{k}.hbae",
            "T:abs=0.02@m,abs=0.5",
            method="linear",
            chunk=0.0625,
            block=(2, 4, 4),
            threads=k,
        )
    assert (tmp_path / "1.hbae").read_bytes() == (tmp_path / "2.hbae").read_bytes()


def test_verify_judges_by_region(tmp_path: Path) -> None:
    ds, path = field("half"), tmp_path / "a.hbae"
    hbae.compress(ds, path, "T:abs=0.01@m,abs=0.5", method="linear")
    assert hbae.info(path)["groups"][0]["bounds"] == [["abs=0.5", "abs=0.01@m"]]
    with Archive(path) as archive:
        assert archive.plan(0).bounds == ((ErrorBound("abs", 0.5), ErrorBound("abs", 0.01, "m")),)
    for place, good in (((3, 4, 20), True), ((3, 4, 5), False)):
        moved = ds.copy(deep=True)
        moved["T"].values[place] += 0.05
        failures = hbae.verify(path, moved).failures
        assert failures == (() if good else ("T: a point misses its bound",))
    found = hbae.verify(path, ds.drop_vars("m").assign(k=ds.m)).failures
    assert any("m: not in the original" in f for f in found)


def test_a_declared_fill_value_is_outside(tmp_path: Path) -> None:
    ds, path = field("half"), tmp_path / "a.hbae"
    ds.m.attrs["_FillValue"] = np.int16(-3)
    r = hbae.compress(ds, path, "T:abs=0.001@m,abs=0.5", method="linear")
    assert r.variables[0].max_error > 0.3
    assert hbae.verify(path, ds).ok


def test_regions_and_a_size(tmp_path: Path) -> None:
    ds, path = field("half"), tmp_path / "a.hbae"
    r = hbae.compress(ds, path, "T:abs=0.1@m,abs=1", method="linear", cr=3)
    assert r.cr >= 3
    (rest, region) = (float(b.partition("=")[2].partition("@")[0]) for b in r.variables[0].bounds[::-1])
    assert region == pytest.approx(0.1 * rest, rel=1e-3)
    assert hbae.verify(path, ds).ok


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ("T:nrmse=1e-3@m,abs=1", "nrmse cannot be bounded by region; kinds that can: abs, rel_range, pw_rel"),
        ("T:psnr=40@m,abs=1", "psnr cannot be bounded by region"),
        ("T:l2=4@m,abs=1", "l2 cannot be bounded by region"),
        ("T:block_nrmse=0.1@m,abs=1", "block_nrmse cannot be bounded by region"),
        ("T:abs=1@m", "leaves the rest without a bound"),
        ("T:pw_rel=0.1@m,abs=1", "needs a pw_rel bound for the rest"),
        ("T:abs=1@none,abs=2", "there is no variable none"),
        ("T:abs=1@wrong,abs=2", "does not fit"),
        ("T:abs=1@text,abs=2", "a region is a bool, integer or float variable"),
        ("T:abs=1@m,abs=2@m,abs=3", "abs is given twice"),
        ("T:abs=1@,abs=3", "empty name"),
        ("T:abs=1@U,abs=3", "U is lossy itself"),
    ],
)
def test_what_makes_no_sense_is_refused(spec: str, text: str, tmp_path: Path) -> None:
    ds = field("half").assign(
        wrong=(("x", "y"), np.ones((28, 20))), text=(("y",), np.array(["a"] * 20, object)), U=field("half")["T"]
    )
    with pytest.raises(HbaeError, match=text) as caught:
        hbae.compress(ds, tmp_path / "a.hbae", [spec, "U:abs=1"])
    assert caught.value.exit_code == 2


def test_a_float_mask_stays_as_it_is_under_the_default(tmp_path: Path) -> None:
    ds = field("some")
    r = hbae.compress(ds, tmp_path / "a.hbae", "abs=0.1@m,abs=1", method="linear")
    assert [v.path for v in r.variables] == ["T"]
    assert hbae.decompress(tmp_path / "a.hbae").m.identical(ds.m)


def test_rules_are_read() -> None:
    assert parse_rule("T:abs=0.1@ocean/mask,abs=1").bounds == (
        ErrorBound("abs", 0.1, "ocean/mask"),
        ErrorBound("abs", 1.0),
    )
    assert str(ErrorBound("abs", 0.1, "m")) == "abs=0.1@m"
    with pytest.raises(ConfigError, match="not a number"):
        parse_rule("abs=@m")


def test_any_model_holds_bounds_by_region(bad_model: Callable[[str], None], tmp_path: Path) -> None:
    bad_model("untrained")
    ds = field("half")
    hbae.compress(ds, tmp_path / "a.hbae", "T:abs=0.01@m,abs=0.5", method="hbae")
    assert hbae.verify(tmp_path / "a.hbae", ds).ok


@pytest.mark.parametrize("keep", ["masks are kept", "masks are read chunk by chunk"])
@pytest.mark.parametrize("packed", [False, True])
def test_regions_of_many_chunks(keep: str, packed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every chunk has its own part of the mask; a packed mask counts unpacked (stored zeros are inside)."""
    if keep != "masks are kept":
        monkeypatch.setattr("hbae.pipeline.regions._KEEP_POINTS", 0)
    shape = (24, 20, 36)
    rng = np.random.default_rng(6)
    mask = np.zeros(shape, "i2")
    mask[13:, 11:, 20:] = 1
    mask[5, 2:4, ::3] = 1
    stored = mask - np.int16(1) if packed else mask
    attrs = {"scale_factor": 2.0, "add_offset": 2.0} if packed else {}
    ds = xr.Dataset({"T": (DIMS, rng.normal(size=shape)), "m": (DIMS, stored, attrs)})
    path = tmp_path / "a.hbae"
    hbae.compress(ds, path, "T:abs=1e-3@m,abs=0.5", method="linear", chunk=0.0625)
    with Archive(path) as a:
        assert len(a.parts[0].boxes) > 2
    error = np.abs(hbae.decompress(path)["T"].values - ds["T"].values)
    assert error[mask == 1].max() <= 1e-3
    assert error.max() <= 0.5
    assert error[mask == 0].max() > 1e-2, "the region's limit is not meant for the rest"
    assert hbae.verify(path, ds).ok
    other = ds.copy(deep=True)
    other["T"].values[-1, -1, -1] += 0.1
    assert not hbae.verify(path, other).ok
