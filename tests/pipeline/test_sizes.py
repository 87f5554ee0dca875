# SPDX-License-Identifier: MIT
"""P3 and P7: the size is the file's length, and never much worse than without any loss."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import hbae
from hbae.bound import resolve_target
from hbae.config import ErrorBound
from hbae.exact import get_backend
from hbae.pipeline import calibrate, encode
from hbae.pipeline import chunk as chunks
from hbae.pipeline.archive import Archive
from hbae.pipeline.variants import relations


@pytest.mark.parametrize("method", ["linear", "auto", "lossless", "hbae"])
@pytest.mark.parametrize("redundant", [False, True])
def test_the_size_is_the_length_of_the_file(
    method: str, redundant: bool, fields: Callable[..., xr.Dataset], tmp_path: Path
) -> None:
    path, ds = tmp_path / "a.hbae", fields()
    options = {"budget": "1ep"} if method == "hbae" else {}
    r = hbae.compress(ds, path, "nrmse=1e-2", method=method, redundant=redundant, **options)
    assert r.size == path.stat().st_size == len(path.read_bytes())
    assert sum(r.sizes.values()) == r.size
    assert sum(hbae.info(path)["sizes"].values()) == r.size
    raw = sum(ds[n].nbytes for n in "TUV")
    assert r.raw_bytes == raw
    assert r.cr == raw / r.size
    assert r.bits_per_value == 8 * r.size / (raw // 4)
    assert r.to_json()["cr"] == r.cr
    if r.model_size:
        assert any(name.startswith("model") and n >= r.model_size for name, n in r.sizes.items())


def test_reported_errors_are_those_of_the_decoded_values(fields: Callable[..., xr.Dataset], tmp_path: Path) -> None:
    ds = fields()
    r = hbae.compress(ds, tmp_path / "a.hbae", "nrmse=1e-3", method="linear")
    back = hbae.decompress(tmp_path / "a.hbae")
    for v in r.variables:
        x, y = ds[v.path].values.astype("f8"), back[v.path].values.astype("f8")
        assert v.max_error == np.abs(x - y).max()
        assert v.span == x.max() - x.min()
        assert v.nrmse == pytest.approx(np.sqrt(((x - y) ** 2).mean()) / v.span, rel=1e-12)
        assert v.psnr == pytest.approx(-20 * np.log10(v.nrmse), rel=1e-12)
        assert 0.8e-3 < v.nrmse <= 1e-3


def awkward(kind: str) -> xr.Dataset:
    """Data on which loss does not pay."""
    rng = np.random.default_rng(0)
    x = {
        "constant": np.full((30, 40), 2.5, "f4"),
        "noise": rng.integers(0, 2**32, (30, 40), dtype=np.uint32).view("f4"),
        "two": np.where(rng.random((30, 40)) < 0.5, 1.0, 2.0).astype("f4"),
        "nan": np.full((30, 40), np.nan, "f4"),
        "counts": rng.integers(0, 3, (30, 40)).astype("f8"),
    }[kind]
    return xr.Dataset({"T": (("a", "b"), x)})


@pytest.mark.parametrize("kind", ["constant", "noise", "two", "nan", "counts"])
@pytest.mark.parametrize("bound", ["nrmse=1e-6", "abs=1e-9", "pw_rel=1e-6", "l2=1e-7", "block_nrmse=1e-7"])
def test_never_worse_than_lossless(kind: str, bound: str, tmp_path: Path) -> None:
    ds = awkward(kind)
    plain = hbae.compress(ds, tmp_path / "p.hbae", bound, method="lossless")
    for method in ("auto", "linear"):
        r = hbae.compress(ds, tmp_path / f"{method}.hbae", bound, method=method)
        assert r.size <= plain.size + 1024


@pytest.mark.parametrize("bound", ["nrmse=1e-13", "nrmse=1e-16", "abs=1e-15", "abs=1e304", "nrmse=1e280"])
def test_steps_beyond_exact_arithmetic_are_no_end(bound: str, judged: Callable[..., Any], tmp_path: Path) -> None:
    """Families that cannot be made are left out; a search for a size passes by such steps, too."""
    rng = np.random.default_rng(0)
    ds = xr.Dataset({v: (("y", "x"), rng.normal(size=(64, 64))) for v in "abc"})
    kind, value = bound.split("=")
    judged(ds, tmp_path / "a.hbae", {v: [(kind, float(value))] for v in ds}, method="linear")
    report = hbae.compress(ds, tmp_path / "b.hbae", cr=1.3, method="linear")
    assert report.size <= ds["a"].nbytes * 3 / 1.3


def test_finalists_meet_on_a_whole_chunk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A rest at an edge, or a corner of a box, says little about plans that want room."""
    met, real = [], calibrate._try_finalist

    def spy(trials: Any, candidate: Any, weight: Any) -> Any:
        met.append(sum(raw[0].size for raw, _ in trials.part.boxes))
        here = calibrate.weigh(candidate, trials.targets, trials.part, calibrate.get_backend("numpy"))
        assert weight.size == here.size
        return real(trials, candidate, weight)

    monkeypatch.setattr(calibrate, "_try_finalist", spy)
    monkeypatch.setattr(calibrate, "FIRST_POINTS", 1 << 14)
    # No chunk divides these lengths.
    x = np.cumsum(np.random.default_rng(3).normal(size=(35, 67, 67)), axis=1).astype(np.float32)
    ds = xr.Dataset({"a": (("t", "y", "x"), x)})
    hbae.compress(ds, tmp_path / "a.hbae", "nrmse=1e-3", method="linear", chunk=0.25, threads=1)
    with Archive(tmp_path / "a.hbae") as archive:
        points = [math.prod(s.stop - s.start for s in box) for box in archive.parts[0].boxes]
    assert len(set(points)) > 1
    assert met
    assert min(met) >= max(points)


def test_a_kind_that_is_near_is_weighed_on_a_whole_chunk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The first round's small part flatters transforms: wavelets were out before they met on a whole chunk."""
    real, met = calibrate._try_family, []

    def flattered(trials: Any, setting: int, task: tuple[str, ...]) -> Any:
        family, weight = real(trials, setting, task)
        kind = family.members[0].kind if family.members else ""
        return family, weight._replace(size={"transform": 1000.0, "wavelet": 1050.0}.get(kind, 1200.0))

    def spy(trials: Any, candidate: Any, weight: Any) -> Any:
        met.append(candidate.kind)
        return math.inf if candidate.kind == "transform" else 1.0, candidate

    monkeypatch.setattr(calibrate, "_try_family", flattered)
    monkeypatch.setattr(calibrate, "_try_plan", lambda *_: calibrate.Weight(math.inf, None, True))
    monkeypatch.setattr(calibrate, "_try_finalist", spy)
    x = np.cumsum(np.random.default_rng(3).normal(size=(3, 24, 64, 64)), axis=2).astype(np.float32)
    ds = xr.Dataset({n: (("t", "y", "x"), a) for n, a in zip("abc", x, strict=True)})
    hbae.compress(ds, tmp_path / "a.hbae", "nrmse=1e-5", method="linear", threads=1)
    assert met.count("transform") >= calibrate._FINALISTS
    assert set(met) == {"transform", "wavelet"}


def test_two_plans_of_a_family_meet_on_a_whole_chunk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The small part may flatter one grouping of a wavelet's axes, too."""
    real, met = calibrate._try_family, []

    def only_wavelets(trials: Any, setting: int, task: tuple[str, ...]) -> Any:
        family, weight = real(trials, setting, task)
        own = family.members and family.members[0].kind == "wavelet"
        return family, weight._replace(size=1000.0 if own else 9000.0)

    def spy(trials: Any, candidate: Any, weight: Any) -> Any:
        met.append(candidate.plan.wavelet)
        return float(len(met)), candidate

    monkeypatch.setattr(calibrate, "_try_family", only_wavelets)
    monkeypatch.setattr(calibrate, "_try_plan", lambda *_: calibrate.Weight(1001.0, None, True))
    monkeypatch.setattr(calibrate, "_try_finalist", spy)
    x = np.cumsum(np.random.default_rng(3).normal(size=(24, 64, 64)), axis=2).astype(np.float32)
    ds = xr.Dataset({"a": (("t", "y", "x"), x)})
    hbae.compress(ds, tmp_path / "a.hbae", "nrmse=1e-3", method="linear", threads=1)
    assert len(met) == len(set(met)) == 2


def test_where_little_happens_the_plan_is_chosen_where_it_does(tmp_path: Path) -> None:
    """P7: one wave somewhere in a field of zeros; random boxes would hold nothing."""
    rng = np.random.default_rng(0)
    t, y, x = np.meshgrid(np.arange(16), np.arange(32), np.arange(32), indexing="ij")
    wave = np.sin(t / 9) * np.cos(y / 7) * np.sin(x / 5) + rng.normal(0, 1e-2, t.shape)
    sizes = []
    for at in ((0, 0), (96, 160), (160, 32)):
        a = np.zeros((16, 224, 224), "f4")
        a[:, at[0] : at[0] + 32, at[1] : at[1] + 32] = wave
        ds = xr.Dataset({n: (("t", "y", "x"), k * a) for n, k in (("a", 1), ("b", 3))})
        report = hbae.compress(ds, tmp_path / "a.hbae", "nrmse=1e-3", method="linear", chunk=1.0, overwrite=True)
        sizes.append(report.size)
    assert max(sizes) < 1.3 * min(sizes)


@pytest.mark.parametrize("bound", ["nrmse=1e-7", "abs=1e-5", "pw_rel=1e-6", "nrmse=1e-3"])
def test_no_chunk_is_larger_than_without_loss(bound: str, fields: Callable[..., xr.Dataset], tmp_path: Path) -> None:
    ds = fields((16, 40, 48), "TU")
    hbae.compress(ds, tmp_path / "a.hbae", bound, method="linear", chunk=0.0625)
    with Archive(tmp_path / "a.hbae") as a:
        for part in a.parts:
            if part.group is None:
                continue
            for i, box in enumerate(part.boxes):
                raw = np.stack([ds[n].values[box] for n in part.paths])
                assert len(a.reader.chunk(part.first + i)) <= len(chunks.encode_lossless_chunk(raw))


@pytest.mark.parametrize("bound", ["nrmse=1e-3", "abs=1e-3", "l2=1e-2"])
def test_a_small_file_carries_little_beside_its_values(bound: str, tmp_path: Path) -> None:
    ds = xr.Dataset({"T": (("a",), np.linspace(0, 1, 10).astype("f4"))})
    assert hbae.compress(ds, tmp_path / "a.hbae", bound).size < 1024 + ds.nbytes


def test_second_copies_are_counted_where_they_lie(fields: Callable[..., xr.Dataset], tmp_path: Path) -> None:
    single = hbae.compress(fields(), tmp_path / "a.hbae", "nrmse=1e-2", method="linear").sizes
    double = hbae.compress(fields(), tmp_path / "b.hbae", "nrmse=1e-2", method="linear", redundant=True).sizes
    sections = set(single) - {"chunks", "header and index"}
    assert sections
    assert all(double[n] == 2 * single[n] for n in sections)
    assert double["chunks"] == single["chunks"]
    assert hbae.info(tmp_path / "b.hbae")["sizes"] == double


def test_the_lossless_form_wins_by_one_byte(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    ds = xr.Dataset({"a": (("y", "x"), rng.normal(size=(40, 50)))})
    hbae.compress(ds, tmp_path / "a.hbae", "abs=1e-3", method="linear")
    with Archive(tmp_path / "a.hbae") as a:
        coded = a.reader.chunk(0)
    assert coded[0] == chunks.CODED
    real = encode._as_lossless
    for less, kind in ((1, chunks.LOSSLESS), (-1, chunks.CODED)):

        def sized(*args: Any, less: int = less) -> encode.Coded:
            plain = real(*args)
            # Bytes behind the array: the length is what is looked at.
            return replace(plain, payload=plain.payload[:33] + bytes(len(coded) - less - 33))

        monkeypatch.setattr(encode, "_as_lossless", sized)
        monkeypatch.setattr(encode, "estimate_lossless", lambda raw: 0)
        x = ds["a"].values[None]
        with Archive(tmp_path / "a.hbae") as a:
            plan = a.plan(0)
        target = resolve_target([ErrorBound("abs", 1e-3)], float(np.ptp(x)))
        got = encode.encode_chunk(x, np.zeros(x.shape, bool), plan, [target], model=None, backend=get_backend("numpy"))
        assert got.payload[0] == kind


def test_fast_leaves_relations_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fronts of all variables at one place, by factors that change: smaller where they tell of each other, and true."""
    tasks = calibrate.family_tasks
    monkeypatch.setattr(calibrate, "family_tasks", lambda s: [t for t in tasks(s) if "wavelet" in t])
    rng = np.random.default_rng(9)
    x, y = np.meshgrid(np.arange(96), np.arange(80), indexing="ij")
    front = np.tanh((x + 9 * np.sin(y / 9) - 48 + 3 * rng.normal(size=(8, 1, 1))) / 1.5)
    ways = np.stack([np.ones(x.shape), np.sin(x / 20), np.cos(y / 17)])
    factors = np.tensordot(rng.normal(size=(12, 3)), ways, 1)
    source = xr.Dataset({f"v{i}": (("t", "y", "x"), (f * front).astype("f4")) for i, f in enumerate(factors)})
    sizes, related = [], []
    for fast in (True, False):
        path = tmp_path / f"{fast}.hbae"
        sizes.append(hbae.compress(source, path, "nrmse=1e-3", method="linear", fast=fast).size)
        with Archive(path) as a:
            related.append(a.plan(0).related)
        assert hbae.verify(path, source).ok
    assert related[0] == ""
    assert related[1]
    assert sizes[1] < 0.95 * sizes[0]


def test_few_variables_do_not_tell_of_each_other() -> None:
    """Two or three never gained by it; of some, plans without come first, so that steps are set for those."""
    assert all(relations(n, head, fast=False) == ("",) for n in (1, 2, 3) for head in ("none", "klt"))
    assert all(relations(n, head, fast=False)[0] == "" for n in (4, 15) for head in ("none", "klt"))
    assert relations(16, "klt", fast=False) == ("rests", "")
