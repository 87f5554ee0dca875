# SPDX-License-Identifier: MIT
"""What coders take for 0, and the bases behind it: exact where a field is at rest, and fewer bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import hbae
from hbae.arrays import Array
from hbae.bound import resolve_target
from hbae.config import ErrorBound
from hbae.pipeline import calibrate, kinds, replan, setting, steps
from hbae.pipeline.archive import Archive
from hbae.pipeline.calibrate import Candidate, weigh
from hbae.pipeline.replan import finer_plan
from hbae.pipeline.sampling import Sample


def at_rest(value: float, seed: int = 0) -> Array:
    """Waves in a quarter of the grid, one value everywhere else."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(16, 64, 64)).cumsum(0).cumsum(1).cumsum(2)
    x -= x.mean()
    window = np.zeros((64, 64))
    window[:32, :32] = np.outer(np.hanning(32), np.hanning(32))
    return (value + x * window).astype(np.float32)


def related(seed: int, variables: int, causes: int) -> xr.Dataset:
    """Growing fronts, each somewhere else, drive all variables, whose means are anywhere."""
    rng = np.random.default_rng(seed)
    t, y, x = np.meshgrid(np.arange(16), np.arange(48), np.arange(48), indexing="ij")
    fronts = []
    for _ in range(causes):
        at, radius = rng.random(2) * 48, rng.uniform(3, 7)
        fronts.append(np.tanh(np.hypot(y - at[0] - 0.5 * t, x - at[1]) - radius - 0.4 * t) / 2)
    mixed = np.einsum("vk,kxyz->vxyz", rng.normal(size=(variables, causes)), np.stack(fronts))
    mixed += rng.normal(size=(variables, 1, 1, 1)) * 9
    return xr.Dataset({f"v{i}": (("t", "y", "x"), a.astype(np.float32)) for i, a in enumerate(mixed)})


@pytest.mark.parametrize("bound", ["nrmse=1e-3", "nrmse=1e-2", "rel_range=1e-3"])
@pytest.mark.parametrize("value", [0.0, 273.15])
def test_a_field_at_rest_comes_back_as_it_is(bound: str, value: float, tmp_path: Path) -> None:
    x = at_rest(value)
    ds = xr.Dataset({"a": (("t", "y", "x"), x)})
    hbae.compress(ds, tmp_path / "a.hbae", bound, method="linear")
    back = hbae.decompress(tmp_path / "a.hbae").a.values
    far = back[:, 44:, 44:]
    assert (far == np.float32(value)).all()


def test_a_common_value_saves_bytes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Against the middle of the range, where the field is rounded off its value everywhere."""
    x = np.random.default_rng(0).normal(size=(16, 64, 64)).cumsum(0).cumsum(1).cumsum(2)
    x = np.maximum(x - x.std(), 0).astype(np.float32)
    ds = xr.Dataset({"rain": (("t", "y", "x"), x)})
    new = hbae.compress(ds, tmp_path / "a.hbae", "nrmse=1e-3", method="linear")
    middle = lambda _, draft: (draft.offset, draft.offset)  # noqa: E731
    monkeypatch.setattr(setting, "offsets_of", middle)
    monkeypatch.setattr(kinds, "offsets_of", middle)
    old = hbae.compress(ds, tmp_path / "b.hbae", "nrmse=1e-3", method="linear")
    assert new.size < 0.97 * old.size


def test_bases_through_the_means_save_bytes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ds = related(2, 8, 8)
    new = hbae.compress(ds, tmp_path / "a.hbae", "nrmse=1e-2", method="linear")
    monkeypatch.setattr(setting, "offsets_of", lambda _, draft: (draft.low, draft.low))
    old = hbae.compress(ds, tmp_path / "b.hbae", "nrmse=1e-2", method="linear")
    assert new.size < 0.95 * old.size


def test_rotated_bases_save_bytes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ds = related(2, 16, 10)
    new = hbae.compress(ds, tmp_path / "a.hbae", "nrmse=1e-3", method="linear")
    monkeypatch.setattr(steps, "rotated", lambda mix, *_, **__: mix)
    old = hbae.compress(ds, tmp_path / "b.hbae", "nrmse=1e-3", method="linear")
    assert new.size < 0.9 * old.size


def test_steps_under_a_basis_move_one_by_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A variable's error follows its step, and the bytes hardly grow: dependences are kept."""
    ds = related(3, 8, 4)
    hbae.compress(ds, tmp_path / "a.hbae", "nrmse=1e-3", method="linear")
    with Archive(tmp_path / "a.hbae") as archive:
        plan = archive.plan(0)
    assert plan.ties_variables
    raw = np.stack([a.values for a in ds.values()])
    bad = np.zeros(raw.shape, bool)
    targets = [resolve_target((ErrorBound("nrmse", 1e-3),), float(np.ptp(a))) for a in raw]
    sample = Sample([(raw, bad)], 1.0)

    def errors(factor: Array) -> tuple[float, Array]:
        c = Candidate("", finer_plan(plan, factor), None, 0, False)
        size, ratio, _ = weigh(c, targets, sample, calibrate.get_backend("numpy"))
        assert ratio is not None
        return size, ratio

    one = np.ones(8)
    one[2] = 0.5
    size, before = errors(np.ones(8))
    larger, after = errors(one)
    assert after[2] < 0.9 * before[2]
    assert np.delete(after / before, 2).max() < 1.25
    assert larger < 1.15 * size
    # As it was: directions that no longer fit the dependences.
    monkeypatch.setattr(replan, "carried", lambda axis, _: axis)
    assert errors(one)[0] > 1.3 * larger
    monkeypatch.undo()
    assert finer_plan(plan, np.full(8, 0.5)).mix is plan.mix


@pytest.mark.parametrize("bits", [2.0, 6.0, 12.0])
def test_a_bit_halves_the_error_where_there_are_several(bits: float) -> None:
    """Bytes of a plan whose errors are twice the aim, at the aim: a bit more for each value, within a tenth of it."""
    twice = np.full(3, 2 * calibrate.AIM)
    assert bits * calibrate._at_the_aim(twice, bits, tied=True) == pytest.approx(bits + 1, abs=0.1 + 1 / bits)


def test_one_variable_off_counts_more_where_a_basis_ties_it() -> None:
    """Less than if all steps had to follow it, as they can move one by one."""
    off = calibrate.AIM * np.array([1.0, 1.0, 1.0, 2.0])
    tied, apart = (calibrate._at_the_aim(off, 4.0, tied=k) for k in (True, False))
    all_follow = calibrate._at_the_aim(np.full(4, off.max()), 4.0, tied=True)
    assert apart < tied < (apart + all_follow) / 2
