# SPDX-License-Identifier: MIT
"""What a batch did, as numbers: the same for people and for machines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hbae.batch.items import Item
from hbae.batch.work import Outcome
from hbae.errors import BoundViolationError

SLOWEST = 5


@dataclass(frozen=True)
class Summary:
    """One run over a batch: ``seconds`` by the clock, outcomes in the order in which they came, items left undone."""

    folder: str
    ranks: int
    seconds: float
    outcomes: Sequence[Outcome]
    left: Sequence[Item]
    stopped: str = ""

    @property
    def failures(self) -> list[Outcome]:
        """Items without an archive."""
        return [o for o in self.outcomes if o.status == "failed"]

    @property
    def slowest(self) -> list[Outcome]:
        """The items that took longest."""
        done = [o for o in self.outcomes if o.status == "done"]
        return sorted(done, key=lambda o: -o.seconds)[:SLOWEST]

    @property
    def exit_code(self) -> int:
        """0 when every item has its archive, 3 when bounds are all that failed, else 1."""
        if self.left or self.stopped:
            return 1
        codes = {o.code for o in self.failures}
        return 0 if not codes else BoundViolationError.exit_code if codes == {BoundViolationError.exit_code} else 1

    @property
    def error(self) -> str:
        """Why the exit code is not 0, in one line."""
        if self.stopped:
            return f"stopped: {self.stopped}; make room and start it again ({len(self.left)} items not begun)"
        return f"{len(self.failures)} of {len(self.outcomes)} items failed" if self.failures else ""

    def to_json(self) -> dict[str, Any]:
        """Give everything as JSON values."""
        counts = Counter(o.status for o in self.outcomes)
        done = [o for o in self.outcomes if o.status == "done"]
        raw = sum(o.report["raw_bytes"] for o in done)
        size = sum(o.size for o in done)
        doc: dict[str, Any] = {
            "output": self.folder,
            "ranks": self.ranks,
            "seconds": self.seconds,
            "done": counts["done"],
            "kept": counts["kept"],
            "failed": counts["failed"],
            "not_begun": len(self.left),
            "input_bytes": sum(o.item.identity.size for o in done),
            "raw_bytes": raw,
            "archive_bytes": size,
            "cr": raw / size if size else None,
            "item_seconds": sum(o.seconds for o in done),
            "slowest": [{"input": o.item.identity.path, "seconds": o.seconds, "size": o.size} for o in self.slowest],
            "failures": [
                {"input": o.item.identity.path, "kind": o.kind, "error": o.error, "code": o.code} for o in self.failures
            ],
        }
        return doc | ({"error": self.error, "kind": "BatchError"} if self.exit_code else {})
