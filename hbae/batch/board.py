# SPDX-License-Identifier: MIT
"""The queue on the root: hands items out in order, takes outcomes in; safe for two threads."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Protocol

from hbae.batch.items import Item
from hbae.batch.work import Outcome


class Sink(Protocol):
    """Where outcomes are written down."""

    def write(self, outcome: Outcome) -> None:
        """Note an outcome; it must survive the end of this process."""

    def sync(self) -> None:
        """Bring what was noted to the disk."""


class Board:
    """Promises that every item is handed out at most once and every outcome noted before the next item is given.

    ``stopped`` says why nothing more is handed out, if that is so; ``left`` are the items that stayed behind.
    """

    def __init__(self, items: Iterable[Item], sink: Sink | None, tell: Callable[[Outcome], None]) -> None:
        self._waiting = deque(items)
        self._lock = threading.Lock()
        self._sink, self._tell = sink, tell
        self._unwritten: list[Outcome] = []
        self.outcomes: list[Outcome] = []
        self.stopped = ""

    @property
    def left(self) -> list[Item]:
        """Items that nobody has begun."""
        return list(self._waiting)

    def take(self) -> Item | None:
        """Give the next item, or None when there is no more to do."""
        with self._lock:
            return self._waiting.popleft() if self._waiting and not self.stopped else None

    def put(self, outcome: Outcome) -> None:
        """Note an outcome; :meth:`sync` comes later, so that no rank waits for the disk."""
        with self._lock:
            self.outcomes.append(outcome)
            if outcome.stop:
                self.stopped = outcome.error
            self._write(outcome)
            self._tell(outcome)

    def sync(self) -> None:
        """Bring the notes to the disk."""
        with self._lock:
            try:
                if self._sink is not None:
                    self._sink.sync()
            except OSError as e:
                self.stopped = self.stopped or f"the journal cannot be written: {e.strerror or e}"

    def _write(self, outcome: Outcome) -> None:
        try:
            if self._sink is not None:
                self._sink.write(outcome)
        except OSError as e:
            self.stopped = self.stopped or f"the journal cannot be written: {e.strerror or e}"
            self._unwritten.append(outcome)

    def close(self) -> None:
        """Try once more to note what a full disk refused: half-written archives have made room since."""
        waiting, self._unwritten = self._unwritten, []
        for outcome in waiting:
            self._write(outcome)
        self.sync()
