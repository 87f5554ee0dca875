# SPDX-License-Identifier: MIT
"""Disks that fill up at any place: a clear error, nothing left behind. A limit on files' lengths stands for them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import hbae

pytest.importorskip("resource")

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
