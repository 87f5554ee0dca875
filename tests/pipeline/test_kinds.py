# SPDX-License-Identifier: MIT
"""Variables that want plans of other kinds get groups of their own, where that makes the file smaller."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import xarray as xr

import hbae
from hbae.bound import resolve_target
from hbae.config import ErrorBound
from hbae.pipeline import calibrate, choosing, sampling
from hbae.pipeline.archive import Archive
from hbae.pipeline.calibrate import Choice
from hbae.pipeline.kinds import Part
from hbae.pipeline.pass2 import Group

ALL = frozenset({"lorenzo", "interpolation", "wavelet", "transform", "lossless"})


def groups(path: Path) -> list[tuple[str, ...]]:
    with Archive(path) as archive:
        return [archive.plan(i).paths for i in range(len({p.group for p in archive.parts if p.group is not None}))]


@pytest.mark.parametrize("bound", [("nrmse", 1e-3), ("psnr", 60.0)])
def test_unlike_variables_part(
    bound: tuple[str, float],
    unlike: xr.Dataset,
    judged: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    ds = unlike
    judged(ds, tmp_path / "apart.hbae", {n: [bound] for n in ds}, method="linear")
    assert len(groups(tmp_path / "apart.hbae")) > 1
    monkeypatch.setattr(choosing, "part_by_kind", lambda *_, **__: [])
    judged(ds, tmp_path / "one.hbae", {n: [bound] for n in ds}, method="linear")
    assert groups(tmp_path / "one.hbae") == [("mosaic", "waves")]
    assert (tmp_path / "apart.hbae").stat().st_size < 0.97 * (tmp_path / "one.hbae").stat().st_size


@pytest.mark.parametrize(("bound", "slopes"), [("rel_range=1e-4", "bc"), ("nrmse=1e-6", "b")])
def test_a_variable_that_is_nearly_free_without_loss_parts(
    bound: str, slopes: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Even where a basis over the variables won: a mosaic beside itself with slopes."""
    rng = np.random.default_rng(0)
    at = np.stack(np.meshgrid(np.linspace(0, 1, 400), np.linspace(0, 1, 300), indexing="ij"), -1)
    label = ((at[:, :, None] - rng.random((30, 2))) ** 2).sum(-1).argmin(-1)
    mosaic = rng.normal(size=30)[label].astype(np.float32)
    values = {"a": mosaic, **{n: (mosaic + at[..., i]).astype(np.float32) for i, n in enumerate(slopes)}}
    ds = xr.Dataset({n: (("y", "x"), a) for n, a in values.items()})
    report = hbae.compress(ds, tmp_path / "a.hbae", bound, method="linear")
    assert groups(tmp_path / "a.hbae") == [("a",), tuple(slopes)]
    assert report.variables[0].method == "lossless"
    monkeypatch.setattr(choosing, "part_by_kind", lambda *_, **__: [])
    one = hbae.compress(ds, tmp_path / "b.hbae", bound, method="linear")
    assert report.size < 0.95 * one.size


def test_alike_variables_stay_together(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    a = rng.normal(size=(16, 40, 40)).cumsum(1).cumsum(2)
    values = {"a": a, "b": a + rng.normal(size=a.shape).cumsum(1) / 9, "c": a[::-1]}
    ds = xr.Dataset({k: (("t", "y", "x"), v.astype(np.float32)) for k, v in values.items()})
    hbae.compress(ds, tmp_path / "a.hbae", "nrmse=1e-3", method="linear")
    assert groups(tmp_path / "a.hbae") == [("a", "b", "c")]


def test_parts_that_take_more_bytes_are_not_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The whole group's plan stands beside those of its parts."""
    rng = np.random.default_rng(1)
    a = rng.normal(size=(16, 40, 40)).cumsum(1).cumsum(2)
    ds = xr.Dataset({k: (("t", "y", "x"), (a * f).astype(np.float32)) for k, f in (("a", 1), ("b", -3), ("c", 2))})
    hbae.compress(ds, tmp_path / "one.hbae", "nrmse=1e-3", method="linear")
    monkeypatch.setattr(choosing, "part_by_kind", lambda *_, **__: [Part([0, 2], ALL), Part([1], ALL)])
    hbae.compress(ds, tmp_path / "a.hbae", "nrmse=1e-3", method="linear")
    assert (tmp_path / "a.hbae").read_bytes() == (tmp_path / "one.hbae").read_bytes()


def test_the_bytes_are_those_of_any_number_of_workers(
    unlike: xr.Dataset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("hbae.pipeline.kinds.ALONE_POINTS", 0)
    for threads in (1, 2):
        hbae.compress(unlike, tmp_path / f"{threads}.hbae", "nrmse=1e-3", method="linear", threads=threads)
    assert (tmp_path / "1.hbae").read_bytes() == (tmp_path / "2.hbae").read_bytes()


def test_a_search_for_a_size_keeps_the_parts(
    unlike: xr.Dataset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Later passes move the steps of the plans that the first one chose."""
    chosen, real = [], choosing.choose_plan

    def counted(draft: Any, *args: Any, **kw: Any) -> Any:
        chosen.append(draft.paths)
        return real(draft, *args, **kw)

    monkeypatch.setattr(choosing, "choose_plan", counted)
    ds = unlike
    hbae.compress(ds, tmp_path / "a.hbae", "nrmse=1e-3", method="linear")
    once = len(chosen)
    size = (tmp_path / "a.hbae").stat().st_size
    report = hbae.compress(ds, tmp_path / "b.hbae", size=int(size * 0.98), method="linear")
    assert report.size <= size * 0.98
    assert len(groups(tmp_path / "b.hbae")) > 1
    assert chosen[once:].count(("mosaic", "waves")) == 1


def test_a_sample_that_is_a_small_part_costs_little(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Steps are set by all chunks in the end."""
    x = np.random.default_rng(0).normal(size=(8, 128, 128)).cumsum(1).cumsum(2).astype(np.float32)
    ds = xr.Dataset({"a": (("t", "y", "x"), x)})
    words: dict[str, Any] = {"bound": "nrmse=1e-3", "method": "linear", "chunk": 0.0625}
    whole = hbae.compress(ds, tmp_path / "a.hbae", **words)
    monkeypatch.setattr(sampling, "SAMPLE_BYTES", x.nbytes // 4)
    part = hbae.compress(ds, tmp_path / "b.hbae", **words)
    assert part.variables[0].nrmse > 0.8e-3
    assert part.size < 1.1 * whole.size


def test_a_variable_without_points_in_the_sample_keeps_its_steps(
    monkeypatch: pytest.MonkeyPatch, judged: Callable[..., Any], tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 8, 128, 128)).cumsum(2).cumsum(3).astype(np.float32)
    x[1, :, :-32, :] = np.nan
    ds = xr.Dataset({n: (("t", "y", "x"), a) for n, a in zip("ab", x, strict=True)})
    monkeypatch.setattr(sampling, "SAMPLE_BYTES", x.nbytes // 40)
    monkeypatch.setattr(choosing, "part_by_kind", lambda *_, **__: [])
    judged(ds, tmp_path / "a.hbae", {n: [("nrmse", 1e-3)] for n in ds}, method="linear", chunk=0.0625)
    with Archive(tmp_path / "a.hbae") as archive:
        plan = archive.plan(0)
    steps = np.where(plan.unit > 0, plan.unit, plan.point_unit)
    assert (steps < np.ptp(x[0])).all()
    assert plan.gae is None


def test_blocks_that_a_bound_speaks_of_stay(
    unlike: xr.Dataset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(choosing, "part_by_kind", lambda *_, **__: [Part([0], ALL), Part([1], ALL)])
    hbae.compress(unlike, tmp_path / "a.hbae", "block_nrmse=1e-3", method="linear")
    assert groups(tmp_path / "a.hbae") == [("mosaic", "waves")]


def test_parts_of_too_many_chunks_are_not_taken(
    unlike: xr.Dataset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An archive holds only so many."""
    monkeypatch.setattr(choosing, "_MOST_CHUNKS", 1)
    hbae.compress(unlike, tmp_path / "a.hbae", "nrmse=1e-3", method="linear")
    assert groups(tmp_path / "a.hbae") == [("mosaic", "waves")]


def test_at_another_scale_steps_of_components_move_together(tmp_path: Path) -> None:
    """The factor of a variable says nothing about the component of its number."""
    rng = np.random.default_rng(2)
    common = rng.normal(size=(2, 12, 32, 32)).cumsum(1).cumsum(2).cumsum(3)
    mixed = np.einsum("vk,kxyz->vxyz", rng.normal(size=(8, 2)), common).astype(np.float32)
    ds = xr.Dataset({f"v{i}": (("t", "y", "x"), a) for i, a in enumerate(mixed)})
    hbae.compress(ds, tmp_path / "a.hbae", "nrmse=1e-3", method="linear")
    with Archive(tmp_path / "a.hbae") as archive:
        plan = archive.plan(0)
    assert plan.ties_variables

    def members(*bounds: float) -> Any:
        targets = [resolve_target((ErrorBound("nrmse", b),), 1.0) for b in bounds]
        return [SimpleNamespace(target=t) for t in targets]

    old = Group(0, plan, members(*[1e-3] * 8), Choice(plan, 0.0, False, ""))
    found = choosing.near_choice(plan, members(1.8e-3, *[1.2e-3] * 7), [old])
    assert found is not None
    moved = found[0].choice.plan
    for before, after in ((plan.unit, moved.unit), (plan.point_unit, moved.point_unit)):
        assert after == pytest.approx(before * 1.2)


def test_a_basis_behind_a_predictor_that_is_far_behind_is_not_fitted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Smooth fields, on which differences take twice the bytes of wavelets and more."""
    made, make = [], calibrate.make_family
    monkeypatch.setattr(calibrate, "make_family", lambda s, task: (made.append(task), make(s, task))[1])
    k = np.sqrt(sum(np.meshgrid(*(np.fft.fftfreq(n) ** 2 for n in (20, 24, 30)), indexing="ij"))) + 0.02
    noise = np.random.default_rng(1).normal(size=(3, 20, 24, 30))
    x = np.fft.ifftn(np.fft.fftn(noise, axes=(1, 2, 3)) * k**-5, axes=(1, 2, 3)).real.astype(np.float32)
    data = xr.Dataset({n: (("t", "y", "x"), v) for n, v in zip("uvw", x, strict=True)})
    hbae.compress(data, tmp_path / "a.hbae", "nrmse=1e-2", threads=1)
    assert {("points", way, "none") for way in ("lorenzo", "wavelet")} <= set(made)
    assert ("points", "wavelet", "klt") in made
    assert ("points", "lorenzo", "klt") not in made
