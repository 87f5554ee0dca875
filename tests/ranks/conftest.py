# SPDX-License-Identifier: MIT
"""One input with what makes shares differ, and runs of real ranks under mpirun."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import pytest

COMMAND = [sys.executable, "-m", "hbae.cli.main"]
JOB = [sys.executable, str(Path(__file__).with_name("job.py"))]
# Root users and machines with few cores need these; a cluster needs none of them.
FLAGS = ["--allow-run-as-root", "--oversubscribe", "--bind-to", "none"]


@dataclass(frozen=True)
class Done:
    """Exit code and both streams."""

    code: int
    out: str
    err: str

    @property
    def line(self) -> str:
        """The one line of JSON on stdout."""
        lines = [text for text in self.out.splitlines() if text.startswith("{")]
        assert len(lines) == 1, self
        return lines[0]


@dataclass(frozen=True)
class Place:
    """A folder where commands run."""

    folder: Path

    def job(self, out: str, *, ranks: int = 0, **options: Any) -> Done:
        """Run job.py, under mpirun where ranks are given."""
        return self.run(*self.launcher(ranks), *JOB, out, json.dumps(options))

    def hbae(self, *words: str, ranks: int = 0, beside: tuple[str, ...] = ()) -> Done:
        """Run the command; ``beside``: there is a rank 1 with these words instead."""
        if beside:
            return self.run(*self.launcher(1), *COMMAND, *words, ":", "-n", "1", *COMMAND, *beside)
        return self.run(*self.launcher(ranks), *COMMAND, *words)

    def run(self, *command: str) -> Done:
        """Run any command to its end."""
        process = subprocess.Popen(
            command,
            cwd=self.folder,
            env={k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            out, err = process.communicate(timeout=300)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        return Done(process.returncode, out, err)

    @staticmethod
    def launcher(ranks: int) -> list[str]:
        """Give the words that start ranks; none for a plain process."""
        if not ranks:
            return []
        pytest.importorskip("mpi4py")
        beside = Path(sys.executable).parent / "mpirun"
        program = str(beside) if beside.exists() else shutil.which("mpirun")
        if program is None:
            pytest.skip("needs mpirun")
        return [program, *FLAGS, "-n", str(ranks)]

    def names(self) -> list[str]:
        """Give what lies in the folder beside the input, hidden files too."""
        return sorted(p.name for p in self.folder.iterdir() if p.name != "in.nc")


def write_input(path: Path) -> None:
    """Write fields whose noise grows along the first axis, deflated and plain, and lossless ones, large and small."""
    rng = np.random.default_rng(5)
    shape = (36, 40, 48)
    x, y, z = np.meshgrid(*(np.arange(n) / 9 for n in shape), indexing="ij")
    with netCDF4.Dataset(path, "w") as d:
        for name, n in zip(("time", "lat", "lon"), shape, strict=True):
            d.createDimension(name, n)
        d.createDimension("cell", 150_000)
        d.createVariable("lat", "f8", ("lat",))[:] = np.arange(40)
        for name, kind, chunks in (("T", "f4", (7, 40, 48)), ("U", "f4", (5, 40, 48)), ("W", "f8", None)):
            v = d.createVariable(name, kind, ("time", "lat", "lon"), zlib=chunks is not None, chunksizes=chunks)
            v[:] = np.sin(x) * np.cos(y) + z + rng.normal(size=shape) * np.linspace(0.1, 1.5, 36)[:, None, None]
        d.createVariable("P", "f4", ("lat", "time", "lon"))[:] = np.exp(np.sin(x + y)).transpose(1, 0, 2)
        d.createVariable("V", "f4", ("lon", "time", "lat"))[:] = d["T"][:].transpose(2, 0, 1)
        d["U"][:, 3, 4] = -0.0
        d.createVariable("mesh", "i4", ("cell",))[:] = rng.integers(0, 1000, 150_000)


@pytest.fixture(scope="session")
def input_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the input, written once."""
    path = tmp_path_factory.mktemp("input") / "in.nc"
    write_input(path)
    return path


@pytest.fixture
def place(tmp_path: Path, input_file: Path) -> Place:
    """Give a folder with a copy of the input."""
    shutil.copy(input_file, tmp_path / "in.nc")
    return Place(tmp_path)


@pytest.fixture(scope="session")
def serial(input_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the archive that one plain process writes."""
    folder = tmp_path_factory.mktemp("serial")
    shutil.copy(input_file, folder / "in.nc")
    done = Place(folder).job("a.hbae")
    assert done.code == 0, done
    assert json.loads(done.line)["touch-ups"] >= 1
    assert json.loads(done.line)["finer plans"] >= 1
    assert json.loads(done.line)["looks"] >= 2
    return folder / "a.hbae"
