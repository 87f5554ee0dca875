# SPDX-License-Identifier: MIT
"""Plans like those of another archive: bounds hold all the same, little is tried, what suits badly is noticed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import hbae
from hbae.errors import ConfigError, FormatError, InputError
from hbae.exact import Wavelet
from hbae.pipeline import calibrate, choosing
from hbae.pipeline.archive import Archive
from hbae.pipeline.families import Task
from hbae.pipeline.likeness import Earlier, family_of
from hbae.pipeline.plan import GroupPlan


def waves(seed: int, shape: tuple[int, ...] = (20, 24, 30), power: int = 3) -> np.ndarray[Any, Any]:
    """Waves of all lengths."""
    rng = np.random.default_rng(seed)
    k = np.sqrt(sum(np.meshgrid(*(np.fft.fftfreq(n) ** 2 for n in shape), indexing="ij"))) + 0.02
    return np.fft.ifftn(np.fft.fftn(rng.normal(size=shape)) * k**-power).real.astype(np.float32)


def field(seed: int, shape: tuple[int, ...] = (20, 24, 30), names: str = "uvw") -> xr.Dataset:
    return xr.Dataset({n: (("t", "y", "x"), waves(10 * seed + i, shape)) for i, n in enumerate(names)})


def held(path: Path, data: xr.Dataset) -> None:
    found = hbae.verify(path, data)
    assert found.ok, found


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[Task]:
    """All families that are made from then on."""
    seen, make = [], calibrate.make_family
    monkeypatch.setattr(calibrate, "make_family", lambda s, task: (seen.append(task), make(s, task))[1])
    return seen


BOUNDS = ["nrmse=1e-3", "nrmse=1e-2", "rel_range=1e-3", "abs=1e-2", "block_nrmse=1e-2", "pw_rel=1e-2", "psnr=70"]


@pytest.mark.parametrize("first", ["nrmse=1e-3", "rel_range=1e-3", "pw_rel=1e-2"])
@pytest.mark.parametrize("bound", BOUNDS)
def test_bounds_hold_whatever_the_other_archive_was_for(first: str, bound: str, tmp_path: Path) -> None:
    old, new = tmp_path / "old.hbae", tmp_path / "new.hbae"
    hbae.compress(field(1), old, first, threads=1)
    # Another seed, other lengths, another range.
    data = 30 * field(2, (12, 31, 18)) + 100
    report = hbae.compress(data, new, bound, like=old, threads=1)
    held(new, data)
    assert any(f"like {old}" in n for n in report.notes)


def test_only_its_family_is_tried_beside_plain_ones(tmp_path: Path, tried: list[Task]) -> None:
    old, new, free = tmp_path / "old.hbae", tmp_path / "new.hbae", tmp_path / "free.hbae"
    hbae.compress(field(1), old, "nrmse=1e-3", threads=1)
    with Archive(old) as archive:
        family = family_of(archive.plan(0))
    tried.clear()
    report = hbae.compress(field(2), new, "nrmse=1e-3", like=old, threads=1)
    plain = {("points", "wavelet", "none"), ("points", "lorenzo", "none")}
    assert set(tried) == plain | {family}
    assert report.notes == (f"like {old}: plan of u, v, w: as there",)
    with Archive(new) as archive:
        assert family_of(archive.plan(0)) == family
    tried.clear()
    by_all = hbae.compress(field(2), free, "nrmse=1e-3", threads=1)
    assert len(set(tried)) > 4
    assert report.size < 1.03 * by_all.size
    held(new, field(2))


def test_a_kind_that_suits_badly_loses(tmp_path: Path, unlike: xr.Dataset) -> None:
    """Interpolation suits a mosaic; waves of the same name take fewer bytes by wavelets."""
    old, new, free = tmp_path / "old.hbae", tmp_path / "new.hbae", tmp_path / "free.hbae"
    grain = np.random.default_rng(2).normal(scale=0.01, size=unlike.mosaic.shape).astype(np.float32)
    hbae.compress((unlike[["mosaic"]] + grain).rename(mosaic="u"), old, "nrmse=1e-3", threads=1)
    with Archive(old) as archive:
        assert family_of(archive.plan(0)) == ("points", "interpolation", "none")
    data = unlike[["waves"]].rename(waves="u")
    report = hbae.compress(data, new, "nrmse=1e-3", like=old, threads=1)
    assert report.notes == (f"like {old}: plan of u: chosen anew, as another kind takes fewer bytes",)
    hbae.compress(data, free, "nrmse=1e-3", threads=1)
    assert new.read_bytes() == free.read_bytes()
    held(new, data)


@pytest.mark.parametrize("bound", ["abs=1e-2", "abs=1e-1", "nrmse=1e-4", "pw_rel=1e-2"])
@pytest.mark.parametrize("first", ["smooth", "kept exactly"])
def test_plain_plans_are_as_good_as_ever(first: str, bound: str, tmp_path: Path) -> None:
    """Steps with a little noise, which differences suit, after fields that a transform suits or nothing does."""
    old, new, free = tmp_path / "old.hbae", tmp_path / "new.hbae", tmp_path / "free.hbae"
    rng = np.random.default_rng(5)
    noise = xr.zeros_like(field(1)) + rng.choice(np.float32([1, 1000.123]), size=(20, 24, 30))
    hbae.compress(field(1) if first == "smooth" else noise, old, "nrmse=1e-3", threads=1)
    with Archive(old) as archive:
        assert family_of(archive.plan(0))[0] == {"smooth": "transform", "kept exactly": "lossless"}[first]
    steps = [
        (rng.random((20, 24, 30)) < 0.01).cumsum(2).cumsum(1) + rng.normal(scale=1e-3, size=(20, 24, 30)) for _ in "uvw"
    ]
    data = xr.Dataset({n: (("t", "y", "x"), (1 + s).astype(np.float32)) for n, s in zip("uvw", steps, strict=True)})
    report = hbae.compress(data, new, bound, like=old, threads=1)
    assert report.size < 1.05 * hbae.compress(data, free, bound, threads=1).size
    held(new, data)


@pytest.mark.parametrize(
    "change", [{"wavelet": Wavelet(((0,), (1,), (2,)))}, {"wavelet": Wavelet(((0, 1, 2),))}], ids=["apart", "together"]
)
def test_of_a_family_only_the_same_plan_is_tried(
    change: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Axes of wavelets stay in the groups that they were in."""
    old, new = tmp_path / "old.hbae", tmp_path / "new.hbae"
    first, second = (xr.Dataset({"u": (("t", "y", "x"), waves(i, power=5))}) for i in (1, 2))
    real = choosing.choose_plan

    def forced(draft: GroupPlan, *args: Any, **kw: Any) -> calibrate.Choice:
        choice = real(draft, *args, **kw | {"kinds": frozenset({"wavelet"})})
        return replace(choice, plan=replace(choice.plan, **change))

    with monkeypatch.context() as patch:
        patch.setattr(choosing, "choose_plan", forced)
        hbae.compress(first, old, "nrmse=1e-2", method="linear", threads=1)
    hbae.compress(second, new, "nrmse=1e-2", like=old, threads=1)
    with Archive(new) as archive:
        assert archive.plan(0).wavelet == change["wavelet"]
    held(new, second)


@pytest.mark.parametrize("embed", [True, False])
def test_plans_with_a_model_serve_nobody(
    embed: bool, bad_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    old, new, free = tmp_path / "old.hbae", tmp_path / "new.hbae", tmp_path / "free.hbae"
    with monkeypatch.context():
        bad_model("untrained")
        hbae.compress(field(1), old, "nrmse=1e-2", method="hbae", embed=embed, threads=1)
    assert Earlier.of(old).plans == ()
    hbae.compress(field(2), new, "nrmse=1e-2", method="linear", like=old, threads=1)
    hbae.compress(field(2), free, "nrmse=1e-2", method="linear", threads=1)
    assert new.read_bytes() == free.read_bytes()


def test_tall_tiles_are_found_again(tmp_path: Path, tried: list[Task]) -> None:
    """A basis over all times is of the kind PCA."""
    rng = np.random.default_rng(3)
    modes = rng.normal(size=(4, 40, 40)).cumsum(1).cumsum(2)
    old, new = tmp_path / "old.hbae", tmp_path / "new.hbae"
    data = [np.tensordot(np.random.default_rng(i).normal(size=(200, 4)), modes, 1).astype(np.float32) for i in (1, 2)]
    first, second = (xr.Dataset({"u": (("t", "y", "x"), d)}) for d in data)
    hbae.compress(first, old, "nrmse=1e-4", threads=1)
    with Archive(old) as archive:
        assert family_of(archive.plan(0))[:2] == ("transform", "none")
        assert archive.plan(0).geometry.tile[0] == 200
    tried.clear()
    report = hbae.compress(second, new, "nrmse=1e-4", like=old, threads=1)
    assert any("pod" in task for task in tried)
    assert report.notes == (f"like {old}: plan of u: as there",)
    held(new, second)


def test_variables_part_as_they_did(tmp_path: Path, unlike: xr.Dataset) -> None:
    old, new = tmp_path / "old.hbae", tmp_path / "new.hbae"
    hbae.compress(unlike, old, "nrmse=1e-4", threads=1)
    assert len(hbae.info(old)["groups"]) == 2
    report = hbae.compress(2 * unlike, new, "nrmse=1e-4", like=old, threads=1)
    assert report.notes == (f"like {old}: plan of mosaic, waves: as there",)
    assert [g["variables"] for g in hbae.info(new)["groups"]] == [g["variables"] for g in hbae.info(old)["groups"]]
    assert report.size < 1.02 * old.stat().st_size
    held(new, 2 * unlike)


def test_other_variables_are_chosen_for(tmp_path: Path, tried: list[Task]) -> None:
    old, new, free = tmp_path / "old.hbae", tmp_path / "new.hbae", tmp_path / "free.hbae"
    hbae.compress(field(1), old, "nrmse=1e-3", threads=1)
    for names in ("uv", "uvwz", "abc"):
        data = field(2, names=names)
        tried.clear()
        report = hbae.compress(data, new, "nrmse=1e-3", like=old, overwrite=True, threads=1)
        assert any("chosen anew" in n for n in report.notes)
        by_like = list(tried)
        tried.clear()
        hbae.compress(data, free, "nrmse=1e-3", overwrite=True, threads=1)
        assert by_like == tried
        assert new.read_bytes() == free.read_bytes()


def test_other_axes_are_chosen_for(tmp_path: Path) -> None:
    old, new, free = tmp_path / "old.hbae", tmp_path / "new.hbae", tmp_path / "free.hbae"
    hbae.compress(field(1), old, "nrmse=1e-3", threads=1)
    data = field(2).isel(t=0)
    hbae.compress(data, new, "nrmse=1e-3", like=old, threads=1)
    held(new, data)
    assert new.stat().st_size < 1.05 * hbae.compress(data, free, "nrmse=1e-3", threads=1).size


def test_a_file_that_is_no_archive_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    out, old = tmp_path / "new.hbae", tmp_path / "old.hbae"
    with pytest.raises(InputError, match="no such file"):
        hbae.compress(field(1), out, "nrmse=1e-3", like=old)
    old.write_bytes(b"not an archive" * 99)
    with pytest.raises(FormatError, match=r"like .*old\.hbae: not an hbae archive"):
        hbae.compress(field(1), out, "nrmse=1e-3", like=old)
    hbae.compress(field(1), old, "nrmse=1e-3", overwrite=True, threads=1)
    data = bytearray(old.read_bytes())
    with Archive(old) as archive:
        section = archive.reader.section("group 0")
    data[data.index(section) + 9] ^= 1
    old.write_bytes(data)
    with pytest.raises(FormatError):
        hbae.compress(field(1), out, "nrmse=1e-3", like=old)
    assert not out.exists()


@pytest.mark.parametrize("more", [{"method": "hbae"}, {"method": "lossless"}, {"budget": "1ep"}, {"model": "m.hbm"}])
def test_what_asks_for_others_is_refused(more: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="like"):
        hbae.compress(field(1), tmp_path / "new.hbae", "nrmse=1e-3", like="old.hbae", **more)


def test_a_size_can_be_asked_for(tmp_path: Path) -> None:
    old, new = tmp_path / "old.hbae", tmp_path / "new.hbae"
    hbae.compress(field(1), old, "nrmse=1e-3", threads=1)
    report = hbae.compress(field(2), new, size=9000, like=old, threads=1)
    assert 8000 < new.stat().st_size <= 9000
    assert report.size == new.stat().st_size
    assert f"like {old}: plan of u, v, w: as there" in report.notes


def test_what_is_quick_to_decode_stays_so(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    mixed = np.tensordot(rng.normal(size=(16, 3)), np.stack([waves(i) for i in range(3)]), axes=1).astype(np.float32)
    data = xr.Dataset({f"c{i}": (("t", "y", "x"), np.tanh(m / m.std() / 2)) for i, m in enumerate(mixed)})
    old, new = tmp_path / "old.hbae", tmp_path / "new.hbae"
    hbae.compress(data, old, "nrmse=1e-3", threads=1)
    with Archive(old) as archive:
        assert archive.plan(0).related
    hbae.compress(data, new, "nrmse=1e-3", like=old, fast=True, threads=1)
    with Archive(new) as archive:
        assert not archive.plan(0).related
    held(new, data)


def test_plain_plans_of_many_variables_have_a_basis(tmp_path: Path, tried: list[Task]) -> None:
    """Where plans without a basis over the variables are not tried, those with one are the plainest."""
    old, new, free = tmp_path / "old.hbae", tmp_path / "new.hbae", tmp_path / "free.hbae"
    rng, modes = np.random.default_rng(1), np.stack([waves(i, (64, 48, 48), 4) for i in range(3)])
    mixed = np.tensordot(rng.normal(size=(20, 3)), modes, axes=1).astype(np.float32)
    data = xr.Dataset({f"c{i:02}": (("t", "y", "x"), m) for i, m in enumerate(mixed)})
    hbae.compress(data, old, "abs=1e-6", threads=1)
    tried.clear()
    report = hbae.compress(data, new, "nrmse=1e-3", like=old, threads=1)
    assert ("points", "wavelet", "klt") in tried
    assert report.size < 1.05 * hbae.compress(data, free, "nrmse=1e-3", threads=1).size
    held(new, data)
