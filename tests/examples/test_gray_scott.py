# SPDX-License-Identifier: MIT
"""The example under mpirun: its archives hold what a run without compression computes."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import hbae

EXAMPLE = Path(__file__).parents[2] / "examples" / "gray_scott.py"
SIZE, STEPS, EVERY = 40, 200, 10


def mpirun() -> str | None:
    """Find mpirun beside the interpreter or on the path."""
    beside = Path(sys.executable).parent / "mpirun"
    return str(beside) if beside.exists() else shutil.which("mpirun")


def plain_run() -> np.ndarray:
    """Compute the same fields with NumPy alone, (times, 2, y, x)."""
    noise = np.random.default_rng(1).normal(0, 0.02, (2, SIZE, SIZE))
    inside = np.abs(np.arange(SIZE) - SIZE // 2) < SIZE // 10 + 1
    square = inside[:, None] & inside[None, :]
    u, v = np.where(square, 0.5, 1.0) + noise[0] * square, np.where(square, 0.25, 0.0) + noise[1] * square
    out = []
    for step in range(STEPS + 1):
        if step % EVERY == 0:
            out.append((u.astype("f4"), v.astype("f4")))
        lu, lv = (sum(np.roll(a, k, axis=i) for i in (0, 1) for k in (1, -1)) - 4 * a for a in (u, v))
        r = u * v * v
        u, v = u + 0.16 * lu - r + 0.035 * (1 - u), v + 0.08 * lv + r - 0.1 * v
    return np.array(out)


def test_two_ranks_store_what_they_compute(tmp_path: Path) -> None:
    pytest.importorskip("mpi4py")
    program = mpirun()
    if program is None:
        pytest.skip("no mpirun")
    command = [program, "--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "-n", "2", sys.executable]
    sizes = ["--size", str(SIZE), "--steps", str(STEPS), "--every", str(EVERY)]
    done = subprocess.run(
        [*command, str(EXAMPLE), "--out", str(tmp_path), *sizes],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    assert sorted(p.name for p in tmp_path.iterdir()) == ["rank0.hbae", "rank1.hbae"]
    parts = [hbae.decompress(tmp_path / f"rank{r}.hbae") for r in range(2)]
    assert [p.attrs["first_row"] for p in parts] == [0, SIZE // 2]
    expected = plain_run()
    for k, name in enumerate("uv"):
        found = np.concatenate([p[name].values for p in parts], axis=1).astype("f8")
        assert found.shape == (STEPS // EVERY + 1, SIZE, SIZE)
        # The range given is 1; the solvers themselves agree to rounding.
        assert np.sqrt(np.mean((found - expected[:, k]) ** 2)) <= 1e-3 * (1 + 1e-6)
        assert parts[0]["time"].values.tolist() == list(range(0, STEPS + 1, EVERY))
    assert expected[-1, 1].max() > 0.1, "no pattern grew, so nothing was shown"
    raw, size = (int(n.replace(",", "")) for n in re.findall(r"all ranks: (\S+) bytes in (\S+),", done.stdout)[0])
    assert size == sum(p.stat().st_size for p in tmp_path.iterdir())
    assert raw == expected.nbytes
