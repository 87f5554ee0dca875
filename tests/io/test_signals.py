# SPDX-License-Identifier: MIT
"""A signal is not lost, wherever it arrives."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")

WHERE = {
    "finaliser": "class A:\n    def __del__(self): tell()\nA()",
    "weak reference": "class A: pass\na = A(); r = weakref.ref(a, lambda _: tell()); del a",
    "twice": "class A:\n    def __del__(self): tell()\nA()\nB = A()\ntime.sleep(0.005)\ndel B",
    "plain": "tell()",
}
PROGRAM = """
import os, pickle, signal, sys, threading, time, weakref
from hbae.io.signals import TurnSignals

def tell():
    os.kill(os.getpid(), signal.{signal})
    time.sleep(0.001)

hook = sys.unraisablehook
signals = TurnSignals()
signals.start()
begin = time.monotonic()
try:
    {body}
    {wait}
    print("lost")
except BaseException as e:
    print(type(e).__mro__[-3].__name__, getattr(e, "code", ""))
    assert pickle.loads(pickle.dumps(e)).args == e.args
assert time.monotonic() - begin < 10
signals.stop()
assert sys.unraisablehook is hook and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
"""


@pytest.mark.parametrize(
    ("name", "told"), [("SIGTERM", "SystemExit 143"), ("SIGHUP", "SystemExit 129"), ("SIGINT", "KeyboardInterrupt ")]
)
@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("wait", ["time.sleep(30)", "threading.Event().wait()", "threading.Event().wait(30)"])
def test_a_signal_is_never_lost(name: str, told: str, where: str, wait: str, tmp_path: Path) -> None:
    """In a finaliser Python drops what is raised; sent again, it wakes what waits."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.format(signal=name, wait=wait, body=WHERE[where].replace("\n", "\n    ")))
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, told + "\n", "")


def test_other_lost_errors_are_told() -> None:
    """The hook takes its own signals only."""
    body = "class A:\n        def __del__(self): raise ValueError('mine')\n    A(); raise SystemExit(7)"
    program = PROGRAM.format(signal="SIGTERM", wait="", body=body)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.returncode) == ("SystemExit 7\n", 0)
    assert "ValueError: mine" in done.stderr
