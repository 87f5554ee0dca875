# SPDX-License-Identifier: MIT
"""Ranks that share a reading of an archive: the report and the Zarr folder are those of one process."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

import hbae
from hbae.arrays import Tiling
from hbae.io.boxes import aligned
from hbae.pipeline.decompress import decompress_file, fits_storage

if TYPE_CHECKING:
    from conftest import Place


def damage(path: Path, *places: float) -> None:
    """Flip a bit at each place, a part of the file's length."""
    data = bytearray(path.read_bytes())
    for p in places:
        data[int(p * len(data))] ^= 1
    path.write_bytes(data)


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
    assert set(doc["errors"]) == {"T", "U", "W", "P"}


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
@pytest.mark.slow
def test_other_formats_take_one_process(place: Place, serial: Path) -> None:
    shutil.copy(serial, place.folder / "a.hbae")
    done = place.hbae("decompress", "a.hbae", "-o", "a.nc", "--ranks", ranks=2)
    assert done.code == 1
    assert "ranks write Zarr folders only (.zarr)" in done.err
    assert place.names() == ["a.hbae"]


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
