# SPDX-License-Identifier: MIT
"""Disks that fill up at any place: a clear error, nothing left behind. A limit on files' lengths stands for them."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr

import hbae
from hbae.arrays import ArraySource, Dimension, Field, Group, Variable
from hbae.errors import OutputError
from hbae.io import FieldWriter

resource = pytest.importorskip("resource")

LIMITED = """
import os, resource, sys
import numpy, netCDF4, h5py, zarr
import hbae.pipeline.decompress as d
from hbae.container import ArchiveWriter
from hbae.errors import HbaeError
for limit in map(int, sys.argv[2:]):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        {act}
    except HbaeError as e:
        assert sys.argv[1] in str(e) and ("cannot be written" in str(e) or "cannot write it" in str(e)), e
    else:
        raise AssertionError(limit)
    assert sorted(os.listdir()) == ["a.hbae"], (limit, os.listdir())
"""

# The header and most sections wait in a buffer: what does not fit shows when the buffer is flushed, at close at last.
WRITE = """with ArchiveWriter(sys.argv[1], {'a': 'x' * 3000}) as w:
            w.add_section('values', b'y' * 500)
            w.add_chunk(os.urandom(30_000))
            w.add_chunk(b'z' * 100)
            w.finish()"""


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("full") / "a.hbae"
    noise = np.random.default_rng(0).normal(size=(32, 64, 64)).astype("f4")
    hbae.compress(xr.Dataset({"data": (("a", "b", "c"), noise)}), path, "abs=0.5", method="linear")
    return path


def run(code: str, archive: Path, tmp_path: Path, *args: str) -> None:
    (tmp_path / "a.hbae").write_bytes(archive.read_bytes())
    done = subprocess.run(
        [sys.executable, "-c", code, *args], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_an_archive(archive: Path, tmp_path: Path) -> None:
    run(LIMITED.format(act=WRITE), archive, tmp_path, "b.hbae", "0", "10", "100", "520", "20000", "30700")


@pytest.mark.parametrize("suffix", [".nc", ".h5", ".zarr", ".raw"])
def test_an_output(suffix: str, archive: Path, tmp_path: Path) -> None:
    act = "d.decompress_file('a.hbae', sys.argv[1])"
    # Zarr's files hold a part each, so none of them is long.
    limits = ["0", "100", "5000"] + ([] if suffix == ".zarr" else ["100000", "500000"])
    run(LIMITED.format(act=act), archive, tmp_path, f"b{suffix}", *limits)


def test_chunks_that_a_library_holds_back(tmp_path: Path) -> None:
    """HDF5 writes chunks when datasets are closed, and the process ends well although it cannot."""
    rng = np.random.default_rng(1)
    with h5py.File(tmp_path / "in.h5", "w") as f:
        for k in range(6):
            f.create_dataset(f"v{k}", data=rng.integers(0, 1 << 30, (40, 400)), chunks=(7, 90), compression="gzip")
    hbae.compress(tmp_path / "in.h5", tmp_path / "a.hbae", "abs=1", method="lossless")
    size = (tmp_path / "in.h5").stat().st_size
    for part in (0.1, 0.4, 0.6, 0.8, 0.97):
        limit = int(part * size)
        done = subprocess.run(
            [sys.executable, "-m", "hbae.cli.main", "decompress", "a.hbae", "-o", "b.h5"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            preexec_fn=lambda limit=limit: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        )
        assert done.returncode == 1, (part, done)
        assert done.stderr.startswith("hbae: b.h5: cannot be written")
        assert sorted(p.name for p in tmp_path.iterdir()) == ["a.hbae", "in.h5"], part


@pytest.mark.parametrize("suffix", [".raw", ".npy", ".cdf"])
def test_flat_files_that_cannot_begin(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No descriptor is left open."""
    field = open_npy_like(suffix)
    monkeypatch.setattr(os, "ftruncate", full)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(OutputError, match="cannot be written"):
            FieldWriter(tmp_path / f"b{suffix}", field)
    assert len(os.listdir("/proc/self/fd")) == before
    assert list(tmp_path.iterdir()) == []


def open_npy_like(suffix: str) -> Field:
    """Give a field that each flat format can hold."""
    v = Variable(name="data", dims=("dim_0",), source=ArraySource(np.zeros(9)))
    form = "netcdf3" if suffix == ".cdf" else suffix[1:]
    return Field(format=form, groups=(Group(dims=(Dimension("dim_0", 9),), variables=(v,)),))


def full(fd: int, size: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
