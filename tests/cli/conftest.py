# SPDX-License-Identifier: MIT
"""Runs of the real command in a process of its own, and small files to run it on."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import pytest

from hbae.pipeline.archive import Archive

COMMAND = [sys.executable, "-m", "hbae.cli.main"]


@dataclass(frozen=True)
class Result:
    """Exit code and both streams."""

    code: int
    out: str
    err: str

    @property
    def doc(self) -> Any:
        """The only thing on stdout: one JSON object on one line."""
        assert self.out.count("\n") == 1, self.out
        return json.loads(self.out)


Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Give a function that runs ``hbae ARGS`` in the test's folder."""

    def call(*args: str) -> Result:
        done = subprocess.run([*COMMAND, *args], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
        return Result(done.returncode, done.stdout, done.stderr)

    return call


def write_fields(path: Path, *, times: int = 12, shift: float = 0.0, names: str = "TUV") -> None:
    """Write smooth float32 fields (time, lat, lon) with coordinates and an integer variable."""
    rng = np.random.default_rng(3)
    shape = {"time": times, "lat": 20, "lon": 24}
    x, y, z = np.meshgrid(*(np.arange(n) / 9 for n in shape.values()), indexing="ij")
    with netCDF4.Dataset(path, "w") as d:
        for name, size in shape.items():
            d.createDimension(name, size)
            d.createVariable(name, "f8", (name,))[:] = np.arange(size)
        for i, name in enumerate(names):
            v = d.createVariable(name, "f4", tuple(shape), fill_value=-999.0)
            v[:] = 10 * np.sin(x + i + shift) * np.cos(y) + np.sin(z * i) + rng.normal(0, 0.01, x.shape)
        d.createVariable("flag", "i4", ("lat",))[:] = np.arange(20)


@pytest.fixture
def make_fields() -> Callable[..., None]:
    """Give :func:`write_fields`."""
    return write_fields


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """Give a function that starts ``hbae ARGS`` in the test's folder, in a session of its own."""

    def call(*args: str) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        return subprocess.Popen(
            [*COMMAND, *args], cwd=tmp_path, stdout=pipe, stderr=pipe, text=True, start_new_session=True
        )

    return call


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder with ``a.nc``, its archive ``a.hbae`` of several chunks, and ``bad.hbae`` with a changed chunk."""
    folder = tmp_path_factory.mktemp("made")
    write_fields(folder / "a.nc")
    args = ["compress", "a.nc", "-o", "a.hbae", "--bound", "nrmse=1e-3", "--chunk", "0.0625", "--block", "4x4x4"]
    subprocess.run([*COMMAND, *args], cwd=folder, check=True, capture_output=True, timeout=300)
    with Archive(folder / "a.hbae", backend="numpy") as a:
        assert a.reader.num_chunks > 1
        payload = a.reader.chunk(1)
    data = bytearray((folder / "a.hbae").read_bytes())
    data[data.index(payload) + len(payload) // 2] ^= 0xFF
    (folder / "bad.hbae").write_bytes(data)
    return folder


@pytest.fixture
def files(made: Path, tmp_path: Path) -> Path:
    """Give the test's folder with copies of ``a.nc``, ``a.hbae`` and ``bad.hbae``."""
    for path in made.iterdir():
        shutil.copy(path, tmp_path)
    return tmp_path
