# SPDX-License-Identifier: MIT
"""Quantities of interest, box by box, against formulas over whole arrays written another way."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import hbae
from hbae.arrays import Array
from hbae.compare import tally
from hbae.compare.quantities import ENTHALPY, quantities
from hbae.compare.tally import QuantityRow
from hbae.errors import ConfigError, HbaeError

RNG = np.random.default_rng(8)


@pytest.fixture(autouse=True)
def _small_boxes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tally, "MOST_POINTS", 700)


def rows_of(
    ds: xr.Dataset, tmp_path: Path, name: str, bound: str = "nrmse=3e-2"
) -> tuple[dict[str, QuantityRow], xr.Dataset]:
    """Compress in many chunks; gives the rows and what was decoded."""
    path = tmp_path / "a.hbae"
    hbae.compress(ds, path, bound, method="linear", chunk=0.0625)
    return {r.name: r for r in quantities(path, ds, [name])}, hbae.decompress(path)


def check(row: QuantityRow, before: Array, after: Array, scale: float | None = None) -> None:
    """Hold a row against the quantity before and after as whole arrays."""
    x, y = np.asarray(before, "f8").ravel(), np.asarray(after, "f8").ravel()
    ok = ~np.isnan(x)
    x, y = x[ok], y[ok]
    rmse = math.sqrt(math.fsum((y - x) ** 2) / len(x))
    assert row.count == len(x)
    assert row.before == pytest.approx(math.fsum(x) / len(x), rel=1e-9)
    assert row.after == pytest.approx(math.fsum(y) / len(x), rel=1e-9)
    assert row.rmse == pytest.approx(rmse, rel=1e-6)
    assert row.rmse > 0
    assert row.relative == pytest.approx(rmse / (scale or (x.max() - x.min())), rel=1e-6)
    assert row.max_error == pytest.approx(abs(y - x).max(), rel=1e-6)


def noisy(*shape: int) -> Array:
    """A smooth positive field with noise, float32."""
    grids = np.meshgrid(*(np.linspace(0, 2, n) for n in shape), indexing="ij")
    return (2 + np.sin(sum(grids)) + RNG.normal(0, 0.1, shape)).astype("f4")


def plasma() -> xr.Dataset:
    """Drifting Maxwellians on uneven velocity grids, parallel velocity first."""
    par, perp = np.linspace(-4, 4, 23) ** 3 / 16, np.linspace(0, 4, 17)
    n, u, t = (RNG.uniform(a, b, (3, 25, 1, 1)) for a, b in ((1, 2), (-0.5, 0.5), (0.7, 1.2)))
    f = n / (2 * math.pi * t) ** 1.5 * np.exp(-((par[:, None] - u) ** 2 + perp**2) / (2 * t))
    dims = ("plane", "node", "v_par", "v_perp")
    return xr.Dataset({"f": (dims, f)}, coords={"v_par": par, "v_perp": perp})


def test_moments(tmp_path: Path) -> None:
    ds = plasma()
    rows, back = rows_of(ds, tmp_path, "moments", "nrmse=1e-3")

    def moments(d: xr.Dataset) -> list[xr.DataArray]:
        f = d.f * 2 * np.pi * d.v_perp
        n = f.integrate("v_par").integrate("v_perp")
        u = (f * d.v_par).integrate("v_perp").integrate("v_par") / n
        own = (d.v_par - u) ** 2 + d.v_perp**2
        return [n, u, (f * own).integrate("v_perp").integrate("v_par") / n / 3]

    for name, x, y in zip(("density", "flow", "temperature"), moments(ds), moments(back), strict=True):
        check(rows[f"{name} of f"], x.values, y.values)
    assert 1 < rows["density of f"].before < 2
    assert 0.6 < rows["temperature of f"].before < 1.2


def test_mass_fractions(tmp_path: Path) -> None:
    names = ["OH", "CH2O", "H2O", "XYZ"]
    ds = xr.Dataset({f"Y_{k}": (("t", "y", "x"), noisy(5, 24, 30) / 12) for k in names})
    ds["T"] = ds.Y_OH * 1000
    ds.Y_OH.values[2, 3, 4] = np.nan
    rows, back = rows_of(ds, tmp_path, "mass_fractions")
    sums = [sum(d[f"Y_{k}"] for k in names).values.astype("f8") for d in (ds.astype("f8"), back.astype("f8"))]
    check(rows["sum of Y"], *sums)
    heats = [
        sum(1e6 * ENTHALPY[k][0] / ENTHALPY[k][1] * d[f"Y_{k}"] for k in names[:3]).values
        for d in (ds.astype("f8"), back.astype("f8"))
    ]
    check(rows["chemical enthalpy (J/kg)"], *heats)
    check(
        rows["heat release (Y_CH2O Y_OH)"], *((d.Y_OH * d.Y_CH2O).values for d in (ds.astype("f8"), back.astype("f8")))
    )


@pytest.mark.parametrize("order", [("t", "lat", "lon"), ("lon", "t", "lat")])
def test_area_means_by_latitude(order: tuple[str, ...], tmp_path: Path) -> None:
    ds = xr.Dataset({"P": (("t", "lat", "lon"), noisy(9, 18, 26))}, coords={"lat": np.linspace(-85, 85, 18)})
    ds.P.values[:, 2:4, 5] = np.nan
    ds = ds.transpose(*order)
    rows, back = rows_of(ds, tmp_path, "area_mean")
    w = np.cos(np.deg2rad(ds.lat))
    means = [d.P.astype("f8").weighted(w).mean(("lat", "lon")).values for d in (ds, back)]
    check(rows["area mean of P"], *means)


def test_area_means_by_area(tmp_path: Path) -> None:
    area = RNG.uniform(1, 3, 500)
    ds = xr.Dataset({"P": (("t", "lev", "ncol"), noisy(4, 3, 500)), "area": (("ncol",), area)})
    path = tmp_path / "a.hbae"
    hbae.compress(ds, path, "P:nrmse=3e-2", method="linear", chunk=0.0625)
    (row,) = quantities(path, ds, ["area_mean"])
    means = [np.einsum("tln,n->tl", d.P.values.astype("f8"), area) / area.sum() for d in (ds, hbae.decompress(path))]
    check(row, *means)


def test_gradients(tmp_path: Path) -> None:
    ds = xr.Dataset({"P": (("t", "y", "x"), noisy(7, 40, 50)), "Q": (("z",), noisy(4000))})
    ds.P.values[3, 5:8, 9] = np.nan
    rows, back = rows_of(ds, tmp_path, "gradient")
    for k in "PQ":
        x, y = ds[k].values.astype("f8"), back[k].values.astype("f8")
        a, b = (np.concatenate([np.diff(z, axis=i).ravel() for i in range(z.ndim)]) for z in (x, y))
        ok = ~np.isnan(a)
        a, b = a[ok], b[ok]
        row = rows[f"gradient of {k}"]
        assert row.count == len(a)
        rms = [math.sqrt(math.fsum(z * z) / len(z)) for z in (a, b, b - a)]
        assert [row.before, row.after, row.rmse] == pytest.approx(rms, rel=1e-9)
        assert row.relative == pytest.approx(rms[2] / rms[0], rel=1e-9)
        assert row.max_error == abs(b - a).max()


def test_packed_values_are_unpacked(tmp_path: Path) -> None:
    raw = RNG.integers(0, 1000, (20, 30)).astype("i2")
    raw[3, 4] = -1
    ds = xr.Dataset({"P": (("lat", "lon"), raw, {"scale_factor": 0.5, "add_offset": 7.0, "_FillValue": np.int16(-1)})})
    ds = ds.assign_coords(lat=np.linspace(-40, 40, 20))
    rows, back = rows_of(ds, tmp_path, "area_mean", "P:abs=9")
    w = np.cos(np.deg2rad(ds.lat))
    x, y = (d.P.where(ds.P != -1).astype("f8") * 0.5 + 7 for d in (ds, back))
    assert rows["area mean of P"].before == pytest.approx(float(x.weighted(w).mean()), rel=1e-9)
    assert rows["area mean of P"].after == pytest.approx(float(y.weighted(w).mean()), rel=1e-9)


def test_what_is_not_there_is_refused(tmp_path: Path) -> None:
    ds, path = xr.Dataset({"P": (("y", "x"), noisy(30, 40))}), tmp_path / "a.hbae"
    hbae.compress(ds, path, "nrmse=1e-2", method="linear")
    with pytest.raises(ConfigError, match="unknown 'mass'; known: moments, mass_fractions, area_mean, gradient"):
        quantities(path, ds, ["mass"])
    for name in ("moments", "mass_fractions", "area_mean"):
        with pytest.raises(HbaeError, match=f"qoi {name}: no lossy variable has what it needs"):
            quantities(path, ds, [name])
