# SPDX-License-Identifier: MIT
"""Encodes chunks one after the other or in worker processes; the bytes are the same."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from threadpoolctl import threadpool_limits

from hbae.arrays import Array
from hbae.bound import Target
from hbae.exact import get_backend
from hbae.pipeline.encode import BlockEncoder, Coded, quiet
from hbae.pipeline.plan import GroupPlan
from hbae.pipeline.regions import encode_by_region
from hbae.pipeline.workers import Workers


@dataclass(frozen=True)
class Job:
    """Everything about a group's chunks that does not change from chunk to chunk."""

    plan: GroupPlan
    targets: list[Target]
    model: BlockEncoder | None
    backend: str
    lossless: bool
    fine: int = 0

    def run(self, raw: Array, invalid: Array, targets: list[Target]) -> Coded:
        """Encode one chunk on one thread (the number of threads must not show in the bytes).

        ``targets``: the job's, with the points of regions.
        """
        with quiet(), threadpool_limits(1):
            return encode_by_region(
                raw,
                invalid,
                self.plan,
                targets,
                model=self.model,
                backend=get_backend(self.backend),
                lossless=self.lossless,
                fine=self.fine,
            )


def encode_all(
    job: Job, chunks: Iterable[tuple[Array, Array, list[Target]]], workers: Workers, *, alone: bool
) -> Iterator[Coded]:
    """Give the coded chunks in order."""
    return workers.map(Job.run, job, chunks, alone=alone)
