# SPDX-License-Identifier: MIT
"""Streams without chemistry: repeatable, streamed in pieces, and files that hold what was promised."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import netCDF4
import numpy as np
import pytest

from hbae.errors import ConfigError, FieldError, OutputExistsError
from hbae.synth import E3SMConfig, Stream, XGCConfig, e3sm_stream, write_stream, xgc_stream
from hbae.synth.e3sm import FILL, RedNoise, make_globe
from hbae.synth.xgc import moments, velocity_axes

XGC = XGCConfig(planes=3, nodes=50, piece_nodes=32)
E3SM = E3SMConfig(steps=12, nlat=36, nlon=72)
MAKERS = {
    "xgc": lambda seed: xgc_stream(replace(XGC, seed=seed)),
    "e3sm": lambda seed: e3sm_stream(replace(E3SM, seed=seed)),
}
SCRIPTS = Path(__file__).parents[2] / "scripts"


def run_script(name: str, *args: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPTS / name), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("kind", MAKERS)
def test_same_seed_gives_the_same_bits_and_another_seed_others(kind: str) -> None:
    stream = MAKERS[kind](3)
    first, again, other = stream.whole(), MAKERS[kind](3).whole(), MAKERS[kind](4).whole()
    twice = stream.whole()
    for name, x in first.items():
        assert x.tobytes() == again[name].tobytes() == twice[name].tobytes()
        assert x.tobytes() != other[name].tobytes()


@pytest.mark.parametrize("kind", MAKERS)
def test_pieces_tile_the_whole_and_none_is_all_of_it(kind: str) -> None:
    stream = MAKERS[kind](0)
    seen = np.zeros(stream.shape, np.uint8)
    count = 0
    for box, values in stream.pieces():
        count += 1
        seen[box] += 1
        assert set(values) == {v.name for v in stream.variables}
        for v in stream.variables:
            assert values[v.name].shape == seen[box].shape
            assert values[v.name].dtype == np.dtype(v.dtype)
            assert values[v.name].size < seen.size
    assert count == stream.count > 1
    assert (seen == 1).all()


@pytest.mark.parametrize("deflate", [0, 4])
@pytest.mark.parametrize("kind", MAKERS)
def test_the_file_holds_the_stream(kind: str, deflate: int, tmp_path: Path) -> None:
    stream = MAKERS[kind](0)
    ticks: list[tuple[int, int]] = []
    path = write_stream(stream, tmp_path / "a.nc", deflate=deflate, progress=lambda *t: ticks.append(t))
    whole = stream.whole()
    with netCDF4.Dataset(path) as ds:
        ds.set_auto_maskandscale(False)
        assert {k: d.size for k, d in ds.dimensions.items()} == dict(stream.dims)
        assert ds.seed == 0
        for v in stream.variables:
            got = ds[v.name]
            assert got.dimensions == tuple(stream.dims)
            assert (got.units, got.long_name) == (v.units, v.long_name)
            assert got[:].tobytes() == whole[v.name].tobytes()
            assert got.filters()["complevel"] == deflate
            assert (got.chunking() == "contiguous") == (deflate == 0)
        for name, (values, units) in stream.coords.items():
            assert ds[name].units == units
            assert np.array_equal(ds[name][:], values)
    assert ticks == [(i + 1, stream.count) for i in range(stream.count)]
    assert list(tmp_path.iterdir()) == [path]


def test_an_existing_output_is_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.nc"
    path.write_bytes(b"mine")
    with pytest.raises(OutputExistsError):
        write_stream(MAKERS["xgc"](0), path)
    assert path.read_bytes() == b"mine"
    write_stream(MAKERS["xgc"](0), path, overwrite=True)
    assert path.stat().st_size > 1000


def test_a_failing_stream_leaves_nothing(tmp_path: Path) -> None:
    good = MAKERS["xgc"](0)
    bad: Stream = replace(good, pieces=lambda: ((box, {}) for box, _ in good.pieces()))
    with pytest.raises(FieldError, match="i_f"):
        write_stream(bad, tmp_path / "a.nc")
    with pytest.raises(ConfigError, match="deflate"):
        write_stream(good, tmp_path / "a.nc", deflate=10)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("change", [{"planes": 0}, {"nodes": 1}, {"noise": -1.0}, {"v_max": 0.0}, {"piece_nodes": 0}])
def test_senseless_plasmas_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="xgc"):
        replace(XGC, **change)


@pytest.mark.parametrize("change", [{"steps": 0}, {"nlat": 3}, {"land": 1.0}, {"memory": 0.0}, {"weather": -1.0}])
def test_senseless_climates_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="e3sm"):
        replace(E3SM, **change)


def test_plasma_has_the_prescribed_moments() -> None:
    c = replace(XGC, bump=0.0, nodes=64, v_max=5.0)
    f = xgc_stream(c).whole()["i_f"].astype(float)
    m, (vperp, vpar) = moments(c), velocity_axes(c)
    w = f * vperp[:, None]  # the weight of a ring of perpendicular speed
    total = w.sum((2, 3))
    density = total * 2 * np.pi * (vperp[1] - vperp[0]) * (vpar[1] - vpar[0])
    flow = (w * vpar).sum((2, 3)) / total
    par = np.sqrt((w * (vpar - flow[..., None, None]) ** 2).sum((2, 3)) / total)
    perp = np.sqrt((w * vperp[:, None] ** 2).sum((2, 3)) / total / 2)
    assert np.allclose(density, m.density, rtol=0.03, atol=0)
    assert np.allclose(flow, m.flow, rtol=0, atol=0.03)
    assert np.allclose(par, m.par, rtol=0.03, atol=0)
    assert np.allclose(perp, m.perp, rtol=0.03, atol=0)
    assert f.min() >= 0


def test_plasma_noise_is_that_of_particles_and_the_moments_are_smooth() -> None:
    noisy, calm = (xgc_stream(replace(XGC, noise=n, double=True)).whole()["i_f"] for n in (0.003, 0.0))
    peak = calm.max((2, 3), keepdims=True)
    near = calm > 0.9 * peak
    assert 0.002 < ((noisy - calm) / peak)[near].std() < 0.004
    assert noisy.dtype == np.float64
    density = moments(replace(XGC, nodes=400)).density
    assert np.abs(np.diff(density, axis=1)).max() < 0.2 * density.std()
    assert density.std(axis=0).min() > 0


def test_sea_temperature_is_missing_on_land_and_only_there(tmp_path: Path) -> None:
    stream, globe = e3sm_stream(E3SM), make_globe(E3SM)
    x = stream.whole()
    fill = np.float32(FILL)
    assert ((x["SST"] == fill) == globe.land).all()
    assert 0.2 < globe.land.mean() < 0.6
    sea = x["SST"][:, ~globe.land]
    assert 271 < sea.min() < sea.max() < 310
    with netCDF4.Dataset(write_stream(stream, tmp_path / "a.nc")) as ds:
        assert ds["SST"]._FillValue == fill
        assert np.array_equal(np.ma.getmaskarray(ds["SST"][:]), np.broadcast_to(globe.land, stream.shape))
        assert "_FillValue" not in ds["PSL"].ncattrs()


def test_climate_is_in_range_and_has_days_and_seasons() -> None:
    globe = make_globe(E3SM)
    x = e3sm_stream(E3SM).whole()
    assert 93_000 < x["PSL"].min() < x["PSL"].max() < 109_000
    assert 190 < x["TS"].min() < x["TS"].max() < 335
    warm = globe.land & (np.abs(globe.lat[:, None]) < 40)
    days = x["TS"].reshape(3, 4, *globe.land.shape)
    swing = (days.max(1) - days.min(1)).mean(0)
    assert swing[warm].mean() > 3 * swing[~globe.land].mean()
    year = e3sm_stream(replace(E3SM, steps=4 * 190)).whole()["TS"]
    north = globe.land & (globe.lat[:, None] > 40)
    assert year[-4:, north].mean() - year[:4, north].mean() > 10


def test_weather_keeps_its_spread_and_forgets_small_scales_first() -> None:
    noise = RedNoise(make_globe(E3SM), np.random.default_rng(0), memory=8.0, drift=0.0, k_min=3.0)
    fields = np.stack([noise.step() for _ in range(60)])
    assert 0.8 < fields.std() < 1.2
    spectra = np.fft.rfft(fields, axis=2)
    kept = np.abs((spectra[1:] * spectra[:-1].conj()).mean((0, 1))) / (np.abs(spectra) ** 2).mean((0, 1))
    assert kept[2:5].mean() > 0.9 > kept[20:].mean()
    power = (np.abs(spectra) ** 2).mean((0, 1))
    slope = np.polyfit(np.log(np.arange(6, 24)), np.log(power[6:24]), 1)[0]
    assert -3.6 < slope < -2.4  # a cut through a field of energy k^-3 has k^-3 as well


@pytest.mark.parametrize(
    ("script", "sizes"),
    [("make_xgc.py", ["--planes", 2, "--nodes", 8]), ("make_e3sm.py", ["--steps", 2, "--nlat", 8, "--nlon", 16])],
)
def test_scripts_write_refuse_and_overwrite(script: str, sizes: list[object], tmp_path: Path) -> None:
    out = tmp_path / "a.nc"
    first = run_script(script, *sizes, "-o", out, "--seed", 5, "--deflate", 1)
    assert first.returncode == 0, first.stderr
    assert first.stderr == ""  # no progress bar without a terminal
    with netCDF4.Dataset(out) as ds:
        assert ds.seed == 5
    again = run_script(script, *sizes, "-o", out)
    assert again.returncode == 2
    assert again.stderr.startswith("error: ")
    assert run_script(script, *sizes, "-o", out, "-f").returncode == 0
    with netCDF4.Dataset(out) as ds:
        assert ds.seed == 0
