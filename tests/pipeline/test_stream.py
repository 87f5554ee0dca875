# SPDX-License-Identifier: MIT
"""Streams: every bound in every chunk, whatever later steps bring; what does not fit is refused by name."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import pytest
import xarray as xr

import hbae
from hbae.arrays import Array, boxes_of
from hbae.errors import FieldError

SHAPE = (20, 24)
SPAN = (-2.0, 3.0)
KINDS = {
    "nrmse": 1e-3,
    "psnr": 60.0,
    "abs": 4e-3,
    "rel_range": 1e-3,
    "l2": 0.05,
    "block_nrmse": 1e-3,
    "pw_rel": 1e-3,
}


def smooth(t: int, shape: tuple[int, ...] = SHAPE, dtype: str = "f4") -> Array:
    """One step of a smooth field with a little noise."""
    y, x = np.meshgrid(*(np.arange(n) / 9 for n in shape), indexing="ij")
    noise = np.random.default_rng(t).normal(0, 1e-3, shape)
    return (np.sin(x + 0.1 * t) * np.cos(y - 0.05 * t) + noise).astype(dtype)


@np.errstate(over="ignore")
def unruly(t: int, dtype: str) -> Array:
    """A field that is constant, varies, grows by 1e6, is NaN in part, then everywhere, is infinite, and shrinks."""
    x = smooth(t, dtype=dtype)
    if t < 7:
        return np.full_like(x, 0.25)
    if 14 <= t < 20:
        x = (x * 10.0 ** (t - 13)).astype(dtype)
    if t in (21, 22):
        x[3:9, t - 5 :] = np.nan
    if t == 23:
        x[:] = np.nan
    if t == 24:
        x[::3, 1] = np.inf
        x[5, :] = 0
    return x if t < 25 else (x * 1e-6).astype(dtype)


def boxes(path: Path, name: str, shape: tuple[int, ...]) -> Iterator[tuple[tuple[slice, ...], tuple[int, ...]]]:
    """Chunks and blocks of a variable as the archive says; none for a variable that is kept without loss."""
    for g in hbae.info(path)["groups"]:
        if name in g["variables"]:
            for box in boxes_of(shape, tuple(g["geometry"]["chunk"])):
                yield box, tuple(g["geometry"]["block"])


def check(path: Path, name: str, x: Array, y: Array, bounds: dict[str, float]) -> None:
    """Judge a variable chunk by chunk with no slack; what is not finite comes back bit for bit."""
    assert y.dtype == x.dtype
    assert y.shape == x.shape
    ok = np.isfinite(x)
    assert y[~ok].tobytes() == x[~ok].tobytes()
    assert np.isfinite(y[ok]).all()
    found = list(boxes(path, name, x.shape))
    if not found:
        assert y.tobytes() == x.tobytes()
    width = SPAN[1] - SPAN[0]
    for box, block in found:
        good = ok[box]
        a, e = x[box].astype("f8"), np.zeros(good.shape)
        e[good] = np.abs(y[box][good].astype("f8") - a[good])
        for kind, value in bounds.items():
            if kind in ("abs", "rel_range"):
                assert (e <= value * (width if kind == "rel_range" else 1)).all(), kind
            elif kind == "pw_rel":
                assert (e[good] <= value * np.abs(a[good])).all()
            elif kind in ("nrmse", "psnr"):
                rmse = math.sqrt(math.fsum((e[good] ** 2).tolist()) / max(1, good.sum()))
                assert rmse <= value * width if kind == "nrmse" else not rmse or -20 * math.log10(rmse / width) >= value
            else:
                for cell in boxes_of(e.shape, block):
                    norm, n = math.sqrt(math.fsum((e[cell].ravel() ** 2).tolist())), int(good[cell].sum())
                    assert norm <= value if kind == "l2" else not n or norm / math.sqrt(n) <= value * width, kind


def write(path: Path, bounds: dict[str, float], field: Any, count: int, **options: Any) -> Any:
    """Stream ``field(t)`` as variable u; gives the report and all steps."""
    text = ",".join(f"{k}={v!r}" for k, v in bounds.items())
    with hbae.StreamWriter(path, text, range={"u": SPAN}, **options) as w:
        for t in range(count):
            w.append(t, {"u": field(t)})
    steps = [field(t) for t in range(count)]
    return np.stack(steps, out=np.empty((count, *steps[0].shape), steps[0].dtype))


@pytest.mark.parametrize("dtype", ["f4", ">f8", "f2"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_bound_holds_whatever_comes_later(kind: str, dtype: str, tmp_path: Path) -> None:
    path = tmp_path / "a.hbae"
    bounds = {kind: KINDS[kind]}
    x = write(path, bounds, lambda t: unruly(t, dtype), 27, steps=6)
    check(path, "u", x, hbae.decompress(path)["u"].values, bounds)
    with hbae.open(path, backend="numpy") as lazy:
        check(path, "u", x, lazy["u"].values, bounds)
    original = xr.Dataset({"u": (("time", "dim0_20", "dim1_24"), x)}, {"time": np.arange(27)})
    original.encoding["unlimited_dims"] = {"time"}
    found = hbae.verify(path, original)
    assert found.comparable
    assert found.ok, found.failures
    assert os.listdir(tmp_path) == ["a.hbae"]


@pytest.mark.parametrize("count", [1, 2, 11, 12, 13, 25])
def test_any_number_of_steps(count: int, tmp_path: Path) -> None:
    path = tmp_path / "a.hbae"
    bounds = {"block_nrmse": 1e-3, "nrmse": 1e-4}
    x = write(path, bounds, smooth, count, steps=12, chunk=0.0625)
    check(path, "u", x, hbae.decompress(path)["u"].values, bounds)


def test_chunks_over_space_hold_nrmse_each(tmp_path: Path) -> None:
    """A part of the field is a hundred times as large: over the whole it alone would take the error."""
    scale = np.ones(SHAPE)
    scale[:, 12:] = 0.01
    bounds = {"nrmse": 2e-3}
    path = tmp_path / "a.hbae"
    x = write(path, bounds, lambda t: (smooth(t) * scale).astype("f4"), 50, steps=24)
    assert hbae.info(path)["groups"][0]["chunks"] == 3
    check(path, "u", x, hbae.decompress(path)["u"].values, bounds)


def test_a_stream_is_smaller_than_its_fields(tmp_path: Path) -> None:
    write(tmp_path / "a.hbae", {"nrmse": 1e-3}, smooth, 60, steps=30)
    assert (tmp_path / "a.hbae").stat().st_size < 60 * 4 * math.prod(SHAPE) / 4


def test_a_constant_beginning_costs_next_to_nothing(tmp_path: Path) -> None:
    """The plan waits for the slab in which the field begins to vary."""
    late, soon = tmp_path / "late.hbae", tmp_path / "soon.hbae"
    write(late, {"nrmse": 1e-3}, lambda t: smooth(t - 12) if t >= 12 else np.ones(SHAPE, "f4"), 36, steps=12)
    write(soon, {"nrmse": 1e-3}, smooth, 24, steps=12)
    assert late.stat().st_size <= soon.stat().st_size + 300


def dataset(t: int) -> xr.Dataset:
    """One step of a Dataset: floats, packed and plain integers, a number, a mask, coordinates and texts."""
    rng = np.random.default_rng(t)
    return xr.Dataset(
        {
            "u": (("y", "x"), smooth(t), {"units": "m/s", "_FillValue": np.float32(-9)}),
            "p": (("y", "x"), (smooth(t) * 1000).astype("i2"), {"scale_factor": 0.01, "add_offset": 5.0}),
            "k": (("y", "x"), rng.integers(0, 2**40, SHAPE)),
            "mass": ((), np.float64(t / 3)),
            "wet": (("y", "x"), np.arange(math.prod(SHAPE)).reshape(SHAPE) % 97 == t),
        },
        {"x": np.arange(SHAPE[1]) / 7, "name": ("y", np.array([f"r{i}" for i in range(SHAPE[0])], object))},
        {"title": "test", "levels": np.arange(3, dtype="i2")},
    )


@pytest.mark.parametrize("count", [5, 14])
def test_a_dataset_comes_back_as_one_along_time(count: int, tmp_path: Path) -> None:
    path = tmp_path / "a.hbae"
    bound = {"u": "abs=1e-2,abs=1e-3@wet", "p": "abs=0.02"}
    with hbae.StreamWriter(path, bound, steps=6) as w:
        for t in range(count):
            w.append(0.5 * t, dataset(t))
    steps = [dataset(t) for t in range(count)]
    back = hbae.decompress(path)
    assert back["time"].values.tolist() == [0.5 * t for t in range(count)]
    assert back.attrs["title"] == "test"
    assert back.encoding["unlimited_dims"] == ["time"]
    for name in ("k", "mass", "wet"):
        assert back[name].values.tobytes() == np.stack([s[name].values for s in steps]).tobytes()
    for name in ("x", "name"):
        assert back[name].dims == steps[0][name].dims
        assert back[name].values.tolist() == steps[0][name].values.tolist()
    u, wet = (np.stack([s[n].values for s in steps]) for n in ("u", "wet"))
    e = np.abs(back["u"].values.astype("f8") - u)
    assert e.max() <= 1e-2
    assert e[wet].max() <= 1e-3
    assert e.max() > 0
    p = np.stack([s["p"].values for s in steps]).astype("f8") * 0.01 + 5
    assert np.abs(back["p"].values.astype("f8") * 0.01 + 5 - p).max() <= 0.02
    assert back["u"].attrs == steps[0]["u"].attrs
    assert hbae.verify(path).ok


def test_an_ordinary_file_for_all_commands(tmp_path: Path) -> None:
    """Info, verify and decompress to NetCDF do with it what they do with any archive."""
    from hbae.cli.main import run

    path = tmp_path / "a.hbae"
    write(path, {"nrmse": 1e-3}, smooth, 9, steps=4)
    assert run(["info", str(path), "-q"]) == run(["verify", str(path), "-q"]) == 0
    assert run(["decompress", str(path), "-o", str(tmp_path / "a.nc"), "-q"]) == 0
    with netCDF4.Dataset(tmp_path / "a.nc") as d:
        assert d.dimensions["time"].isunlimited()
        assert d["u"].shape == (9, *SHAPE)
        assert d["time"][:].tolist() == list(range(9))


@pytest.mark.parametrize(
    ("steps", "kind"),
    [
        ((2**62, 2**62 + 1), "<i8"),
        ((-5, 0, 7), "<i8"),
        ((0.1, 0.1 + 2**-56 + 1e-17, 3), "<f8"),
        ((np.int32(4), 5), "<i8"),
    ],
)
def test_the_number_of_a_step_is_kept_exactly(steps: tuple[Any, ...], kind: str, tmp_path: Path) -> None:
    with hbae.StreamWriter(tmp_path / "a.hbae", "abs=1", steps=2) as w:
        for s in steps:
            w.append(s, {"u": smooth(1)})
    time = hbae.decompress(tmp_path / "a.hbae")["time"].values
    assert time.dtype.str == kind
    assert time.tolist() == list(steps)


def test_what_differs_from_the_first_step_is_refused_by_name(tmp_path: Path) -> None:
    def change(**attrs: Any) -> xr.Dataset:
        ds = dataset(1)
        ds["u"].attrs.update(attrs)
        return ds

    wrong = {
        "mass: missing": dataset(1).drop_vars("mass"),
        "z: new": dataset(1).assign(z=(("y", "x"), smooth(1))),
        "u: its dtype": dataset(1).assign(u=(("y", "x"), smooth(1, dtype="f8"), dataset(1)["u"].attrs)),
        "its shape": dataset(1).isel(y=slice(0, 9)),
        "u: its attributes": change(units="km/s"),
        "the attributes": dataset(1).assign_attrs(title="other"),
        "x: a coordinate changes": dataset(1).assign_coords(x=np.arange(SHAPE[1]) / 8),
        "time": dataset(1).assign_coords(time=3.0),
    }
    path = tmp_path / "a.hbae"
    with hbae.StreamWriter(path, "abs=1e-2") as w:
        w.append(0, dataset(0))
        before = {n: (tmp_path / n).read_bytes() for n in os.listdir(tmp_path)}
        for said, ds in wrong.items():
            with pytest.raises(FieldError, match=said):
                w.append(1, ds)
        assert {n: (tmp_path / n).read_bytes() for n in os.listdir(tmp_path)} == before
        w.append(1, dataset(1))
    assert hbae.decompress(path).sizes["time"] == 2


def test_memory_holds_one_slab(tmp_path: Path) -> None:
    """Twice as many steps take no more memory, and the journal never holds more than a slab."""
    import tracemalloc

    def peak(count: int) -> int:
        path = tmp_path / f"{count}.hbae"
        tracemalloc.start()
        most = 0
        with hbae.StreamWriter(path, "abs=1e-2", steps=6) as w:
            for t in range(count):
                w.append(t, {"u": smooth(t, (64, 64))})
                most = max(most, Path(f"{path}.part.journal").stat().st_size)
        assert most <= 6 * (64 * 64 * 4 + 100)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(6)
    assert peak(48) <= 1.2 * peak(12) + (1 << 16)


def test_report_is_true(tmp_path: Path) -> None:
    path = tmp_path / "a.hbae"
    w = hbae.StreamWriter(path, "abs=1e-2", steps=4)
    for t in range(5):
        w.append(t, {"u": smooth(t), "k": np.arange(5)})
    report = w.close()
    assert report.size == path.stat().st_size
    assert report.raw_bytes == 5 * (4 * math.prod(SHAPE) + 5 * 8)
    assert json.loads(json.dumps(report.to_json()))["cr"] == report.raw_bytes / report.size


@pytest.mark.parametrize("killed", [False, True])
def test_a_trained_model_serves_as_base(killed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Linear plans are left out, so that the model is used; a repaired stream has its decoder, though no encoder."""
    pytest.importorskip("torch")
    from hbae.pipeline.stream import coder
    from hbae.pipeline.training import train

    def only_hbae(*args: Any, **options: Any) -> Any:
        assert args[3] == ("linear", "hbae")
        return real(*args[:3], ("hbae",), **options)

    real = coder.choose_plan
    monkeypatch.setattr(coder, "choose_plan", only_hbae)
    x = np.stack([smooth(t) for t in range(30)])
    xr.Dataset({"u": (("time", "y", "x"), x)}).to_netcdf(tmp_path / "a.nc")
    model, path = tmp_path / "m.hbm", tmp_path / "a.hbae"
    train(tmp_path / "a.nc", model, budget="2ep")
    w = hbae.StreamWriter(path, "block_nrmse=2e-3,nrmse=1e-3", range={"u": SPAN}, model=model, steps=12)
    for t in range(30):
        w.append(t, {"u": x[t]})
    if killed:
        w.leave()
        model.unlink()
        hbae.repair(f"{path}.part")
    else:
        w.close()
    assert hbae.info(path)["groups"][0]["model"] is not None
    check(path, "u", x, hbae.decompress(path)["u"].values, {"block_nrmse": 2e-3, "nrmse": 1e-3})
    assert hbae.verify(path).ok


def test_every_variable_holds_nrmse_in_every_chunk(tmp_path: Path) -> None:
    """Steps of one variable stay smooth, those of the other turn to noise: the worse one decides."""
    path, noisy = tmp_path / "a.hbae", np.random.default_rng(2).normal(0, 0.5, (90, *SHAPE)).astype("f4")
    fields = {"u": [smooth(t) for t in range(90)], "w": [smooth(t) if t < 30 else noisy[t] for t in range(90)]}
    with hbae.StreamWriter(path, "nrmse=1e-3", range={"u": SPAN, "w": SPAN}) as w:
        for t in range(90):
            w.append(t, {n: a[t] for n, a in fields.items()})
    back = hbae.decompress(path)
    for n, steps in fields.items():
        check(path, n, np.stack(steps), back[n].values, {"nrmse": 1e-3})


def test_what_append_returns_from_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash of the machine, unlike a kill, takes what was not synced: files before renames, folders after them."""
    events: list[tuple[str, str]] = []
    sync, replace = os.fsync, os.replace

    def synced(fd: int) -> None:
        sync(fd)
        events.append(("sync", os.readlink(f"/proc/self/fd/{fd}")))

    def renamed(old: Any, new: Any) -> None:
        assert ("sync", str(Path(old).absolute())) in events, f"{old} was renamed before it was synced"
        replace(old, new)
        events.append(("rename", str(Path(new).absolute())))

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed)
    folder, slabs = str(tmp_path), 0
    with hbae.StreamWriter(tmp_path / "a.hbae", "abs=1e-3") as w:
        for t in range(70):
            events.clear()
            w.append(t, {"u": smooth(t)})
            assert events[-1][0] == "sync"
            places = [place for _, place in events]
            if any(kind == "rename" for kind, _ in events):
                at = [kind for kind, _ in events].index("rename")
                assert places[at].endswith("journal"), places
                assert ("sync", folder) in events[at:], "the new name may be lost"
                if t > 0:
                    slabs += 1
                    assert any(p.endswith(".part") for p in places[:at]), (
                        "steps leave the journal before the slab is safe"
                    )
            else:
                assert places[-1].endswith("journal")
    assert slabs
