# SPDX-License-Identifier: MIT
"""Many compressed variables: the library's chunk caches do not add up."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import netCDF4
import numpy as np
import pytest

from hbae.arrays import Dimension, Field, Group, Hollow, Variable
from hbae.io import FieldWriter, open_field
from hbae.io.handles import CACHE_BYTES
from hbae.io.hdf5 import Hdf5Source
from hbae.io.netcdf4_ import NetcdfSource

pytest.importorskip("resource")

MEASURE = """
import resource, sys
import h5py, netCDF4, numpy as np
from hbae.arrays import Dimension, Field, Group, Hollow, Variable
from hbae.io import FieldWriter, open_field

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10

STEPS, SIDE = 3, (1024, 512)
hints = {"chunks": [1, *SIDE], "zlib": True, "complevel": 1}
variables = tuple(
    Variable(name=f"v{i}", dims=("t", "y", "x"), source=Hollow((STEPS, *SIDE), np.dtype("f4")), hints=hints)
    for i in range(16)
)
dims = tuple(Dimension(n, k) for n, k in zip("tyx", (STEPS, *SIDE)))
field = Field(format="netcdf4", groups=(Group(dims=dims, variables=variables),))
boxes = [(slice(t, t + 1), slice(0, SIDE[0]), slice(0, SIDE[1])) for t in range(STEPS)]
box = np.zeros((1, *SIDE), "f4")
before = peak()
with FieldWriter(sys.argv[1], field) as w:
    for b in boxes:
        for v in variables:
            w.put(v.path, b, box)
written = peak() - before
again = open_field(sys.argv[1])
assert again.variable("v3").source.storage == (1, *SIDE)
before = peak()
for b in boxes:
    for v in again.variables():
        v.source.read(b)
print(written, peak() - before)
"""


@pytest.mark.parametrize("suffix", [".nc", ".h5"])
def test_reading_and_writing_many_variables(suffix: str, tmp_path: Path) -> None:
    """16 variables of three chunks of 2 MiB: with caches as the libraries have them 96 MiB would stay."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path / f"a{suffix}")],
        capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    written, read = map(int, done.stdout.split())
    assert written < 48
    assert read < 48


def test_the_cache_of_every_variable_is_small(tmp_path: Path) -> None:
    hints = {"chunks": [4, 64], "zlib": True}
    v = Variable(name="v", dims=("x", "y"), source=Hollow((64, 64), np.dtype("f4")), hints=hints)
    field = Field(format="netcdf4", groups=(Group(dims=(Dimension("x", 64), Dimension("y", 64)), variables=(v,)),))
    usual = netCDF4.get_chunk_cache()
    with FieldWriter(tmp_path / "a.nc", field) as w:
        w.put("v", (slice(0, 64), slice(0, 64)), np.zeros((64, 64), "f4"))
    source = open_field(tmp_path / "a.nc").variable("v").source
    assert isinstance(source, NetcdfSource)
    assert source.handle.get()["v"].get_var_chunk_cache()[0] == CACHE_BYTES
    assert netCDF4.get_chunk_cache() == usual


def test_the_cache_of_hdf5_files_is_small(tmp_path: Path) -> None:
    import h5py

    with h5py.File(tmp_path / "a.h5", "w") as f:
        f.create_dataset("v", data=np.zeros((64, 64)), chunks=(4, 64))
    source = open_field(tmp_path / "a.h5").variable("v").source
    assert isinstance(source, Hdf5Source)
    assert source.handle.get()["v"].id.get_access_plist().get_chunk_cache()[1] <= CACHE_BYTES
