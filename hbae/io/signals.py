# SPDX-License-Identifier: MIT
"""Turn signals that would kill the process at once into exceptions, so that temporaries are removed."""

from __future__ import annotations

import signal
import threading
from typing import Any


class TurnSignals:
    """While started, SIGTERM and SIGHUP raise SystemExit, unless the program handles them itself."""

    def __init__(self) -> None:
        self._old: dict[signal.Signals, Any] = {}

    def start(self) -> None:
        """Take over; does nothing outside the main thread."""
        if threading.current_thread() is not threading.main_thread():
            return
        for name in ("SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is signal.SIG_DFL:
                self._old[number] = signal.signal(number, _leave)

    def stop(self) -> None:
        """Give the signals back."""
        while self._old:
            number, old = self._old.popitem()
            signal.signal(number, old)


def _leave(number: int, frame: object) -> None:
    raise SystemExit(128 + number)
