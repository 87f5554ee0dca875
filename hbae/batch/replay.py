# SPDX-License-Identifier: MIT
"""Plays the work queue with known times per item on any number of ranks."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Replay:
    """How long a run takes; ``efficiency`` is work over ranks times duration, ``root`` the share of it serving."""

    ranks: int
    duration: float
    efficiency: float
    root: float


def replay(seconds: Sequence[float], ranks: int, *, service: float = 0.0, latency: float = 0.0) -> Replay:
    """Give the duration of items handed out in that order, each to the rank that asked first.

    Parameters
    ----------
    seconds : sequence of float
        Time of each item, in the order in which they are handed out.
    ranks : int
        Ranks that work, the root among them.
    service : float
        Seconds that the root needs for one answer; it answers one rank after the other.
    latency : float
        Seconds of a message each way.

    Raises
    ------
    ValueError
        When there is no rank.
    """
    if ranks < 1:
        raise ValueError("ranks: must be at least 1")
    asking = [(0.0, rank) for rank in range(ranks)]
    free = end = 0.0
    for spent in seconds:
        arrival, rank = heapq.heappop(asking)
        free = max(free, arrival) + service
        finished = free + latency + spent
        end = max(end, finished)
        heapq.heappush(asking, (finished + latency, rank))
    total = sum(seconds)
    return Replay(
        ranks=ranks,
        duration=end,
        efficiency=total / (ranks * end) if end else 1.0,
        root=len(seconds) * service / end if end else 0.0,
    )
