# SPDX-License-Identifier: MIT
"""Parts that are intact but not the ones that belong there: every checksum of the container fits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import hbae
from hbae.container.frames import CHUNK, frame, read_frame
from hbae.errors import ChecksumError, FormatError
from hbae.pipeline.archive import Archive
from hbae.pipeline.chunk import MAX_DECODED, encode_lossless_chunk, open_chunk

from .hostile_files import Parts

SHAPE = (24, 20, 36)
DIMS = ("t", "y", "x")


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Several chunks with loss, several exact ones."""
    rng = np.random.default_rng(2)
    data = {"f": (DIMS, rng.normal(size=SHAPE)), "n": (DIMS, rng.integers(0, 99, SHAPE))}
    hbae.compress(xr.Dataset(data), tmp_path / "a.hbae", "abs=0.01", method="linear", chunk=0.0625)
    return tmp_path / "a.hbae"


def test_chunks_of_one_variable_that_changed_places(archive: Path, tmp_path: Path) -> None:
    """The frames carry numbers: an index that swaps two chunks is found out."""

    def swapped(table: Any) -> Any:
        table["chunks"][0], table["chunks"][1] = table["chunks"][1], table["chunks"][0]
        return table

    Parts(archive).build(tmp_path / "b.hbae", index=swapped)
    with pytest.raises(FormatError, match=r"chunk 0: another frame lies at its place|not cover|overlap|order"):
        hbae.decompress(tmp_path / "b.hbae")


def test_frames_of_another_number_are_refused(tmp_path: Path) -> None:
    data = frame(CHUNK, 3, b"payload")
    (tmp_path / "f").write_bytes(data)
    with (tmp_path / "f").open("rb") as f:
        assert read_frame(f, 0, len(data), (CHUNK, 3), "chunk 3") == b"payload"
        with pytest.raises(FormatError, match="another frame"):
            read_frame(f, 0, len(data), (CHUNK, 2), "chunk 2")


@pytest.mark.parametrize("name", ["f", "n"])
def test_values_that_are_not_those_of_the_hash(name: str, archive: Path, tmp_path: Path) -> None:
    """Other values under the old hash, in a chunk that is otherwise in order."""
    parts = Parts(archive)
    with Archive(archive) as a:
        part = next(p for p in a.parts if name in p.paths)
        values = a.chunk(part, 0)[0]
    other = values.copy()
    other.reshape(-1)[5] += 1
    honest = encode_lossless_chunk(other[None] if name == "f" else other)
    old = parts.chunks[part.first]
    parts.chunks[part.first] = honest[:1] + old[1:33] + honest[33:]
    parts.build(tmp_path / "b.hbae")
    with pytest.raises(ChecksumError, match=rf"chunk {part.first}\b.*differ"):
        hbae.decompress(tmp_path / "b.hbae")
    assert len(hbae.verify(tmp_path / "b.hbae").damaged) == 1


def test_a_chunk_that_declares_more_than_a_reader_takes() -> None:
    payload = encode_lossless_chunk(np.zeros(1))
    rows = MAX_DECODED // 8
    assert open_chunk(payload, (rows,), np.dtype("f8"), "chunk 0")
    with pytest.raises(FormatError, match="decodes to more than"):
        open_chunk(payload, (rows + 1,), np.dtype("f8"), "chunk 0")


def test_another_model_under_the_name_of_the_one_asked_for(tmp_path: Path) -> None:
    t, y, x = np.meshgrid(*(np.arange(n) / 6 for n in (20, 32, 32)), indexing="ij")
    ds = xr.Dataset({"f": (DIMS, (np.sin(t + x) * np.cos(y)).astype("f4"))})
    for seed in (0, 1):
        options = {"method": "hbae", "budget": "1ep", "seed": seed}
        hbae.compress(ds, tmp_path / f"{seed}.hbae", "nrmse=1e-2", **options)
    one, two = Parts(tmp_path / "0.hbae"), Parts(tmp_path / "1.hbae")
    foreign = next(body for name, body in two.sections if name.startswith("model "))
    assert foreign not in [body for _, body in one.sections]
    one.sections = [(n, foreign if n.startswith("model ") else body) for n, body in one.sections]
    one.build(tmp_path / "b.hbae")
    with pytest.raises(ChecksumError, match="not the one that the group names"):
        hbae.decompress(tmp_path / "b.hbae")
