# SPDX-License-Identifier: MIT
"""Seeded changes behind right checksums: each gives values or a failure of hbae's own, in little memory and time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

GOLDEN = Path(__file__).parent.parent / "golden"
RUN = """
import resource, signal, sys
from pathlib import Path
import h5py, netCDF4, numpy, xarray
import hbae
from hbae.errors import HbaeError
from hbae.pipeline.decompress import decompress_file
sys.path.insert(0, sys.argv[1])
from hostile_files import spoil

class Late(BaseException):
    pass

def ring(*_):
    raise Late

signal.signal(signal.SIGALRM, ring)
resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
files, bad, caught = sorted(Path(sys.argv[2]).glob("*.hbae")), Path("bad.hbae"), 0
for seed in range(int(sys.argv[3])):
    what = spoil(files[seed % len(files)], bad, seed)
    actions = {
        "decompress": lambda: hbae.decompress(bad, backend="numpy"),
        "verify": lambda: hbae.verify(bad, backend="numpy"),
        "salvage": lambda: decompress_file(bad, "out.nc", salvage=True, overwrite=True, backend="numpy"),
    }
    if seed % 4:
        del actions["salvage"]
    for name, act in actions.items():
        signal.alarm(10)
        try:
            act()
        except HbaeError:
            caught += 1
        except BaseException as e:
            raise SystemExit(f"seed {seed}, {files[seed % len(files)].name}, {what}, {name}: {e!r}")
        finally:
            signal.alarm(0)
print(caught)
"""


def test_spoiled_archives_are_refused_or_decode(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", RUN, str(Path(__file__).parent), str(GOLDEN), "700"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 500, "most changes are noticed"
