# SPDX-License-Identifier: MIT
"""Worker processes leave the caller's script and the caller's other processes alone."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest

from hbae.processes import WorkerPool

COUNT = "import pathlib\npathlib.Path('runs').open('a').write('x')\n"
POOL = "from hbae.processes import WorkerPool\nwith WorkerPool(2) as pool:\n    print(sum(pool.map(abs, [-1, 2, 3])))\n"
SYNTH = (
    "import hashlib\nfrom hbae.synth import S3DConfig, s3d_stream\n"
    "c = S3DConfig(steps=1, ny=4, nx=4, table=(2, 2, 24), processes=2)\n"
    "print(s3d_stream(c).whole()['T'].shape)\n"
)


@pytest.mark.parametrize(("code", "said"), [(POOL, "6"), (SYNTH, "(1, 4, 4)")], ids=["pool", "s3d"])
def test_a_script_needs_no_guard(code: str, said: str, tmp_path: Path) -> None:
    if code is SYNTH:
        pytest.importorskip("cantera")
    (tmp_path / "script.py").write_text(COUNT + code)
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == said
    assert (tmp_path / "runs").read_text() == "x"


def test_only_its_own_workers_are_killed() -> None:
    other = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(600,))
    other.start()
    try:
        with WorkerPool(1) as pool:
            future = pool.submit(time.sleep, 600)
            pool.kill()
            with pytest.raises(BrokenProcessPool, match="terminated abruptly"):
                future.result(timeout=300)
        assert other.is_alive()
    finally:
        other.kill()
        other.join()
