# SPDX-License-Identifier: MIT
"""Ctrl-C and SIGTERM leave no file, whole or partial."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc and POSIX signals")


def stop(process: subprocess.Popen[str], number: signal.Signals) -> tuple[int, str, str]:
    """Signal the whole group, as a terminal does."""
    os.killpg(process.pid, number)
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


Start = Callable[..., subprocess.Popen[str]]


def wait_for_part(process: subprocess.Popen[str], folder: Path) -> None:
    """Wait until pass 2 is under way: the archive grows under another name."""
    end = time.monotonic() + 300
    while not any(p.stat().st_size > 8192 for p in folder.glob(".b.hbae.*")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["ctrl-c", "terminate"])
@pytest.mark.parametrize("threads", ["1", "2"])
def test_while_encoding(
    tmp_path: Path, start: Start, make_fields: Callable[..., None], number: signal.Signals, code: int, threads: str
) -> None:
    # Seconds of work after the first bytes, so that it is not done before the signal.
    make_fields(tmp_path / "a.nc", times=900)
    args = ("--bound", "nrmse=1e-3", "--chunk", "0.0625", "--method", "linear", "--threads", threads)
    process = start("compress", "a.nc", "-o", "b.hbae", *args, "--json")
    wait_for_part(process, tmp_path)
    returned, out, err = stop(process, number)
    assert returned == code, err
    if threads == "1":
        assert "Traceback" not in err
    assert [p.name for p in tmp_path.iterdir()] == ["a.nc"]
    if number == signal.SIGINT:
        assert json.loads(out) == {"error": "interrupted", "kind": "KeyboardInterrupt"}


def test_while_training(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, start: Start, make_fields: Callable[..., None]
) -> None:
    pytest.importorskip("torch")
    make_fields(tmp_path / "a.nc")
    log = tmp_path_factory.mktemp("log") / "log.csv"
    process = start("train", "a.nc", "-o", "m.hbm", "--budget", "3000s", "--log", str(log))
    end = time.monotonic() + 300
    while not log.exists() or log.read_text().count("\n") < 2:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.01)
    returned, out, err = stop(process, signal.SIGINT)
    assert (returned, out) == (130, ""), err
    assert err.strip() == "hbae: interrupted"
    assert [p.name for p in tmp_path.iterdir()] == ["a.nc"]


@pytest.mark.parametrize("last", ["--json", "-v"])
def test_a_reader_that_goes_away(tmp_path: Path, start: Start, made: Path, last: str) -> None:
    """Nothing is said of it, neither by tables nor by lines: ``hbae ... | head`` is no failure to tell of."""
    process = start("info", str(made / "a.hbae"), last)
    assert process.stdout is not None
    assert process.stderr is not None
    with process.stderr:
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.wait() == 1
