# SPDX-License-Identifier: MIT
"""Help and info stay light, and help says what the commands are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("torch", "mpi4py", "netCDF4", "xarray", "scipy")
PROBE = """
import sys
from hbae.cli.main import run
code = run(sys.argv[1:])
found = [m for m in {heavy!r} if m in sys.modules]
sys.exit(f"loaded: {{found}}" if found else code)
"""


@pytest.mark.parametrize(
    "args", [["--help"], ["compress", "--help"], ["batch", "--help"], ["--version"], ["info", "a.hbae", "--json"]]
)
def test_loads_no_heavy_module(args: list[str], files: Path) -> None:
    probe = [sys.executable, "-c", PROBE.format(heavy=HEAVY), *args]
    done = subprocess.run(probe, cwd=files, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr


def test_import_is_light() -> None:
    code = "import sys, hbae; sys.exit('numpy' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=300, check=False).returncode == 0
