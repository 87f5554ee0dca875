# SPDX-License-Identifier: MIT
"""Turn signals that would kill the process at once into exceptions, so that temporaries are removed."""

from __future__ import annotations

import _thread
import signal
import sys
import threading
import time
from typing import Any

# Between a signal whose exception was lost and the next try.
PAUSE_S = 0.01


class TurnSignals:
    """While started, SIGTERM and SIGHUP raise SystemExit, unless the program handles them itself.

    Python drops what is raised in a finaliser or in the callback of a weak reference; a signal that arrives there
    (Ctrl-C, too) is sent again.
    """

    def __init__(self) -> None:
        self._old: dict[signal.Signals, Any] = {}
        self._hook: Any = None
        self._old_hook: Any = None

    def start(self) -> None:
        """Take over; does nothing outside the main thread."""
        if threading.current_thread() is not threading.main_thread():
            return
        for name in ("SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is signal.SIG_DFL:
                self._old[number] = signal.signal(number, _leave)
        if self._hook is None and hasattr(signal, "pthread_kill"):
            self._old_hook, self._hook = sys.unraisablehook, self._send_again
            sys.unraisablehook = self._hook

    def stop(self) -> None:
        """Give the signals back."""
        while self._old:
            number, old = self._old.popitem()
            signal.signal(number, old)
        if self._hook is not None and sys.unraisablehook is self._hook:
            sys.unraisablehook = self._old_hook
        self._hook = None

    def _send_again(self, lost: sys.UnraisableHookArgs) -> None:
        if isinstance(lost.exc_value, Told):
            number = signal.Signals(int(lost.exc_value.code or 0) - 128)
        elif isinstance(lost.exc_value, KeyboardInterrupt):
            number = signal.SIGINT
        else:
            self._old_hook(lost)
            return
        # From another thread and later: an exception raised in here would be lost as well. The bare module, as
        # threading's locks may be held by what was interrupted.
        _thread.start_new_thread(_send, (number, threading.main_thread().ident or 0))


class Told(SystemExit):
    """The process was told to end by a signal; the code is 128 and its number."""


def _leave(number: int, frame: object) -> None:
    raise Told(128 + number)


def _send(number: signal.Signals, thread: int) -> None:
    """Send a signal to the main thread, which wakes it where it waits."""
    time.sleep(PAUSE_S)
    signal.pthread_kill(thread, number)
