# SPDX-License-Identifier: MIT
"""Chunks decoded side by side: the same values, reports and losses for any number of threads, and each chunk once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import netCDF4
import numpy as np
import pytest
import xarray as xr

import hbae
from hbae.arrays import Array
from hbae.errors import ConfigError, FormatError
from hbae.pipeline.ahead import ahead
from hbae.pipeline.archive import Archive, Part
from hbae.pipeline.decompress import decompress_file


@pytest.fixture(scope="module")
def original() -> xr.Dataset:
    rng = np.random.default_rng(5)
    walk = rng.normal(size=(48, 30, 40)).cumsum(0).cumsum(1).cumsum(2)
    names = {
        n: (("t", "y", "x"), (walk * k + rng.normal(size=walk.shape)).astype("f4")) for k, n in enumerate("TUVW", 1)
    }
    return xr.Dataset({**names, "n": (("x",), np.arange(40)), "big": (("t", "y", "x"), rng.integers(0, 9, walk.shape))})


@pytest.fixture(scope="module")
def archive(original: xr.Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Many chunks, lossy ones and exact ones."""
    path = tmp_path_factory.mktemp("side") / "a.hbae"
    hbae.compress(original, path, "abs=0.5", method="linear", chunk=0.0625)
    with Archive(path) as a:
        assert a.reader.num_chunks > 6
    return path


@pytest.fixture
def damaged(archive: Path, tmp_path: Path) -> Path:
    """With a byte changed in the third and in the last but one of the chunks."""
    data = bytearray(archive.read_bytes())
    with Archive(archive) as a:
        for number in (2, a.reader.num_chunks - 2):
            data[data.index(a.reader.chunk(number)) + 5] ^= 1
    path = tmp_path / "damaged.hbae"
    path.write_bytes(data)
    return path


def values_of(path: Path) -> dict[str, bytes]:
    with netCDF4.Dataset(path) as d:
        d.set_auto_maskandscale(False)
        return {n: v[:].tobytes() for n, v in d.variables.items()}


def test_values_and_reports_do_not_depend_on_it(archive: Path, original: xr.Dataset, tmp_path: Path) -> None:
    found = []
    for threads in (1, 2, 5):
        out = tmp_path / f"{threads}.nc"
        decompress_file(archive, out, threads=threads)
        ds = hbae.decompress(archive, threads=threads)
        report = hbae.verify(archive, original, threads=threads)
        assert report.failures == report.damaged == ()
        found.append((values_of(out), {n: v.values.tobytes() for n, v in ds.variables.items()}, report))
    assert found[0] == found[1] == found[2]
    assert np.abs(ds["T"].values.astype(float) - original["T"].values).max() <= 0.5
    assert ds["big"].values.tobytes() == original["big"].values.tobytes()


def test_damage_and_losses_do_not_depend_on_it(damaged: Path, original: xr.Dataset, tmp_path: Path) -> None:
    found = []
    for threads in (1, 2, 5):
        with pytest.raises(FormatError, match=r"chunk 2\b"):
            hbae.decompress(damaged, threads=threads)
        with pytest.raises(FormatError, match=r"chunk 2\b"):
            decompress_file(damaged, tmp_path / "never.nc", threads=threads)
        assert not list(tmp_path.glob("*never*"))
        out = tmp_path / f"{threads}.nc"
        lost = decompress_file(damaged, out, salvage=True, threads=threads)
        report = hbae.verify(damaged, original, threads=threads)
        assert len(report.damaged) == 2
        assert {number for _, number, _ in lost.lost} == {2, max(n for _, n, _ in lost.lost)}
        found.append((values_of(out), lost, report))
    assert found[0] == found[1] == found[2]


def test_every_chunk_is_decoded_once(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the cache holds next to nothing: a Dataset of many variables took as many decodings of each chunk."""
    seen: Counter[int] = Counter()
    real = Archive.chunk

    def counted(self: Archive, part: Part, index: int, *, keep: bool = True) -> list[Array]:
        seen[part.first + index] += 1
        return real(self, part, index, keep=keep)

    monkeypatch.setattr(Archive, "chunk", counted)
    monkeypatch.setattr("hbae.pipeline.archive._cache_bytes", lambda: 1)
    for job in (hbae.decompress, hbae.verify, lambda p: decompress_file(p, tmp_path / "o.nc")):
        seen.clear()
        job(archive)
        with Archive(archive) as a:
            assert seen == dict.fromkeys(range(a.reader.num_chunks), 1)


def test_no_more_than_asked_are_under_way() -> None:
    """Results that nobody has taken do not pile up."""
    started = []

    def work(i: int) -> int:
        started.append(i)
        return i

    for i, result in enumerate(ahead(work, ((i,) for i in range(50)), 3)):
        assert result == i
        assert len(started) <= i + 4 + 1
    with pytest.raises(ZeroDivisionError):
        list(ahead(lambda i: 1 // i, [(1,), (0,), (1,)], 2))
    with pytest.raises(ConfigError, match="threads"):
        list(ahead(work, [(1,)], 0))


def test_less_than_one_thread_is_refused(archive: Path, tmp_path: Path) -> None:
    for job in (hbae.decompress, hbae.verify):
        with pytest.raises(ConfigError, match="threads"):
            job(archive, threads=0)
    with pytest.raises(ConfigError, match="threads"):
        decompress_file(archive, tmp_path / "o.nc", threads=-1)
    assert not list(tmp_path.iterdir())
