# SPDX-License-Identifier: MIT
"""The output folder of one batch at a time: lock, leftovers of killed runs, archives that are not ours."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from hbae.batch.items import Item
from hbae.batch.journal import State
from hbae.errors import BatchError, OutputExistsError

LOCK = ".hbae-batch.lock"
SHOWN = 3
PATIENCE = 3.0
# A file system mounted without locks (Lustre without -o flock) answers with one of these.
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder, made if need be, for one batch; the lock ends with the process, however that ends.

    Raises
    ------
    BatchError
        When another batch writes there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    fd = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        _take(fd, folder)
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
        yield
    finally:
        os.close(fd)


def _take(fd: int, folder: Path) -> None:
    """Lock; ranks of a run whose launcher was killed get a moment to notice and go."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() < end:
                time.sleep(0.1)
                continue
            holder = os.pread(fd, 200, 0).decode(errors="replace").strip()
            raise BatchError(f"{folder}: another batch is writing there ({holder})") from None
        except OSError as e:
            if e.errno not in _NO_LOCKS:
                raise
            logging.getLogger("hbae").warning("%s: no locks on this file system; run one batch at a time", folder)
            return


def weigh(items: Sequence[Item], state: State, digest: str, *, force: bool) -> list[Item]:
    """Say for each item whether the journal vouches for its archive.

    Raises
    ------
    OutputExistsError
        When an archive is there that no run of this recipe has claimed, and ``force`` is not set.
    """
    foreign, out = [], []
    for item in items:
        exists = Path(item.archive).exists()
        ours = state.claimed.get(item.name) == digest
        if exists and not ours:
            foreign.append(item)
        out.append(replace(item, claim=_claim(item, state, digest) if exists and ours else None))
    if foreign and not force:
        names = ", ".join(i.name for i in foreign[:SHOWN]) + (", ..." if len(foreign) > SHOWN else "")
        why = "by another recipe" if any(i.name in state.claimed for i in foreign) else "not by this batch"
        folder = Path(foreign[0].archive).parent
        raise OutputExistsError(
            f"{folder}: {len(foreign)} archives were written there {why} ({names}); "
            "give another output folder, or -f to replace them"
        )
    return out


def _claim(item: Item, state: State, digest: str) -> str | None:
    """Give the SHA-256 of a finished archive; one of another input, recipe or size is not worth hashing."""
    line = state.done.get(item.name)
    if line is None or line.get("recipe") != digest:
        return None
    i = item.identity
    if line.get("input") != {"path": i.path, "size": i.size, "mtime_ns": i.mtime_ns}:
        return None
    sha = line.get("sha256")
    return sha if isinstance(sha, str) and line.get("size") == Path(item.archive).stat().st_size else None


def sweep(items: Sequence[Item]) -> None:
    """Remove what unfinished writing left of these items; call it with the folder locked."""
    folders = {Path(i.archive).parent for i in items}
    names = {i.name for i in items}
    for folder in folders:
        for path in folder.glob(".*.part"):
            if path.name[1:].rsplit(".", 2)[0] in names:
                path.unlink(missing_ok=True)
