# SPDX-License-Identifier: MIT
"""Errors are looked at before anything is coded: steps end where every limit is just met, and one pass is enough."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import hbae
from hbae.arrays import Array
from hbae.bound import Target
from hbae.errors import FormatError
from hbae.pipeline import calibrate, choosing, encode, original, pass2, sampling, settle
from hbae.pipeline.archive import Archive
from hbae.pipeline.plan import GroupPlan
from hbae.pipeline.replan import finer_plan
from hbae.pipeline.settle import Settler, chunks_to_look_at


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts how often a group is coded."""
    write, count = pass2.GroupWriter._write_chunks, [0]

    def counted(*args: Any, **kw: Any) -> Any:
        count[0] += 1
        return write(*args, **kw)

    monkeypatch.setattr(pass2.GroupWriter, "_write_chunks", counted)
    return count


def off_by(factor: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every plan that is chosen have steps that many times as large."""
    choose = calibrate.choose_plan

    def wrong(*args: Any, **kw: Any) -> Any:
        choice = choose(*args, **kw)
        plan = replace(choice.plan, unit=choice.plan.unit * factor, point_unit=choice.plan.point_unit * factor)
        return replace(choice, plan=plan)

    monkeypatch.setattr(choosing, "choose_plan", wrong)


def walks() -> xr.Dataset:
    """Three variables in more than one chunk of a sixteenth of a MiB."""
    x = np.random.default_rng(0).normal(size=(3, 8, 96, 96)).cumsum(2).cumsum(3).astype(np.float32)
    return xr.Dataset({n: (("t", "y", "x"), a) for n, a in zip("TUV", x, strict=True)})


def tied(variables: int) -> xr.Dataset:
    """Variables of all sizes that follow from two fields."""
    rng = np.random.default_rng(2)
    common = rng.normal(size=(2, 12, 48, 48)).cumsum(1).cumsum(2).cumsum(3)
    mixed = np.einsum("vk,kxyz->vxyz", rng.normal(size=(variables, 2)) * 10.0 ** -np.arange(variables)[:, None], common)
    return xr.Dataset({f"v{i}": (("t", "y", "x"), a.astype(np.float32)) for i, a in enumerate(mixed)})


@pytest.mark.parametrize("factor", [0.05, 0.5, 1.3, 20.0])
@pytest.mark.parametrize("bound", [("nrmse", 1e-3), ("psnr", 70.0)])
def test_steps_that_are_off_are_set_right_before_anything_is_coded(
    factor: float,
    bound: tuple[str, float],
    passes: list[int],
    fields: Callable[..., xr.Dataset],
    judged: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Bound (P1), and a file of the size that the right steps give."""
    ds = fields()
    words: dict[str, Any] = {"method": "linear", "chunk": 0.0625}
    judged(ds, tmp_path / "a.hbae", {n: [bound] for n in "TUV"}, **words)
    off_by(factor, monkeypatch)
    passes[0] = 0
    judged(ds, tmp_path / "b.hbae", {n: [bound] for n in "TUV"}, **words)
    with Archive(tmp_path / "b.hbae") as archive:
        groups = sum(p.group is not None for p in archive.parts)
    assert passes[0] == groups
    sizes = [(tmp_path / f"{n}.hbae").stat().st_size for n in "ab"]
    assert sizes[1] < 1.1 * sizes[0]


def test_errors_under_a_basis_come_near_all_limits(
    passes: list[int], judged: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ds = tied(8)
    off_by(1.5, monkeypatch)
    judged(ds, tmp_path / "a.hbae", {n: [("nrmse", 1e-3)] for n in ds}, method="linear")
    back = hbae.decompress(tmp_path / "a.hbae")
    found = [np.sqrt(np.mean((back[n].values.astype(float) - ds[n]) ** 2)) / np.ptp(ds[n].values) for n in ds]
    assert np.exp(np.log(found).mean()) > 0.95e-3
    assert passes == [1]


def test_a_sample_that_flatters_does_not_cost_a_pass(
    passes: list[int], judged: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The sample is a small part in which less happens; what is coded is known to hold, chunk by chunk."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 8, 256, 256)).cumsum(2).cumsum(3)
    x *= 1 + 3 * (np.arange(256) > 128)
    ds = xr.Dataset({n: (("t", "y", "x"), a.astype(np.float32)) for n, a in zip("abc", x, strict=True)})
    monkeypatch.setattr(sampling, "SAMPLE_BYTES", 1 << 18)
    monkeypatch.setattr(choosing, "part_by_kind", lambda *_, **__: [])
    looked: list[int] = []
    look = pass2.GroupWriter._look

    def spy(self: Any, g: Any, plan: Any, targets: Any, numbers: list[int]) -> Any:
        looked.append(len(numbers))
        return look(self, g, plan, targets, numbers)

    monkeypatch.setattr(pass2.GroupWriter, "_look", spy)
    judged(ds, tmp_path / "a.hbae", {n: [("nrmse", 1e-3)] for n in ds}, method="linear", chunk=0.25)
    with Archive(tmp_path / "a.hbae") as archive:
        assert set(looked) == {archive.plan(0).geometry.num_chunks}
    assert passes == [1]


def test_steps_are_set_right_on_a_sample_before_chunks_are_looked_at(
    judged: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each look at all chunks costs a part of coding them: steps that were far off take no more than two of them."""
    x = np.random.default_rng(3).normal(size=(3, 8, 256, 256)).cumsum(2).cumsum(3)
    ds = xr.Dataset({n: (("t", "y", "x"), a.astype(np.float32)) for n, a in zip("abc", x, strict=True)})
    monkeypatch.setattr(sampling, "SAMPLE_BYTES", 1 << 18)
    monkeypatch.setattr(choosing, "part_by_kind", lambda *_, **__: [])
    real = calibrate._try_finalist

    def off(*args: Any) -> Any:
        size, c = real(*args)
        return size, replace(c, plan=finer_plan(c.plan, np.array([0.4, 0.8, 0.6])))

    monkeypatch.setattr(calibrate, "_try_finalist", off)
    looks, look = [0], pass2.GroupWriter._look

    def counted(*args: Any) -> Any:
        looks[0] += 1
        return look(*args)

    monkeypatch.setattr(pass2.GroupWriter, "_look", counted)
    judged(ds, tmp_path / "a.hbae", {n: [("nrmse", 1e-3)] for n in ds}, method="linear", chunk=0.25)
    assert looks[0] <= 2
    back = hbae.decompress(tmp_path / "a.hbae")
    found = [np.sqrt(np.mean((back[n].values.astype(float) - ds[n]) ** 2)) / np.ptp(ds[n].values) for n in ds]
    assert min(found) > 0.94e-3


@pytest.mark.parametrize("whole", [False, True])
def test_finalists_whose_variables_are_tied_keep_their_steps_unless_all_was_seen(
    whole: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One chunk tells how large a plan will be, and little of which variable needs which step."""
    tried: list[tuple[bool, bool]] = []
    real = calibrate._try_finalist

    def spy(trials: Any, candidate: Any, weight: Any) -> Any:
        assert trials.part.whole is whole
        size, found = real(trials, candidate, weight)
        tried.append((candidate.plan.ties_variables, found.plan.steps.tolist() == candidate.plan.steps.tolist()))
        return size, found

    monkeypatch.setattr(calibrate, "_try_finalist", spy)
    if not whole:
        monkeypatch.setattr(sampling, "SAMPLE_BYTES", 1 << 18)
    monkeypatch.setattr(choosing, "part_by_kind", lambda *_, **__: [])
    hbae.compress(tied(8), tmp_path / "a.hbae", "nrmse=1e-3", method="linear", chunk=0.25)
    assert {same for ties, same in tried if ties} == {not whole}


def test_of_very_many_chunks_some_are_looked_at(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hbae.compress(walks(), tmp_path / "a.hbae", "nrmse=1e-3", method="linear", chunk=0.0625)
    with Archive(tmp_path / "a.hbae") as archive:
        plan = archive.plan(0)
    count = plan.geometry.num_chunks
    assert chunks_to_look_at(plan) == list(range(count))
    whole = int(np.prod(plan.geometry.shape)) * plan.num_variables * plan.dtype.itemsize
    monkeypatch.setattr(settle, "_MOST_BYTES", whole // 2)
    some = chunks_to_look_at(plan)
    assert len(some) == count // 2
    assert some == sorted(set(some))
    assert max(some) < count


def test_chunks_beyond_exact_arithmetic_do_not_stop_the_looks(
    judged: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real, calls = encode.look_at_chunk, [0]

    def sometimes(*args: Any, **kw: Any) -> Any:
        calls[0] += 1
        if calls[0] % 3 == 0:
            raise FormatError("too large for exact arithmetic")
        return real(*args, **kw)

    monkeypatch.setattr(settle, "look_at_chunk", sometimes)
    judged(walks(), tmp_path / "a.hbae", {n: [("nrmse", 1e-3)] for n in "TUV"}, method="linear", chunk=0.0625)
    assert calls[0] > 3


class Follows:
    """Errors that follow steps by a power, and jump now and then: what a settler sees."""

    def __init__(self, power: float, jumps: float, seed: int = 0) -> None:
        self.power, self.jumps, self.rng = power, jumps, np.random.default_rng(seed)

    def look(self, units: Array) -> list[tuple[list[float], list[int]]]:
        ratio = units**self.power * np.exp(self.jumps * self.rng.normal(size=len(units)))
        return [((ratio**2 * 100).tolist(), [100] * len(units))]


def plain_plan(tmp_path: Path, fields: Callable[..., xr.Dataset], steps: Array) -> GroupPlan:
    """Give a plan of three variables with those steps and no basis."""
    hbae.compress(fields(), tmp_path / "a.hbae", "nrmse=1e-3", method="linear")
    with Archive(tmp_path / "a.hbae") as archive:
        return replace(archive.plan(0), unit=steps, point_unit=np.zeros(3), mix=None, related="")


@pytest.mark.parametrize("power", [0.3, 0.6, 1.0])
@pytest.mark.parametrize("start", [0.3, 1.0, 3.0])
def test_looks_are_few_where_errors_follow(
    power: float, start: float, fields: Callable[..., xr.Dataset], tmp_path: Path
) -> None:
    plan = plain_plan(tmp_path, fields, np.full(3, start))
    settler, data, looks = (
        Settler.on_chunks(plan, [Target(rmse=1.0)] * 3, sampled=False, whole=True),
        Follows(power, 0),
        0,
    )
    while settler.more:
        settler.step(data.look(settler.plan.unit))
        looks += 1
    assert looks <= settle._TURNS
    last = settler.plan.unit**power
    assert 0.9 < last.max() <= 1


def test_what_has_no_error_keeps_its_steps(fields: Callable[..., xr.Dataset], tmp_path: Path) -> None:
    """Nothing happens there, or no point is valid."""
    plan = plain_plan(tmp_path, fields, np.ones(3))
    settler = Settler.on_chunks(plan, [Target(rmse=1.0)] * 3, sampled=False, whole=True)
    while settler.more:
        known = np.array([0.0, 50.0, 0.0]) * settler.plan.unit**2
        settler.step([(known.tolist(), [100, 100, 0])])
    assert settler.plan.unit[[0, 2]].tolist() == [1, 1]
    assert settler.plan.unit[1] > 1.3


def test_late_looks_move_what_misses_alone(fields: Callable[..., xr.Dataset], tmp_path: Path) -> None:
    """And a part of all chunks makes no step grow."""
    plan = plain_plan(tmp_path, fields, np.ones(3))
    for whole, turns in ((True, 2), (False, 1)):
        settler = Settler.on_chunks(plan, [Target(rmse=1.0)] * 3, sampled=True, whole=whole)
        for _ in range(turns):
            before = settler.plan.unit
            settler.follow(np.array([0.8, 1.2, 0.9]))
        assert settler.plan.unit[[0, 2]].tolist() == before[[0, 2]].tolist()
        assert settler.plan.unit[1] < before[1]
        assert settler.more


def test_where_only_a_part_is_seen_there_is_room(fields: Callable[..., xr.Dataset], tmp_path: Path) -> None:
    """First steps of a stream, chunks spread over a large group: the rest may be worse by a percent."""
    plan = plain_plan(tmp_path, fields, np.full(3, 1.2))
    limits = [Target(rmse=1.0)] * 3
    for settler in (Settler.for_stream(plan, limits), Settler.on_chunks(plan, limits, sampled=True, whole=False)):
        while settler.more:
            settler.step(Follows(1.0, 0.0).look(settler.plan.unit))
        assert 0.93 < settler.plan.unit.max() <= 0.985


def test_a_basis_is_carried_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """However many looks there are: what it spans is that of the steps, not of the way to them."""
    real = calibrate.family_tasks
    monkeypatch.setattr(calibrate, "family_tasks", lambda s: [t for t in real(s) if "wavelet" in t])
    hbae.compress(tied(8), tmp_path / "a.hbae", "nrmse=1e-3", method="linear")
    with Archive(tmp_path / "a.hbae") as archive:
        plan = archive.plan(0)
    assert plan.mix is not None
    settler = Settler.on_chunks(plan, [Target(rmse=1.0)] * 8, sampled=False, whole=True)
    rng = np.random.default_rng(0)
    for _ in range(4):
        settler.follow(rng.uniform(0.7, 1.4, 8))
    assert settler.more
    once = finer_plan(plan, settler.plan.steps / plan.steps)
    assert settler.plan.mix is not None
    assert once.mix is not None
    a, b = settler.plan.mix.axes[0], once.mix.axes[0]
    assert (a.shifts == b.shifts).all()
    assert np.abs(a.matrix - b.matrix).max() <= 2.0 ** a.shifts.max()


@pytest.mark.parametrize("seed", range(8))
def test_where_errors_jump_the_plan_that_is_kept_was_seen_to_hold_or_nearly(
    seed: int, fields: Callable[..., xr.Dataset], tmp_path: Path
) -> None:
    plan = plain_plan(tmp_path, fields, np.ones(3))
    settler, data = Settler.on_chunks(plan, [Target(rmse=1.0)] * 3, sampled=True, whole=True), Follows(0.8, 0.1, seed)
    seen: list[tuple[Array, float]] = []
    while settler.more:
        found = data.look(settler.plan.unit)
        seen.append((settler.plan.unit, float(np.sqrt(np.array(found[0][0]) / 100).max())))
        settler.step(found)
    able = [(u, worst) for u, worst in seen if worst <= 1 + settle._SOME]
    held = [u for u, worst in seen if worst <= 1]
    assert any((settler.plan.unit <= u).all() for u, _ in able) or not able
    if held:
        assert settler.plan.unit.min() > 0.9 * max(u.min() for u in held), "not finer than what held"


@pytest.mark.parametrize("masked", [False, True])
def test_looks_on_a_device_see_what_the_host_sees(
    masked: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By wavelets and by transform, with a basis and without; torch's CPU works as a device does."""
    pytest.importorskip("torch")
    ds = tied(8)
    if masked:
        ds["v1"].values[:, :9] = np.nan
    raw = np.stack([a.values for a in ds.values()])
    bad = np.isnan(raw)
    targets = [Target(rmse=1e-3 * float(np.nanmax(a) - np.nanmin(a))) for a in raw]
    real = calibrate.family_tasks
    for kind in ("wavelet", "transform"):
        monkeypatch.setattr(calibrate, "family_tasks", lambda s, k=kind: [t for t in real(s) if k in t])
        hbae.compress(ds, tmp_path / kind, "nrmse=1e-3", method="linear")
        with Archive(tmp_path / kind) as archive:
            plan = archive.plan(0)
        assert (plan.wavelet is not None) == (kind == "wavelet")
        here, there = (settle.Look(plan, targets, None, b).errors(raw, bad) for b in ("numpy", "torch"))
        assert here[1] == there[1]
        assert here[0] == there[0], "steps come of it: the same bits"


def test_a_device_does_the_looking(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    real, calls = original.OriginalThere.errors, [0]

    def counted(*args: Any) -> Any:
        calls[0] += 1
        return real(*args)

    monkeypatch.setattr(original.OriginalThere, "errors", counted)
    hbae.compress(tied(8), tmp_path / "a.hbae", "nrmse=1e-3", method="linear", device="torch", threads=1)
    assert calls[0] >= 1
