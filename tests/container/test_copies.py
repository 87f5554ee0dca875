# SPDX-License-Identifier: MIT
"""Header and index of an archive over 1 MiB exist twice: one damaged copy costs nothing, and copies must be equal."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import hbae
from hbae.container import ArchiveReader
from hbae.container.frames import FRAME, HEADER, INDEX, SECTION, TAIL, frame
from hbae.errors import ChecksumError, FormatError

Places = dict[tuple[int, int], tuple[int, int]]


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of a bit more than 1 MiB, sections doubled."""
    path = tmp_path_factory.mktemp("large") / "large.hbae"
    noise = np.random.default_rng(0).integers(0, 2**63, 150_000)
    wave = np.sin(np.arange(400).reshape(20, 20) / 30).astype("f4")
    ds = xr.Dataset({"noise": (("n",), noise), "T": (("a", "b"), wave)})
    hbae.compress(ds, path, "T:abs=1e-2", method="linear", redundant=True)
    assert path.stat().st_size > 1 << 20
    return path


def places(data: bytes) -> Places:
    """Offset and length of every frame by kind and number."""
    found, at = {}, 16
    while at < len(data) - TAIL.size:
        _, kind, _, number, length, _, _ = FRAME.unpack(data[at : at + FRAME.size])
        found[kind, number] = (at, FRAME.size + length)
        at += FRAME.size + length
    return found


def damaged(data: bytes, place: tuple[int, int], at: int = -3) -> bytes:
    """The same bytes with one of a frame's changed."""
    i = place[0] + (place[1] + at if at < 0 else at)
    return data[:i] + bytes([data[i] ^ 8]) + data[i + 1 :]


def other(data: bytes, key: tuple[int, int], place: tuple[int, int]) -> bytes:
    """The same archive whose frame there has another payload of the same length and the right checksum."""
    start, length = place
    payload = bytearray(data[start + FRAME.size : start + length])
    payload[-1] ^= 1
    return data[:start] + frame(*key, bytes(payload)) + data[start + length :]


BOTH = {"header": [(HEADER, 0), (HEADER, 1)], "index": [(INDEX, 0), (INDEX, 1)]}


@pytest.mark.parametrize("at", [4, 30, -3])
@pytest.mark.parametrize("copy", [0, 1])
@pytest.mark.parametrize("part", sorted(BOTH))
def test_one_damaged_copy_costs_nothing(part: str, copy: int, at: int, large: Path, tmp_path: Path) -> None:
    data = large.read_bytes()
    path = tmp_path / "bad.hbae"
    path.write_bytes(damaged(data, places(data)[BOTH[part][copy]], at))
    assert hbae.decompress(path).identical(hbae.decompress(large))
    found = hbae.verify(path)
    assert not found.ok
    assert part in found.damaged[0]
    assert hbae.verify(large).ok


def test_header_and_index_may_be_damaged_at_once(large: Path, tmp_path: Path) -> None:
    data = large.read_bytes()
    where = places(data)
    path = tmp_path / "bad.hbae"
    path.write_bytes(damaged(damaged(data, where[HEADER, 0]), where[INDEX, 0]))
    assert hbae.decompress(path).identical(hbae.decompress(large))


@pytest.mark.parametrize("part", sorted(BOTH))
def test_both_copies_damaged_are_refused(part: str, large: Path, tmp_path: Path) -> None:
    data = large.read_bytes()
    for key in BOTH[part]:
        data = damaged(data, places(large.read_bytes())[key])
    path = tmp_path / "bad.hbae"
    path.write_bytes(data)
    with pytest.raises(ChecksumError, match=part):
        ArchiveReader(path)


@pytest.mark.parametrize(
    ("key", "name"), [((HEADER, 1), "header"), ((INDEX, 1), "index"), ((SECTION, 3), "section 'group 0'")]
)
def test_copies_that_disagree_are_reported(key: tuple[int, int], name: str, large: Path, tmp_path: Path) -> None:
    data = large.read_bytes()
    path = tmp_path / "bad.hbae"
    path.write_bytes(other(data, key, places(data)[key]))
    found = hbae.verify(path)
    assert not found.ok
    assert found.damaged == (f"{name}: its copies differ",)


def with_tail(data: bytes, offset: int, length: int) -> bytes:
    """The same bytes with another tail."""
    body = TAIL.pack(offset, length, len(data), 0, b"HBnd")[:24]
    return data[: -TAIL.size] + body + zlib.crc32(body).to_bytes(4, "little") + b"HBnd"


@pytest.mark.parametrize("change", [lambda o, n: (o + n - 5, 5), lambda o, n: (o - 8, n + 8), lambda o, n: (0, o + n)])
def test_an_index_place_that_lies_is_refused(
    change: Callable[[int, int], tuple[int, int]], large: Path, tmp_path: Path
) -> None:
    data = large.read_bytes()
    path = tmp_path / "bad.hbae"
    path.write_bytes(with_tail(data, *change(*places(data)[INDEX, 0])))
    with pytest.raises(FormatError):
        ArchiveReader(path)


def test_salvage_takes_the_second_header(large: Path, tmp_path: Path) -> None:
    data = large.read_bytes()
    path = tmp_path / "bad.hbae"
    path.write_bytes(damaged(data, places(data)[HEADER, 0])[: -TAIL.size])
    with ArchiveReader(path, salvage=True) as r, ArchiveReader(large) as good:
        assert r.header == good.header
        assert r.num_chunks == good.num_chunks
