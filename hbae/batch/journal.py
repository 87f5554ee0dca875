# SPDX-License-Identifier: MIT
"""What is finished, in ``journal.jsonl``: one line an item, written by the root alone.

A line ``run`` claims archives before any work, so that what a killed run leaves is known as its own. A line ``done``
vouches for an archive by size and SHA-256; ``failed`` tells why there is none.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NAME = "journal.jsonl"


@dataclass
class State:
    """What the lines say: recipe digest by claimed archive, and the last line of each finished one."""

    claimed: dict[str, str] = field(default_factory=dict)
    done: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    length: int = 0

    def take(self, doc: Any) -> None:
        """Add one line; a line of another form says nothing."""
        if not isinstance(doc, dict):
            return
        recipe, kind = doc.get("recipe"), doc.get("kind")
        if kind == "run" and isinstance(recipe, str) and isinstance(doc.get("claims"), list):
            self.claimed.update((str(name), recipe) for name in doc["claims"])
        elif kind == "done" and isinstance(doc.get("archive"), str):
            self.done[doc["archive"]] = doc


def read_journal(path: Path) -> State:
    """Read what a journal says; damaged lines and a torn last one are passed over, a missing file is an empty one."""
    state = State()
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return state
    state.length = data.rfind(b"\n") + 1
    for line in data[: state.length].splitlines():
        try:
            state.take(json.loads(line))
        except ValueError:
            continue
    return state


class Journal:
    """Promises that a line is whole or absent, and on disk after :meth:`sync`; a torn last line is cut off first.

    Raises
    ------
    OSError
        When the folder cannot be written to.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.state = read_journal(path)
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o666)
        os.ftruncate(self._fd, self.state.length)
        self._length = self.state.length
        self._dirty = False

    def write(self, doc: Mapping[str, Any]) -> None:
        """Append a line; after a failure (a full disk) the journal ends where it did before."""
        data = json.dumps(doc, separators=(",", ":"), allow_nan=False).encode() + b"\n"
        try:
            at = self._length
            while at < self._length + len(data):
                at += os.pwrite(self._fd, data[at - self._length :], at)
        except OSError:
            os.ftruncate(self._fd, self._length)
            raise
        self._length = at
        self._dirty = True

    def sync(self) -> None:
        """Bring what was written to the disk."""
        if self._dirty:
            os.fsync(self._fd)
            self._dirty = False

    def close(self) -> None:
        """Sync and close."""
        try:
            self.sync()
        finally:
            os.close(self._fd)
