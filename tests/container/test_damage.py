# SPDX-License-Identifier: MIT
"""P6: damage never passes for data; what is intact still comes back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import hbae
from hbae.container import ArchiveReader
from hbae.container.frames import FRAME, PRELUDE
from hbae.errors import FormatError
from hbae.pipeline.archive import Archive
from hbae.pipeline.decompress import decompress_file


def bits(ds: xr.Dataset) -> dict[str, bytes]:
    """Bytes of every variable."""
    return {
        str(n): repr(v.values.tolist()).encode() if v.dtype.hasobject else v.values.tobytes() for n, v in ds.items()
    }


def caught_by_verify(path: Path) -> bool:
    """Tell whether verify raises or lists damage."""
    try:
        return not hbae.verify(path, backend="numpy").ok
    except FormatError:
        return True


def flipped(data: bytes, place: int, bit: int) -> bytes:
    """The same bytes with one bit changed."""
    return data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :]


def test_single_bit_flips_are_found(archive: Path, tmp_path: Path) -> None:
    data, rng = archive.read_bytes(), np.random.default_rng(11)
    path = tmp_path / "bad.hbae"
    places = [*range(60), *range(len(data) - 60, len(data)), *rng.integers(0, len(data), 380)]
    for place in map(int, places):
        path.write_bytes(flipped(data, place, int(rng.integers(8))))
        assert caught_by_verify(path), place
        with pytest.raises(FormatError):
            hbae.decompress(path, backend="numpy")


def test_flips_in_a_redundant_archive_change_no_value(dataset: xr.Dataset, tmp_path: Path) -> None:
    good = tmp_path / "good.hbae"
    hbae.compress(
        dataset,
        good,
        "nrmse=1e-3",
        chunk=0.0625,
        block=(4, 4, 4),
        redundant=True,
        method="linear",
        variables=("T", "U"),
    )
    data, rng = good.read_bytes(), np.random.default_rng(3)
    want = bits(hbae.decompress(good))
    with ArchiveReader(good) as r:
        assert all(len(copies) == 2 for copies in r._sections.values())
        inside = [offset + length - 5 for copies in r._sections.values() for _, (offset, length) in copies]
    path = tmp_path / "bad.hbae"
    for place in [*inside, *(int(p) for p in rng.integers(0, len(data), 60))]:
        path.write_bytes(flipped(data, place, int(rng.integers(8))))
        assert caught_by_verify(path), place
        try:
            got = bits(hbae.decompress(path, backend="numpy"))
        except FormatError:
            assert place not in inside, "either copy of a section makes good the other"
            continue
        assert got == want


def test_every_truncation_is_found(tiny: Path, tmp_path: Path) -> None:
    data, path = tiny.read_bytes(), tmp_path / "cut.hbae"
    assert len(data) < 2000
    for n in range(len(data)):
        path.write_bytes(data[:n])
        with pytest.raises(FormatError):
            Archive(path)
        with pytest.raises(FormatError):
            hbae.verify(path)
    path.write_bytes(data + b"\0")
    with pytest.raises(FormatError):
        hbae.decompress(path)


def test_a_damaged_chunk_is_named_and_the_others_decode(archive: Path, dataset: xr.Dataset, tmp_path: Path) -> None:
    path = tmp_path / "bad.hbae"
    with Archive(archive) as a:
        part = next(p for p in a.parts if p.paths == ("T", "U"))
        assert len(part.boxes) > 2
        place, length = a.reader._chunks[part.first + 1]
        lost = part.boxes[1]
    path.write_bytes(flipped(archive.read_bytes(), place + length // 2, 2))
    found = hbae.verify(path)
    assert not found.ok
    assert len(found.damaged) == 1
    assert f"chunk {part.first + 1}" in found.damaged[0]
    assert "T" in found.damaged[0]
    assert "U" in found.damaged[0]
    with pytest.raises(FormatError, match=f"chunk {part.first + 1}"):
        hbae.decompress(path)
    whole = hbae.decompress(archive)
    with hbae.open(path) as lazy:
        assert np.array_equal(lazy["id"].values, dataset["id"].values)
        for i, box in enumerate(part.boxes):
            keys = dict(zip(("t", "y", "x"), box, strict=True))
            if i != 1:
                assert lazy["U"].isel(keys).values.tobytes() == whole["U"].isel(keys).values.tobytes()
    saved = decompress_file(path, tmp_path / "saved.nc", salvage=True)
    assert {(n, c) for n, c, _ in saved.lost} == {("T", part.first + 1), ("U", part.first + 1)}
    with xr.open_dataset(tmp_path / "saved.nc") as got:
        expected = whole["T"].values.copy()
        expected[lost] = np.nan
        assert np.array_equal(got["T"].values, expected, equal_nan=True)
        assert np.array_equal(got["id"].values, dataset["id"].values)


@pytest.mark.parametrize("cut", [1, 31, 33, 40])
def test_a_lost_tail_is_salvaged_by_the_frames(archive: Path, tmp_path: Path, cut: int) -> None:
    path = tmp_path / "cut.hbae"
    path.write_bytes(archive.read_bytes()[:-cut])
    with pytest.raises(FormatError):
        hbae.decompress(path)
    with Archive(path, salvage=True) as a:
        whole = hbae.decompress(archive)
        v = a.field.variable("T")
        assert v.source.read(tuple(slice(0, n) for n in v.shape)).tobytes() == whole["T"].values.tobytes()
    saved = decompress_file(path, tmp_path / "saved.nc", salvage=True)
    assert saved.lost == ()


def test_cut_in_the_middle_gives_what_lies_before(archive: Path, tmp_path: Path) -> None:
    with Archive(archive) as a:
        part = next(p for p in a.parts if p.paths == ("T", "U"))
        place, length = a.reader._chunks[part.first + 1]
    path = tmp_path / "cut.hbae"
    path.write_bytes(archive.read_bytes()[: place + length])
    saved = decompress_file(path, tmp_path / "saved.nc", salvage=True)
    intact = {(n, part.first + i) for n in part.paths for i in (0, 1)}
    assert saved.lost
    assert not {(n, c) for n, c, _ in saved.lost} & intact
    whole = hbae.decompress(archive)
    with xr.open_dataset(tmp_path / "saved.nc") as got:
        for box in list(part.boxes)[:2]:
            assert got["T"].values[box].tobytes() == whole["T"].values[box].tobytes()


def test_frames_cover_the_file(archive: Path) -> None:
    """Prelude, frames and tail leave no byte without a checksum."""
    data, at, frames = archive.read_bytes(), PRELUDE.size, 0
    while data[at : at + 4] == b"HBfr":
        at += FRAME.size + FRAME.unpack(data[at : at + FRAME.size])[4]
        frames += 1
    assert frames > 5
    assert len(data) - at == 32
