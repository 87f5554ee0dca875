# SPDX-License-Identifier: MIT
"""P1 and P2 for chunks that are worked on where a device is; torch's CPU stands in for one where there is none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

import hbae
from hbae.arrays import Array
from hbae.bound import ROUNDING, Target, check_chunk
from hbae.cli.main import run
from hbae.errors import ConfigError, FormatError
from hbae.exact import Wavelet, get_backend
from hbae.exact.backend import TorchBackend
from hbae.pipeline import device, original, parts
from hbae.pipeline.archive import Archive
from hbae.pipeline.begin import own_device
from hbae.pipeline.chunk import decode_chunk
from hbae.pipeline.encode import encode_chunk
from hbae.pipeline.parts import Parts, values_of
from hbae.pipeline.plan import GroupPlan
from hbae.pipeline.rounding import round_by_worth
from hbae.pipeline.rounding_there import round_by_worth_there
from hbae.pipeline.waves import Waves
from hbae.ranks import Machine

from .test_same_bits_of_families import CASES, source, write

CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
PLACES = ["torch", pytest.param("cuda", marks=[pytest.mark.gpu, CUDA])]
# What a family has done on a device: its integers, the judging of targets of whole variables, and its values.
ENCODED = {"wavelet": "wave", "wavelet, related": "wave", "wavelet, pca": "wave", "transform": "tile"}
JUDGED = {"wavelet", "wavelet, related", "wavelet, pca", "transform"}
FAMILIES = [n for n in CASES if n not in ("model", "lossless")]


def there(place: str) -> TorchBackend:
    backend = get_backend(place)
    assert isinstance(backend, TorchBackend)
    return backend


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often a device was asked for integers of waves and tiles, values, and errors."""
    counts: Counter[str] = Counter()

    def counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            counts[name] += 1
            return function(*args, **options)

        return call

    for name, owner, attribute in (
        ("wave", original, "wave_integers"),
        ("tile", original, "tile_integers"),
        ("errors", original, "errors_there"),
        ("values", parts.Sum, "stored"),
    ):
        monkeypatch.setattr(owner, attribute, counted(name, getattr(owner, attribute)))
    return counts


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_written_there(
    name: str, place: str, seen: Counter[str], sha: Callable[[xr.Dataset], str], tmp_path: Path
) -> None:
    case = CASES[name]
    far = replace(case, options={**case.options, "device": place})
    write(far, tmp_path / "a.hbae", 1)
    log = CASES[name].bound.startswith("pw_rel")
    assert bool(seen["values"]) != log
    assert {k for k in ("wave", "tile") if seen[k]} == ({ENCODED[name]} if name in ENCODED else set())
    assert bool(seen["errors"]) == (name in JUDGED)
    write(far, tmp_path / "again.hbae", 1)
    assert (tmp_path / "again.hbae").read_bytes() == (tmp_path / "a.hbae").read_bytes()
    write(case, tmp_path / "here.hbae", 1)
    plans = set()
    for file in ("a.hbae", "here.hbae"):
        with Archive(tmp_path / file) as archive:
            plans.add(archive.reader.section("group 0"))
        ways = (("numpy", 1), (place, 1), (place, 3))
        assert len({sha(hbae.decompress(tmp_path / file, backend=b, threads=n)) for b, n in ways}) == 1
    assert len(plans) == 1
    for backend in ("numpy", place):
        assert hbae.verify(tmp_path / "a.hbae", source(), backend=backend).ok


@pytest.mark.parametrize("place", PLACES)
def test_worker_processes_write_the_same(place: str, tmp_path: Path) -> None:
    case = CASES["wavelet, pca"]
    for threads in (1, 2):
        write(replace(case, options={**case.options, "device": place}), tmp_path / f"{threads}.hbae", threads)
    assert (tmp_path / "1.hbae").read_bytes() == (tmp_path / "2.hbae").read_bytes()


def fields(kind: str, masked: bool) -> xr.Dataset:
    """Two smooth variables of a stored type, integers packed, some points marked as missing."""
    rng = np.random.default_rng(2)
    x, y, z = np.meshgrid(np.arange(11) / 4, np.arange(37) / 9, np.arange(41) / 7, indexing="ij")
    data = {}
    for i in range(2):
        a = 20 + 9 * np.sin(x + i) * np.cos(y) + 3 * np.sin(z) + rng.normal(0, 1e-2, x.shape)
        attrs: dict[str, Any] = {}
        if np.dtype(kind).kind in "iu":
            attrs = {"scale_factor": 0.15 if np.dtype(kind).itemsize == 1 else 0.003, "add_offset": 7.0 - 2 * i}
            a = np.rint((a - attrs["add_offset"]) / attrs["scale_factor"])
            attrs |= {"_FillValue": np.array(3, kind)[()]} if masked else {}
        a = a.astype(kind)
        if masked:
            a[2:4, 5:9, 7:20] = attrs.get("_FillValue", np.nan)
        data[f"v{i}"] = (("t", "y", "x"), a, attrs)
    return xr.Dataset(data)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("kind", ["f2", "<f4", ">f4", "f8", ">f8", "u1", "<i2", ">i2", "u2", "i4", "u4"])
def test_every_type_written_there(
    kind: str, masked: bool, place: str, seen: Counter[str], sha: Callable[[xr.Dataset], str], tmp_path: Path
) -> None:
    ds, path = fields(kind, masked), tmp_path / "a.hbae"
    for bound in ("nrmse=1e-2", "abs=0.3"):
        seen.clear()
        asked = {"v0": bound, "v1": bound}
        hbae.compress(ds, path, asked, method="linear", device=place, overwrite=True, threads=1)
        assert seen["values"]
        assert bool(seen["errors"]) == (bound != "abs=0.3" and bool(seen["wave"] + seen["tile"]))
        back = {b: hbae.decompress(path, backend=b) for b in ("numpy", place)}
        assert sha(back["numpy"]) == sha(back[place])
        assert all(back[place][n].dtype == ds[n].dtype for n in ds)
        assert hbae.verify(path, ds).ok


@pytest.fixture(scope="module")
def plans(tmp_path_factory: pytest.TempPathFactory) -> dict[str, GroupPlan]:
    """Plans with the bases of real files."""
    folder, found = tmp_path_factory.mktemp("plans"), {}
    for i, name in enumerate(("wavelet, gae", "wavelet, pca", "transform, gae", "differences")):
        write(CASES[name], folder / f"{i}.hbae", 1)
        with Archive(folder / f"{i}.hbae", backend="numpy") as a:
            found[name] = a.plan(0)
    return found


def hostile(shape: tuple[int, ...], size: int) -> Array:
    """Integers of all magnitudes up to a size, many of them zero."""
    rng = np.random.default_rng(size % 97)
    q = np.rint(rng.normal(size=shape) * 10.0 ** rng.uniform(-1, np.log10(size) - 0.5, shape))
    return np.where(rng.random(shape) < 0.4, 0.0, np.clip(q, -size, size))


def parts_of(plan: GroupPlan, grid: tuple[int, ...], size: int, fresh: Callable[[tuple[int, ...]], Array]) -> Parts:
    tiles = [-(-n // t) for n, t in zip(grid, plan.geometry.tile, strict=True)]
    blocks = [-(-n // t) for n, t in zip(grid, plan.geometry.block, strict=True)]
    found: dict[str, Any] = {}
    for name, basis, count in (("coefs", plan.transform, tiles), ("gae", plan.gae, blocks)):
        if basis is not None:
            found[name] = hostile((basis.kept[0], int(np.prod(count)), *basis.kept[1:]), size).astype(np.int64)
    mixed = (plan.mix.kept[0] if plan.mix is not None else plan.num_variables, *grid)
    if plan.wavelet is not None:
        q = fresh(mixed)
        q[:-1] = hostile(mixed, size)[:-1]
        found["waves"] = Waves(q, np.flatnonzero(q.reshape(len(q), -1).any(axis=1)))
    elif plan.point_unit.any():
        found["point"] = hostile(mixed, size).astype(np.int64)
    return Parts(**found)


UNITS = ("unit", "gae_unit", "point_unit")
CLIPS = [(-3e38, 3e38, 0.0), (0.0, 1.0, 0.5), (-1e-40, 0.0, -0.0), (-0.0, 6e4, -0.0), (2.0, 1.0, 0.0)]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", ["f2", ">f4", "f4", "f8", "i2", "u2"])
@pytest.mark.parametrize("name", ["wavelet, gae", "wavelet, pca", "transform, gae", "differences"])
def test_values_have_the_bits_of_numpy(name: str, kind: str, place: str, plans: dict[str, GroupPlan]) -> None:
    """Integers that no writer makes, at odd clips, offsets and units, on grids of any length."""
    backend, base = there(place), plans[name]
    packing = ((0.3, -1.7) if np.dtype(kind).kind in "iu" else None,) * base.num_variables
    v = base.num_variables
    for low, high, offset in CLIPS:
        for size, unit in ((3, 1e-3), (300, 0.1), (1 << 20, 1e-9), (40, 5e-324), (1 << 16, 1e304)):
            numbers = {"low": low, "high": high, "offset": offset} | dict.fromkeys(UNITS, unit)
            arrays = {k: np.full(v, float(x)) for k, x in numbers.items()}
            plan = replace(base, dtype=np.dtype(kind), packing=packing, **arrays)
            for grid in ((16, 33, 34), (1, 9, 2)):
                with np.errstate(all="ignore"):
                    here = values_of(parts_of(plan, grid, size, np.zeros), plan, grid, get_backend("numpy"))
                    far = values_of(parts_of(plan, grid, size, backend.zeros), plan, grid, backend)
                assert far.dtype == here.dtype
                assert far.tobytes() == here.tobytes(), (low, high, offset, size, unit, grid)


@pytest.mark.parametrize("place", ["numpy", *PLACES])
@pytest.mark.parametrize("worst", [2.0**50, 1e300, np.inf, np.nan])
def test_integers_that_are_too_large_are_refused(worst: float, place: str, plans: dict[str, GroupPlan]) -> None:
    backend, plan = get_backend(place), replace(plans["wavelet, gae"], mix=None)
    q = backend.zeros((plan.num_variables, 16, 33, 34))
    q[1, 3, 4, 5] = worst
    found = Parts(waves=Waves(q, np.array([1])))
    with np.errstate(all="ignore"), pytest.raises(FormatError, match="too large for exact arithmetic"):
        values_of(found, plan, (16, 33, 34), backend)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    ("shape", "groups"),
    [
        ((2, 40), ((0,),)),
        ((1, 9, 70), ((0,), (1,))),
        ((3, 20, 33, 34), ((0,), (1, 2))),
        ((2, 17, 3, 9), ((2, 0, 1),)),
        ((2, 1, 12, 1, 30), ((0, 1, 2, 3),)),
    ],
    ids=str,
)
@pytest.mark.parametrize("worth", [0.0, 0.06, 0.1])
def test_rounding_makes_the_same_choices(
    worth: float, shape: tuple[int, ...], groups: tuple[tuple[int, ...], ...], place: str
) -> None:
    backend, rng = there(place), np.random.default_rng(4)
    x = rng.laplace(size=shape) * 10.0 ** rng.integers(-2, 4, shape)
    x.reshape(-1)[:6] = [0.0, -0.0, 0.5, -0.2, 1e30, np.inf]
    here, wavelet = x.copy(), Wavelet(groups)
    round_by_worth(here, [b.place for b in wavelet.bands(shape[1:])], range(len(shape) - 1), worth)
    with backend.working():
        far = backend.load(x)
        round_by_worth_there(backend, far, [tuple(a + 1 for a in g) for g in groups], worth, pyramid=True)
        assert backend.fetch(far).tobytes() == here.tobytes()
    tiles = x.reshape(shape[0], -1, *shape[1:])
    here = tiles.copy()
    round_by_worth(here, [(slice(None),)], range(1, tiles.ndim - 1), worth)
    with backend.working():
        far = backend.load(tiles)
        round_by_worth_there(backend, far, [tuple(range(2, tiles.ndim))], worth, pyramid=False)
        assert backend.fetch(far).tobytes() == here.tobytes()
        none = backend.load(np.full(shape, np.nan))
        round_by_worth_there(backend, none, [(1,)], pyramid=True)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("masked", [False, True])
def test_errors_are_those_of_the_host(masked: bool, place: str) -> None:
    backend, rng = there(place), np.random.default_rng(8)
    x = rng.normal(size=(3, 20, 31))
    decoded = (x + rng.normal(0, 1e-3, x.shape)).astype(">f4")
    valid = rng.random(x.shape) > (0.3 if masked else -1)
    decoded[~valid] = np.nan
    targets = [Target(rmse=1.0)] * 3
    with np.errstate(all="ignore"):
        want = check_chunk(x, decoded.astype(float), valid, targets, (1, 1), margin=True)
    with backend.working():
        far = backend.load(np.where(valid, x, 0.0))
        got = device.errors_there(backend, far, decoded, valid if masked else None, ())
    assert got.hold
    for a, b in zip(got.variables, want.variables, strict=True):
        assert (a.count, a.max_error) == (b.count, b.max_error)
        assert abs(a.sse - b.sse) <= 1e-12 * b.sse


@pytest.mark.parametrize("place", PLACES)
def test_what_cannot_be_judged_stays_without_loss(place: str, tmp_path: Path) -> None:
    """An error that is no number holds no bound."""
    backend = there(place)
    with backend.working():
        got = device.errors_there(backend, backend.load(np.zeros((1, 4))), np.array([[0, np.nan, 0, 1.0]]), None, ())
    assert np.isnan(got.variables[0].sse)
    assert np.isnan(got.variables[0].max_error)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("limit", [{"point": 2e-3}, {"block_rmse": 1e-4}])
def test_limits_of_points_and_blocks_are_judged_here(
    limit: dict[str, float], place: str, plans: dict[str, GroupPlan], seen: Counter[str]
) -> None:
    plan = replace(plans["wavelet, gae"], gae=None)
    raw = np.nan_to_num(np.stack([v.values for v in source().data_vars.values()])[: plan.num_variables])
    targets, backend = [Target(**limit)] * len(raw), there(place)
    coded = encode_chunk(raw, np.zeros(raw.shape, bool), plan, targets, model=None, backend=backend)
    assert seen["wave"]
    assert not seen["errors"]
    back = decode_chunk(coded.payload, plan, raw.shape[1:], get_backend("numpy"))
    if "point" in limit:
        assert np.abs(back.astype(float) - raw).max() <= limit["point"]
    else:
        known, block = np.ones(raw.shape, bool), plan.geometry.block
        assert check_chunk(raw.astype(float), back.astype(float), known, targets, block, margin=False).hold


@pytest.mark.parametrize("place", PLACES)
def test_a_stream_is_written_there(place: str, seen: Counter[str], tmp_path: Path) -> None:
    ds = source()
    path = tmp_path / "s.hbae"
    with hbae.StreamWriter(path, "nrmse=1e-2", steps=8, range=dict.fromkeys(ds, (-2.5, 2.5)), device=place) as w:
        for t in range(16):
            w.append(float(t), ds.isel(t=t))
    assert seen["values"]
    back = hbae.decompress(path, backend=place)
    for name in ds:
        error = (back[name].values.astype("f8") - ds[name].values.astype("f8"))[np.isfinite(ds[name].values)]
        assert np.sqrt((error**2).mean()) <= 1e-2 * 5
    assert hbae.verify(path, backend="numpy").ok


def test_the_rounding_of_points_is_the_nearest() -> None:
    assert original.rounding_of([Target(rmse=1.0)]) == ROUNDING != 0.5
    assert original.rounding_of([Target(rmse=1.0), Target(point=1.0)]) == 0.5


def test_ranks_of_a_host_take_its_devices_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hbae.pipeline.begin.num_devices", lambda: 2)
    machines = [Machine(rank, "ab"[rank % 2], {}, (0,)) for rank in range(7)]
    got = [own_device("cuda", machines, rank) for rank in range(7)]
    assert got == ["cuda:0", "cuda:0", "cuda:1", "cuda:1", "cuda:0", "cuda:0", "cuda:1"]
    assert own_device("cuda:1", machines, 0) == "cuda:1"
    assert own_device("cpu", machines, 3) == "cpu"
    assert own_device("cuda", machines[:1], 0) == "cuda"


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is there")
def test_a_device_that_is_not_there_is_named_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.hbae"
    with pytest.raises(ConfigError, match="device=cuda: torch finds no such device"):
        hbae.compress(source(), path, "nrmse=1e-2", method="linear", device="cuda")
    hbae.compress(source(), path, "nrmse=1e-2", method="linear")
    with pytest.raises(ConfigError, match="device=cuda:1: torch finds no such device"):
        hbae.decompress(path, backend="cuda:1")
    for command in (["decompress", str(path), "-o", str(tmp_path / "b.nc")], ["verify", str(path)]):
        assert run([*command, "--device", "cuda"]) == 2
        assert "torch finds no such device here" in capsys.readouterr().err
        assert run([*command, "--device", "tpu"]) == 2
        assert "device: unknown 'tpu'" in capsys.readouterr().err
        assert run([*command, "--device", "cpu"]) == 0


@pytest.mark.gpu
@CUDA
def test_commands_take_a_device(tmp_path: Path) -> None:
    source().to_netcdf(tmp_path / "in.nc")
    path = str(tmp_path / "a.hbae")
    assert run(["compress", str(tmp_path / "in.nc"), "-o", path, "--bound", "nrmse=1e-2", "--device", "cuda"]) == 0
    assert run(["decompress", path, "-o", str(tmp_path / "out.nc"), "--device", "cuda"]) == 0
    assert run(["verify", path, "--against", str(tmp_path / "in.nc"), "--device", "cuda"]) == 0
