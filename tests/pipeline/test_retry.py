# SPDX-License-Identifier: MIT
"""When the calibration is wrong the bound still holds, and when the decoder is wrong nothing is written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import xarray as xr

import hbae
from hbae.bound import Target, VariableErrors
from hbae.errors import BoundViolationError, OutputExistsError
from hbae.pipeline import choosing, compress, encode, original, pass2
from hbae.pipeline import chunk as chunks
from hbae.pipeline.archive import Archive
from hbae.pipeline.touchup import finer_factors, growth_of_chunks, growth_of_plan, touch_up, worst_chunks


@pytest.fixture
def coarser(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[int]]:
    """Give a function after which every plan has steps that many times too large; it counts the passes.

    Nothing is looked at before it is coded, unless it is said.
    """

    def install(factor: float, *, looks: bool = False) -> list[int]:
        choose, write, passes = choosing.choose_plan, pass2.GroupWriter._write_chunks, [0]

        def bad(*args: Any, **kw: Any) -> Any:
            choice = choose(*args, **kw)
            plan = replace(choice.plan, unit=choice.plan.unit * factor, point_unit=choice.plan.point_unit * factor)
            return replace(choice, plan=plan)

        def counted(*args: Any, **kw: Any) -> Any:
            passes[0] += 1
            return write(*args, **kw)

        if not looks:
            monkeypatch.setattr(pass2, "can_settle", lambda *_, **__: False)
        monkeypatch.setattr(choosing, "choose_plan", bad)
        monkeypatch.setattr(pass2.GroupWriter, "_write_chunks", counted)
        return passes

    return install


@pytest.mark.parametrize("factor", [1.3, 20.0, 1e4])
@pytest.mark.parametrize("bound", [("nrmse", 1e-3), ("psnr", 70.0), ("abs", 1e-2), ("block_nrmse", 1e-3)])
def test_too_large_steps_are_met(
    factor: float,
    bound: tuple[str, float],
    coarser: Callable[..., list[int]],
    fields: Callable[..., xr.Dataset],
    judged: Callable[..., Any],
    tmp_path: Path,
) -> None:
    passes = coarser(factor)
    judged(fields(), tmp_path / "a.hbae", {n: [bound] for n in "TUV"}, method="linear", chunk=0.0625)
    assert passes[0] >= (2 if bound[0] in ("nrmse", "psnr") else 1)


def test_steps_under_a_basis_are_met_in_one_more_pass(
    coarser: Callable[..., list[int]], judged: Callable[..., Any], tmp_path: Path
) -> None:
    """Each variable's step moves by what it missed, and the basis with it."""
    rng = np.random.default_rng(2)
    common = rng.normal(size=(2, 12, 32, 32)).cumsum(1).cumsum(2).cumsum(3)
    mixed = np.einsum("vk,kxyz->vxyz", rng.normal(size=(8, 2)) * 10.0 ** -np.arange(8)[:, None], common)
    ds = xr.Dataset({f"v{i}": (("t", "y", "x"), a.astype(np.float32)) for i, a in enumerate(mixed)})
    passes = coarser(1.5)
    judged(ds, tmp_path / "a.hbae", {n: [("nrmse", 1e-3)] for n in ds}, method="linear")
    with Archive(tmp_path / "a.hbae") as archive:
        plan = archive.plan(0)
    assert plan.ties_variables
    assert (passes[0], plan.gae) == (2, None)


@pytest.mark.parametrize("kind", ["nrmse", "psnr"])
def test_the_last_resort_is_every_block(
    kind: str,
    coarser: Callable[..., list[int]],
    fields: Callable[..., xr.Dataset],
    judged: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    passes = coarser(50.0)
    monkeypatch.setattr(pass2, "finer_plan", lambda plan, factor: plan)
    bounds = {n: [(kind, 1e-3 if kind == "nrmse" else 60.0)] for n in "TUV"}
    judged(fields(), tmp_path / "a.hbae", bounds, method="linear")
    assert passes[0] in (pass2.REDO + 2, pass2.REDO + 3), "one more under a basis"


def wrong_values(monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """Let the decoder give another value at one point from the given call on."""
    right, calls = chunks.values_of, [0]

    def wrong(*args: Any) -> Any:
        out = right(*args)
        calls[0] += 1
        if calls[0] > times:
            out.reshape(-1)[0] += 1 + abs(out.reshape(-1)[0])
        return out

    monkeypatch.setattr(chunks, "values_of", wrong)


def test_a_decoder_that_errs_alike_costs_bytes_only(
    fields: Callable[..., xr.Dataset], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What the reader would get is judged: wrong values are kept exactly or the chunk without loss."""
    wrong_values(monkeypatch, 0)
    ds = fields()
    hbae.compress(ds, tmp_path / "a.hbae", "abs=1e-2", method="linear")
    back = hbae.decompress(tmp_path / "a.hbae", backend="numpy")
    assert max(float(np.abs(back[n].values - ds[n].values).max()) for n in "TUV") <= 1e-2


def broken(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Break the decoder in a way that no repair heals."""
    if kind == "lossless":
        right = chunks.decode_lossless

        def spoiled(*args: Any) -> Any:
            out = right(*args).copy()
            out.reshape(-1).view(np.uint8)[0] ^= 1
            return out

        monkeypatch.setattr(chunks, "decode_lossless", spoiled)
        return
    judge = encode.check_chunk

    def misses(*args: Any, **kw: Any) -> Any:
        found = judge(*args, **kw)
        return replace(found, points_hold=[False] * len(found.points_hold))

    for place in (encode, original):
        monkeypatch.setattr(place, "check_chunk", misses)


@pytest.mark.parametrize("kind", ["lossless", "points"])
def test_a_broken_decoder_writes_nothing(
    kind: str, fields: Callable[..., xr.Dataset], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken(kind, monkeypatch)
    ds = fields()
    if kind == "lossless":
        # Few values: fewer bytes without loss than with any.
        ds = xr.Dataset({"T": (("a", "b"), np.random.default_rng(0).integers(0, 3, (30, 40)).astype("f4"))})
    with pytest.raises(BoundViolationError):
        hbae.compress(ds, tmp_path / "a.hbae", "abs=1e-6", method="auto")
    assert list(tmp_path.iterdir()) == []


def test_a_global_bound_that_cannot_be_met_writes_nothing(
    fields: Callable[..., xr.Dataset], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(pass2, "global_ratios", lambda totals, members: np.full(len(members), 1.5))
    (tmp_path / "a.hbae").write_bytes(b"old")
    with pytest.raises(OutputExistsError):
        hbae.compress(fields(), tmp_path / "a.hbae", "nrmse=1e-3", method="linear")
    with pytest.raises(BoundViolationError, match="global bound of T, U, V"):
        hbae.compress(fields(), tmp_path / "a.hbae", "nrmse=1e-3", method="linear", overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["a.hbae"]
    assert (tmp_path / "a.hbae").read_bytes() == b"old"


def test_a_small_miss_costs_a_few_chunks(
    coarser: Callable[..., list[int]],
    judged: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Chunks that carry the error are coded again with finer steps; the others stay as they are."""
    x = np.linspace(0, 9, 96 * 64 * 32).reshape(96, 64, 32)
    a = (np.sin(x) + np.random.default_rng(0).normal(size=x.shape) * np.linspace(0.5, 1.5, 96)[:, None, None]).astype(
        "f4"
    )
    ds, numbers, encode_some = xr.Dataset({"T": (("t", "y", "x"), a)}), [], pass2.GroupWriter._encode

    def noted(run: Any, job: Any, g: Any, again: Any, errors: Any) -> Any:
        numbers.append((job.fine, again))
        return encode_some(run, job, g, again, errors)

    monkeypatch.setattr(pass2.GroupWriter, "_encode", noted)
    passes = coarser(1.06)
    judged(ds, tmp_path / "a.hbae", {"T": [("nrmse", 2e-2)]}, method="linear", chunk=0.0625)
    first, *others = numbers
    assert passes == [1]
    assert len(first[1]) >= 6
    assert others
    assert all(fine > 0 and 0 < len(again) <= len(first[1]) / 3 for fine, again in others)


def test_chunks_to_code_again_are_the_fewest() -> None:
    errors = [[VariableErrors(sse, 10, 1.0) for sse in row] for row in ([1, 9, 1, 2, 0.1, 1], [1, 1, 1, 1, 1, 1])]
    assert worst_chunks(errors, np.array([1.05, 0.9]), 0.3).tolist() == [1]
    assert worst_chunks(errors, np.array([1.0, 0.9]), 0.3).tolist() == []
    assert worst_chunks(errors, np.array([0.5, 1.01]), 0.3).tolist() == [0]
    assert worst_chunks(errors, np.array([2.0, 0.9]), 0.3).tolist() == [], "everything would have to be coded again"


def test_a_chunk_that_carries_the_error_gets_the_steps_it_needs() -> None:
    """A miss by much is met there, too, rather than by finer steps everywhere."""
    errors = [[VariableErrors(sse, 10, 1.0) for sse in row] for row in ([1, 40, 1, 2, 0.1, 1], [1, 1, 1, 1, 1, 1])]
    fine, again = touch_up(errors, np.array([1.4, 0.9]), 0)
    assert (fine, again.tolist()) == (128, [1])
    fine, again = touch_up(errors, np.array([1.35, 0.9]), 128)
    assert (fine, again.tolist()) == (192, [1])
    assert touch_up(errors, np.array([1.4, 1.4]), 0)[1].tolist() == [], "the second variable's error is everywhere"
    assert touch_up(errors, np.array([1.4, 0.9]), 192)[1].tolist() == []


def test_a_small_miss_of_one_variable_is_met_by_its_steps() -> None:
    """Coding one of four chunks again would take a part of all bytes; steps of one of many variables hardly any."""
    ratio = np.append(1.02, np.full(30, 0.95))
    assert (
        growth_of_plan(ratio, 0, tied=True) < 0.01 < growth_of_plan(ratio, 1, tied=True) < growth_of_chunks(64, 1 / 4)
    )
    first, second = (finer_factors(ratio, k, tied=True) for k in (0, 1))
    assert (first[1:] == 1).all()
    assert first[0] < finer_factors(ratio, 0, tied=False)[0] < 1, "errors under a basis follow less"
    assert ((second[1:] < 1) & (second[1:] > 0.9)).all(), "others made the error, too"
    for third in (finer_factors(ratio, 2, tied=True), finer_factors(ratio, 1, tied=False)):
        assert third[0] < 1
        assert (third == third[0]).all()


def test_a_miss_is_judged_by_what_it_costs(fields: Callable[..., xr.Dataset], tmp_path: Path) -> None:
    """One chunk of four that misses: not coded again where the steps of one of many variables will do."""
    ds = fields((16, 24, 24), "TUV")
    hbae.compress(ds, tmp_path / "a.hbae", "nrmse=1e-3", method="linear")
    with Archive(tmp_path / "a.hbae") as a:
        plan = a.plan(0)
    members = [SimpleNamespace(target=Target(rmse=1.0, span=1.0)) for _ in range(3)]
    errors = {i: [VariableErrors(98.0 if v == 0 else 90.0, 100, 1.0) for v in range(3)] for i in range(4)}
    errors[3][0] = VariableErrors(122.0, 100, 1.0)
    job: Any = SimpleNamespace(plan=plan, fine=0, lossless=False)
    group: Any = SimpleNamespace(members=members)
    cheap, dear = (pass2._judge(errors, group, job, attempt) for attempt in (0, 2))
    assert len(dear.again)
    assert not len(cheap.again)


def test_a_file_that_cannot_be_read_back_never_gets_its_name(
    fields: Callable[..., xr.Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a new name nor one in use."""

    def broken(*_: Any) -> None:
        raise BoundViolationError("cannot be read back")

    hbae.compress(fields(), tmp_path / "old.hbae", "abs=0.1", method="linear")
    before = (tmp_path / "old.hbae").read_bytes()
    monkeypatch.setattr(compress, "read_back", broken)
    for name in ("new.hbae", "old.hbae"):
        with pytest.raises(BoundViolationError, match="read back"):
            hbae.compress(fields(), tmp_path / name, "abs=0.2", method="linear", overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["old.hbae"]
    assert (tmp_path / "old.hbae").read_bytes() == before
