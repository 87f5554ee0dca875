# SPDX-License-Identifier: MIT
"""Streams with chemistry: repeatable for any number of processes, and states that physics allows."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import netCDF4
import numpy as np
import pytest

from hbae.errors import ConfigError, MissingExtraError
from hbae.synth import HCCI2DConfig, S3DConfig, hcci2d, hcci2d_stream, s3d_stream, write_stream
from hbae.synth.hcci2d import initial_state, transport
from hbae.synth.ignition import IgnitionTable, _row, fastest_rise, unwarp, warp
from hbae.synth.s3d import make_table, sized
from hbae.synth.turbulence import Stencil

S3D = S3DConfig(steps=4, ny=12, nx=16, table=(2, 2, 48), processes=1)
HCCI = HCCI2DConfig(steps=2, ny=6, nx=6, substeps=1, processes=1)


@pytest.fixture(scope="module", autouse=True)
def _cantera() -> None:
    pytest.importorskip("cantera")


@pytest.fixture(scope="module")
def table() -> IgnitionTable:
    return make_table(S3D)


@pytest.fixture(scope="module")
def ignition() -> dict[str, np.ndarray]:
    return hcci2d_stream(HCCI).whole()


def check_states(x: dict[str, np.ndarray]) -> None:
    fractions = np.stack([v for k, v in x.items() if k.startswith("Y_")]).astype(float)
    assert len(x) == 54
    assert len(fractions) == 53
    assert fractions.min() >= 0
    assert np.abs(fractions.sum(0) - 1).max() < 1e-3
    assert 950 < x["T"].min() < x["T"].max() < 3000


def test_s3d_is_repeatable_streamed_and_physical(table: IgnitionTable) -> None:
    stream = s3d_stream(S3D, table=table)
    x, again = stream.whole(), s3d_stream(S3D, table=table).whole()
    other = s3d_stream(replace(S3D, seed=1), table=table).whole()
    assert all(v.tobytes() == again[k].tobytes() for k, v in x.items())
    assert x["T"].tobytes() != other["T"].tobytes()
    check_states(x)
    assert x["T"][-1].mean() > x["T"][0].mean() + 300  # it burns
    pieces = [box for box, _ in stream.pieces()]
    assert [b[0] for b in pieces] == [slice(i, i + 1) for i in range(stream.count)]


def test_s3d_file(table: IgnitionTable, tmp_path: Path) -> None:
    stream = s3d_stream(S3D, table=table)
    with netCDF4.Dataset(write_stream(stream, tmp_path / "a.nc", deflate=1)) as ds:
        assert {k: d.size for k, d in ds.dimensions.items()} == {"time": 4, "y": 12, "x": 16}
        assert ds["T"].dtype == np.float32
        assert (ds["T"].units, ds["Y_CH4"].units, ds["time"].units) == ("K", "1", "s")
        assert ds["Y_CH4"].chunking() == [1, 12, 16]


def test_delay_falls_with_temperature_and_warp_is_undone(table: IgnitionTable) -> None:
    delays = table.delay(np.array([1060.0, 1100.0, 1140.0]), np.full(3, 0.45))
    assert (np.diff(delays) < 0).all()
    assert 1e-4 < delays[-1] < delays[0] < 0.1
    r = np.linspace(0, 4, 50)
    assert np.allclose(unwarp(warp(r, 8.0), 8.0), r, rtol=0, atol=1e-12)


def test_the_table_does_not_depend_on_a_processor_s_rounding(table: IgnitionTable) -> None:
    relative = unwarp(table.warps, table.stretch)
    # Another last digit in, other steps of the integrator all along.
    (delay, states), (nearly, moved) = (
        _row((t, table.ratios[[0, -1]], 40 * 101325.0, relative)) for t in (1100.0, 1100 + 1e-10)
    )
    assert delay == pytest.approx(nearly, rel=1e-5)
    spans = np.ptp(states, axis=(0, 1))
    assert spans.min() > 1e-18  # every species lives, argon too: none is a field of rounding errors
    assert (np.sqrt(((states - moved) ** 2).mean((0, 1))) / spans).max() < 1e-5


def test_the_fastest_rise_is_between_steps() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        times = np.cumsum(rng.uniform(0.05, 0.1, 60))
        assert fastest_rise(times, np.tanh(2 * (times - 2.0))) == pytest.approx(2.0, abs=0.01)
    assert fastest_rise(np.array([0.0, 1.0, 3.0]), np.array([0.0, 5.0, 6.0])) == 0.5


def test_sized_gives_about_that_many_megabytes() -> None:
    c = sized(100.0, S3D)
    assert 70 < 4 * 54 * c.steps * c.ny * c.nx / 1e6 < 130


def test_ignition_in_two_dimensions_is_physical(ignition: dict[str, np.ndarray]) -> None:
    check_states(ignition)
    first, last = ignition["T"]
    assert first.std() > 1
    assert last.min() > 1800  # burnt at the end
    assert last.max() > first.max() + 500
    assert ignition["Y_CH4"][1].max() < 1e-3 < ignition["Y_CH4"][0].min()
    before, after = ignition["Y_N2"].mean((1, 2))
    assert np.isclose(before, after, rtol=0.01)  # nearly inert


def test_ignition_has_the_same_bits_in_two_processes(
    ignition: dict[str, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hcci2d, "CELLS", 10)  # several jobs, and another cut than in the fixture
    stream = hcci2d_stream(replace(HCCI, processes=2))
    assert stream.shape == (2, 6, 6)
    with netCDF4.Dataset(write_stream(stream, tmp_path / "a.nc")) as ds:
        assert ds["T"].units == "K"
        assert all(ds[k][:].tobytes() == v.tobytes() for k, v in ignition.items())


def test_ignition_depends_on_the_seed(ignition: dict[str, np.ndarray]) -> None:
    short = replace(HCCI, steps=1, span=(0.0, 1.0), ny=4, nx=4)
    one, two = (hcci2d_stream(replace(short, seed=s)).whole() for s in (0, 1))
    assert one["T"].tobytes() != two["T"].tobytes()
    assert abs(float(one["T"].mean()) - short.temperature[0]) < 20


def test_transport_keeps_means_range_and_sum() -> None:
    state, density = initial_state(HCCI)
    assert 5 < density < 20
    still = np.indices((6, 6)).astype(float)
    mixed = transport(state, Stencil(*still), 0.3)
    assert np.allclose(mixed.mean((1, 2)), state.mean((1, 2)), rtol=1e-12, atol=0)
    assert (mixed.std((1, 2))[-2:] < state.std((1, 2))[-2:]).all()
    moved = transport(state, Stencil(still[0] + 1.0, still[1]), 0.0)
    assert np.allclose(moved, np.roll(state, -1, axis=1), rtol=1e-12, atol=0)
    rough = transport(state, Stencil(still[0] + 0.4, still[1] - 0.3), 0.05)
    assert np.allclose(rough[:-2].sum(0), 1.0, rtol=0, atol=1e-12)
    assert rough.min() >= min(0.0, state[-2].min())


@pytest.mark.parametrize("change", [{"ny": 3}, {"steps": 0}, {"speed": -1.0}, {"span": (1.0, 0.5)}, {"pressure": 0.0}])
def test_senseless_runs_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="hcci2d"):
        replace(HCCI, **change)
    with pytest.raises(ConfigError, match="s3d"):
        replace(S3D, ny=2)


def test_a_mixture_that_does_not_ignite_is_refused() -> None:
    with pytest.raises(ConfigError, match="ignite"):
        hcci2d_stream(replace(HCCI, temperature=(400.0, 1.0)))


def test_without_cantera_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cantera", None)
    with pytest.raises(MissingExtraError, match=r"hbae\[demo\]"):
        hcci2d_stream(HCCI)
    with pytest.raises(MissingExtraError, match=r"hbae\[demo\]"):
        s3d_stream(S3D)
