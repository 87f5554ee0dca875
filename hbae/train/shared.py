# SPDX-License-Identifier: MIT
"""The sample that ranks train on: read once by rank 0, kept once for each host in a file that its ranks map."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from hbae.arrays import Array
from hbae.train.ranks import Ranks

PART_BYTES = 16 << 20


def share_blocks(
    ranks: Ranks, hosts: tuple[str, ...], given: tuple[Array, Array | None] | None, folder: Path | None = None
) -> tuple[Array, Array | None]:
    """Give every rank the hyper-blocks (N, K, P, V) and validity that rank 0 has, as read-only maps of a file.

    The first rank of each host writes the file (in ``folder``, else the system's temporary one). It loses its name as
    soon as all have opened it; from then on it vanishes however the processes end. Alone, what was given comes back.

    Raises
    ------
    OSError
        When a file cannot be written.
    """
    if ranks.size == 1:
        if given is None:
            raise ValueError("one process shares with nobody")
        return given
    x, valid = given if given is not None else (None, None)
    facts = ranks.share(None if x is None else (x.shape, x.dtype.str, valid is not None))
    if facts is None:
        raise ValueError("rank 0 has nothing to share")
    shape, dtype, masked = facts
    leaders = [hosts.index(h) for h in dict.fromkeys(hosts)]
    group = dist.new_group(leaders) if len(leaders) > 1 else None
    parts = [_Shared(ranks, hosts, shape, np.dtype(dtype), folder)]
    parts += [_Shared(ranks, hosts, shape, np.dtype(bool), folder)] if masked else []
    try:
        for part, array in zip(parts, (x, valid), strict=False):
            if part.leader:
                part.fill(array, group)
        _wait(ranks)
        maps = [part.open() for part in parts]
        _wait(ranks)
    finally:
        for part in parts:
            part.forget()
    return maps[0], maps[1] if masked else None


def _wait(ranks: Ranks) -> None:
    """Go on when all ranks are here."""
    ranks.gather(None)
    ranks.share(None)


class _Shared:
    """One array in a file of each host."""

    def __init__(
        self, ranks: Ranks, hosts: tuple[str, ...], shape: tuple[int, ...], dtype: np.dtype[Any], folder: Path | None
    ) -> None:
        self.rank, self.shape, self.dtype = ranks.rank, shape, dtype
        first = hosts.index(hosts[ranks.rank])
        self.leader = first == ranks.rank
        name = ""
        if self.leader:
            fd, name = tempfile.mkstemp(prefix="hbae-", suffix=".scratch", dir=folder)
            os.close(fd)
        self.name = ranks.share(ranks.gather(name) or [])[first]

    def fill(self, array: Array | None, group: Any) -> None:
        """Write the file, from rank 0's array or from what rank 0 sends to the leaders."""
        rows = max(1, PART_BYTES // max(1, int(np.prod(self.shape[1:])) * self.dtype.itemsize))
        with open(self.name, "wb") as f:
            for i in range(0, self.shape[0], rows):
                count = min(rows, self.shape[0] - i)
                if array is not None:
                    part = np.ascontiguousarray(array[i : i + count])
                else:
                    part = np.empty((count, *self.shape[1:]), self.dtype)
                if group is not None:
                    dist.broadcast(torch.from_numpy(part.view(np.uint8)), src=0, group=group)
                f.write(part.data)

    def open(self) -> Array:
        """Map the file."""
        return np.memmap(self.name, self.dtype, "r", shape=self.shape)

    def forget(self) -> None:
        """Take the file's name away."""
        if self.leader:
            Path(self.name).unlink()
