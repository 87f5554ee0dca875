# SPDX-License-Identifier: MIT
"""Ranks that share a reading of an archive: the report and the values are those of one process."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import xarray as xr

import hbae
from hbae.arrays import Tiling
from hbae.io import open_field
from hbae.io.boxes import aligned, fits_storage
from hbae.io.same import same_field
from hbae.pipeline.decompress import decompress_file

if TYPE_CHECKING:
    from conftest import Place


def damage(path: Path, *places: float) -> None:
    """Flip a bit at each place, a part of the file's length."""
    data = bytearray(path.read_bytes())
    for p in places:
        data[int(p * len(data))] ^= 1
    path.write_bytes(data)


def write_classic(source: Path, path: Path) -> None:
    """Write the input's larger variables as records of a netCDF-3 file."""
    import netCDF4

    with netCDF4.Dataset(source) as s, netCDF4.Dataset(path, "w", format="NETCDF3_64BIT_OFFSET") as d:
        for name, n in (("time", None), ("lat", 40), ("lon", 48)):
            d.createDimension(name, n)
        for name in ("T", "W"):
            d.createVariable(name, s[name].dtype, ("time", "lat", "lon"))[:] = s[name][:]


def tree(folder: Path) -> dict[str, bytes]:
    """Give all files below a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.mpi
def test_verify_tells_the_same(place: Place, serial: Path) -> None:
    """Damage in the shares of two ranks, and an original whose bounds are missed in a third part."""
    import netCDF4

    shutil.copy(serial, place.folder / "a.hbae")
    damage(place.folder / "a.hbae", 0.1, 0.9)
    with netCDF4.Dataset(place.folder / "in.nc", "a") as d:
        d["P"][3, 4, 5] += 1
        d["W"][30] += np.random.default_rng(1).normal(size=(40, 48))
        d["lat"][3] += 1
    shared = place.hbae("verify", "a.hbae", "--against", "in.nc", "--ranks", "--json", ranks=3)
    alone = place.hbae("verify", "a.hbae", "--against", "in.nc", "--json")
    assert (shared.code, alone.code) == (4, 4)
    assert shared.line == alone.line
    doc = json.loads(shared.line)
    assert len(doc["damaged"]) == 2
    assert [text.partition(":")[0] for text in doc["failures"]] == ["W", "P", "lat"]
    assert set(doc["errors"]) == {"T", "U", "V", "W", "P"}


@pytest.mark.mpi
@pytest.mark.parametrize(
    "words", [(), pytest.param(("--window", "time=3:29,lat=5:33"), marks=pytest.mark.slow)], ids=["whole", "window"]
)
def test_decompress_writes_the_same_folder(words: tuple[str, ...], place: Place, serial: Path) -> None:
    window = {"time": (3, 29), "lat": (5, 33)} if words else None
    shutil.copy(serial, place.folder / "a.hbae")
    done = place.hbae("decompress", "a.hbae", "-o", "a.zarr", "--ranks", *words, ranks=3)
    assert done.code == 0, done
    decompress_file(place.folder / "a.hbae", place.folder / "s.zarr", window=window)
    assert tree(place.folder / "a.zarr") == tree(place.folder / "s.zarr")
    assert place.names() == ["a.hbae", "a.zarr", "s.zarr"]


@pytest.mark.mpi
def test_decompress_of_a_damaged_archive(place: Place, serial: Path) -> None:
    shutil.copy(serial, place.folder / "a.hbae")
    damage(place.folder / "a.hbae", 0.1, 0.9)
    done = place.hbae("decompress", "a.hbae", "-o", "a.zarr", "--ranks", ranks=2)
    assert done.code == 4
    assert "checksum does not match" in done.err
    assert place.names() == ["a.hbae"]
    saved = place.hbae("decompress", "a.hbae", "-o", "a.zarr", "--ranks", "--salvage", "--json", ranks=2)
    alone = decompress_file(place.folder / "a.hbae", place.folder / "s.zarr", salvage=True)
    assert [(r["variable"], r["chunk"], r["message"]) for r in json.loads(saved.line)["lost"]] == list(alone.lost)
    assert len({number for _, number, _ in alone.lost}) == 2
    assert tree(place.folder / "a.zarr") == tree(place.folder / "s.zarr")


@pytest.mark.mpi
@pytest.mark.parametrize("suffix", [".nc", pytest.param(".h5", marks=pytest.mark.slow)])
def test_decompress_through_a_library_of_one_process(suffix: str, place: Place, serial: Path) -> None:
    """Deflated variables, contiguous ones, one whose boxes cut its storage chunks, and small ones; a window too."""
    shutil.copy(serial, place.folder / "a.hbae")
    for name, words, window in (
        ("a", (), None),
        ("w", ("--window", "time=3:29,lat=5:33"), {"time": (3, 29), "lat": (5, 33)}),
    ):
        done = place.hbae("decompress", "a.hbae", "-o", name + suffix, "--ranks", *words, ranks=3)
        assert done.code == 0, done
        decompress_file(place.folder / "a.hbae", place.folder / ("s" + name + suffix), window=window)
        fields = [open_field(place.folder / (stem + name + suffix)) for stem in ("", "s")]
        assert same_field(*fields) == []
        for v, w in zip(*(f.variables() for f in fields), strict=True):
            assert (v.source.storage, v.hints) == (w.source.storage, w.hints), v.path
    assert place.names() == sorted(["a.hbae", "a" + suffix, "w" + suffix, "sa" + suffix, "sw" + suffix])


@pytest.mark.mpi
@pytest.mark.parametrize(
    ("suffix", "words"),
    [(".raw", ()), pytest.param(".npy", ("--vars", "W"), marks=pytest.mark.slow), (".cdf", ())],
    ids=["raw", "npy", "netcdf3"],
)
def test_flat_files_are_those_of_one_process(suffix: str, words: tuple[str, ...], place: Place, serial: Path) -> None:
    """Every rank puts its boxes into their places; the records of netCDF-3 lie between one another."""
    if suffix == ".cdf":
        write_classic(place.folder / "in.nc", place.folder / "in.cdf")
        hbae.compress(place.folder / "in.cdf", place.folder / "a.hbae", bound="nrmse=1e-3", chunk=0.0625)
    else:
        shutil.copy(serial, place.folder / "a.hbae")
    (place.folder / "s").mkdir()
    done = place.hbae("decompress", "a.hbae", "-o", "a" + suffix, "--ranks", *words, ranks=3)
    assert done.code == 0, done
    alone = place.folder / "s" / ("a" + suffix)
    decompress_file(place.folder / "a.hbae", alone, variables=words[1:])
    files = sorted(p.name for p in alone.parent.iterdir())
    for name in files:
        assert (place.folder / name).read_bytes() == (alone.parent / name).read_bytes(), name
    kept = ["in.cdf"] if suffix == ".cdf" else []
    assert place.names() == sorted(["a.hbae", "s", *files, *kept])


@pytest.mark.mpi
def test_many_variables_take_few_descriptors(place: Place) -> None:
    rows = np.cumsum(np.random.default_rng(0).normal(size=(160, 9000)), axis=1)
    ds = xr.Dataset({f"v{i}": (("x",), a) for i, a in enumerate(rows)})
    hbae.compress(ds, place.folder / "a.hbae", bound="abs=1", method="lossless")
    few = ["sh", "-c", 'ulimit -n 120; exec "$@"', "sh", sys.executable, "-m", "hbae.cli.main"]
    done = place.run(*place.launcher(2), *few, "decompress", "a.hbae", "-o", "a.nc", "--ranks")
    assert done.code == 0, done
    with xr.open_dataset(place.folder / "a.nc") as back:
        assert all((back[f"v{i}"].values == a).all() for i, a in enumerate(rows))


@pytest.mark.mpi
@pytest.mark.parametrize("suffix", [".nc", pytest.param(".raw", marks=pytest.mark.slow)])
def test_a_damaged_archive_leaves_no_file(suffix: str, place: Place, serial: Path) -> None:
    shutil.copy(serial, place.folder / "a.hbae")
    damage(place.folder / "a.hbae", 0.9)
    done = place.hbae("decompress", "a.hbae", "-o", "a" + suffix, "--ranks", ranks=3)
    assert done.code == 4
    assert "checksum does not match" in done.err
    assert place.names() == ["a.hbae"]
    saved = place.hbae("decompress", "a.hbae", "-o", "a" + suffix, "--ranks", "--salvage", "--json", ranks=3)
    assert len({row["chunk"] for row in json.loads(saved.line)["lost"]}) == 1
    decompress_file(place.folder / "a.hbae", place.folder / ("s" + suffix), salvage=True)
    assert same_field(*(open_field(place.folder / (stem + suffix)) for stem in ("a", "s"))) == []


@pytest.mark.parametrize("seed", range(40))
def test_boxes_that_fit_the_storage(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape, step, storage = (tuple(int(n) for n in rng.integers(1, top, 2)) for top in (13, 7, 7))
    starts = [int(rng.integers(0, n)) for n in shape]
    window = tuple(slice(a, int(rng.integers(a + 1, n + 1))) for a, n in zip(starts, shape, strict=True))
    lengths = tuple(s.stop - s.start for s in window)
    boxes = Tiling(shape, step)
    fit = True
    for i in boxes.meeting(window):
        pairs = zip(boxes[i], window, strict=True)
        cut = tuple(slice(max(b.start, w.start) - w.start, min(b.stop, w.stop) - w.start) for b, w in pairs)
        fit &= aligned(cut, lengths, storage)
    assert fits_storage(boxes, window, storage) == fit


def test_a_miss_does_not_hide_others(place: Place, serial: Path) -> None:
    import netCDF4

    with netCDF4.Dataset(place.folder / "in.nc", "a") as d:
        d["T"][:] += 100
        d["P"][:] += 100
    failures = hbae.verify(serial, place.folder / "in.nc").failures
    assert {text.partition(":")[0] for text in failures} >= {"T", "P"}
