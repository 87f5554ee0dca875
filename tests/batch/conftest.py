# SPDX-License-Identifier: MIT
"""A folder of small inputs, recipes for it, and runs of the real command with and without mpirun."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import pytest
import yaml

COMMAND = [sys.executable, "-m", "hbae.cli.main"]
# Root users and machines with few cores need these; a cluster needs none of them.
MPIRUN = ["mpirun", "--allow-run-as-root", "--oversubscribe", "--bind-to", "none"]


def write_input(path: Path, *, times: int, shift: float) -> None:
    """Write one smooth float32 field (time, lat, lon) with a little noise."""
    x, y, z = np.meshgrid(np.arange(times) / 9, np.arange(20) / 9, np.arange(24) / 9, indexing="ij")
    noise = np.random.default_rng(int(shift * 10)).normal(0, 0.01, x.shape)
    with netCDF4.Dataset(path, "w") as d:
        for name, size in zip(("time", "lat", "lon"), x.shape, strict=True):
            d.createDimension(name, size)
        d.createVariable("T", "f4", ("time", "lat", "lon"))[:] = 10 * np.sin(x + shift) * np.cos(y) + z + noise


def mpi_program() -> str | None:
    """Find mpirun beside the interpreter or on the path, if mpi4py is there as well."""
    beside = Path(sys.executable).parent / "mpirun"
    program = str(beside) if beside.exists() else shutil.which("mpirun")
    try:
        import mpi4py  # noqa: F401
    except ImportError:
        return None
    return program


@dataclass
class Bench:
    """A folder with inputs, where commands run."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    def recipe(self, name: str = "r.yaml", **keys: Any) -> str:
        """Write a recipe; its output is the folder ``out`` unless another is named."""
        doc = {"inputs": "in/*.nc", "output": "out", "bound": "nrmse=1e-2", "method": "linear", "threads": 1} | keys
        (self.folder / name).write_text(yaml.safe_dump({k: v for k, v in doc.items() if v is not None}))
        return name

    def start(self, *args: str, ranks: int = 0) -> subprocess.Popen[str]:
        """Start ``hbae batch ARGS``, under mpirun where ranks are given, in a session of its own."""
        return self.start_raw(*self.launcher(ranks), *COMMAND, "batch", *args)

    def start_raw(self, *command: str) -> subprocess.Popen[str]:
        """Start any command in the folder."""
        env = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"} | self.environment
        pipe = subprocess.PIPE
        return subprocess.Popen(
            command, cwd=self.folder, env=env, stdout=pipe, stderr=pipe, text=True, start_new_session=True
        )

    def start_held(self, *args: str) -> subprocess.Popen[str]:
        """Start ``hbae batch ARGS`` so that it waits after some items until :meth:`finish` reads what it says.

        Its stdout takes one page: with inputs of long names (:meth:`add_copies`) some fifteen lines.
        """
        self.environment["PYTHONUNBUFFERED"] = "1"
        process = self.start(*args)
        assert process.stdout is not None
        fcntl.fcntl(process.stdout, fcntl.F_SETPIPE_SZ, 4096)
        return process

    def add_copies(self, count: int = 40) -> list[str]:
        """Copy the smallest input under long names; gives the names of their archives."""
        stems = [f"g{i:02d}" + 200 * "x" for i in range(count)]
        for stem in stems:
            shutil.copy(self.folder / "in" / "f0.nc", self.folder / "in" / f"{stem}.nc")
        return [f"{stem}.hbae" for stem in stems]

    def launcher(self, ranks: int) -> list[str]:
        """Give the words that start ranks; none for a plain process."""
        if not ranks:
            return []
        program = mpi_program()
        if program is None:
            pytest.skip("needs mpirun and mpi4py")
        return [program, *MPIRUN[1:], "-n", str(ranks)]

    def run(self, *args: str, ranks: int = 0) -> Done:
        """Run it to its end."""
        return self.finish(self.start(*args, ranks=ranks))

    def finish(self, process: subprocess.Popen[str], timeout: float = 300) -> Done:
        """Wait for a process; one that hangs is killed with its group and fails the test."""
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        return Done(process.returncode, out, err)

    def document(self, *args: str, ranks: int = 0) -> Any:
        """Run it with ``--json`` and give the one line on stdout, exit code added."""
        done = self.run(*args, "--json", ranks=ranks)
        lines = [line for line in done.out.splitlines() if line.startswith("{")]
        assert len(lines) == 1, done
        return json.loads(lines[0]) | {"exit": done.code}

    def journal(self, output: str = "out") -> list[dict[str, Any]]:
        """Give the journal's whole lines."""
        path = self.folder / output / "journal.jsonl"
        text = path.read_text() if path.exists() else ""
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]

    def hashes(self, output: str = "out") -> dict[str, str]:
        """Give the SHA-256 of every archive."""
        found = sorted((self.folder / output).glob("*.hbae"))
        return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in found}

    def wait_for(self, count: int, process: subprocess.Popen[str], output: str = "out") -> None:
        """Wait until a run has that many items in its journal."""
        end = time.monotonic() + 300
        while True:
            ended = process.poll() is not None
            if sum(line["kind"] == "done" for line in self.journal(output)) >= count:
                return
            assert not ended, process.communicate()
            assert time.monotonic() < end
            time.sleep(0.005)

    def ranks_of(self, launcher: int) -> dict[int, int]:
        """Find the process of each rank that runs below a launcher."""
        found = {}
        for path in Path("/proc").glob("[0-9]*"):
            try:
                parent = int((path / "stat").read_text().rsplit(")", 1)[1].split()[1])
                words = (path / "environ").read_bytes().split(b"\0")
            except (OSError, IndexError):
                continue
            rank = [w.partition(b"=")[2] for w in words if w.startswith(b"OMPI_COMM_WORLD_RANK=")]
            if rank and parent == launcher:
                found[int(rank[0])] = int(path.name)
        return found

    def finished(self, output: str = "out") -> dict[str, int]:
        """Give the change times of the archives that the journal lists as done."""
        names = [line["archive"] for line in self.journal(output) if line["kind"] == "done"]
        return {n: (self.folder / output / n).stat().st_mtime_ns for n in names}


@dataclass(frozen=True)
class Done:
    """Exit code and both streams."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder ``in`` with five inputs of different size."""
    folder = tmp_path_factory.mktemp("inputs") / "in"
    folder.mkdir()
    for n in range(5):
        write_input(folder / f"f{n}.nc", times=6 + 5 * n, shift=n)
    return folder


@pytest.fixture
def bench(tmp_path: Path, inputs: Path) -> Bench:
    """Give a test's own copy of the inputs."""
    shutil.copytree(inputs, tmp_path / "in")
    return Bench(tmp_path)


@pytest.fixture(scope="session")
def make_bench() -> type[Bench]:
    """Give :class:`Bench`, for folders without inputs."""
    return Bench


@pytest.fixture(scope="session")
def serial(inputs: Path) -> dict[str, str]:
    """Give the hashes of the archives that one plain process writes."""
    bench = Bench(inputs.parent)
    done = bench.run(bench.recipe())
    assert done.code == 0, done
    return bench.hashes()
