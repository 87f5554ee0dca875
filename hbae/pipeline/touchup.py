# SPDX-License-Identifier: MIT
"""A global bound that was missed by little is met by coding a few chunks again, with finer steps."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from types import TracebackType

import numpy as np

from hbae.arrays import Array
from hbae.bound import Totals, VariableErrors
from hbae.bound.targets import MARGIN
from hbae.pipeline.groups import LossyVariable

TOUCH_UPS = (0, 64, 128)
"""Fineness of chunks at first, and when they are coded again: steps times 1, 3/4, 1/2."""
_KEPT_IN_MEMORY = 64 << 20
# Three quarters of the step leave about 2/3 of the squared error; less is counted on.
_GAIN = 0.3


def worst_chunks(errors: list[list[VariableErrors]], ratio: Array) -> Array:
    """Give the numbers of the fewest chunks whose finer steps should meet every limit, ascending.

    None when all limits hold already, or when more than a third would be needed.

    Parameters
    ----------
    errors : V lists of errors by chunk
    ratio : (V,) array
        RMSE over its limit; at most 1 holds.
    """
    missed = np.flatnonzero(ratio > 1)
    sse = np.array([[e.sse for e in errors[v]] for v in missed]).reshape(len(missed), len(errors[0]))
    excess = sse.sum(1) * (1 - ratio[missed] ** -2.0)
    if not missed.size or not (excess > 0).all() or not np.isfinite(sse).all():
        return np.zeros(0, np.int64)
    share = _GAIN * sse / excess[:, None]
    order = np.argsort(-share.max(0), kind="stable")
    enough = (np.cumsum(share[:, order], axis=1) >= 1).all(0)
    count = int(enough.argmax()) + 1 if enough.any() else len(order)
    out: Array = np.sort(order[:count]) if 3 * count <= len(order) else np.zeros(0, np.int64)
    return out


def finer_factors(ratio: Array, attempt: int) -> Array:
    """Give factors for the steps after a miss: first for the variables that missed, then all alike."""
    if attempt == 0:
        return np.where(ratio > 0.99, (0.98 / ratio) ** 1.2, 1.0)
    return np.full(len(ratio), float(0.98 / ratio.max()) ** 1.25)


def global_ratios(totals: list[Totals], members: list[LossyVariable]) -> Array:
    """Give RMSE over its global limit for every variable; at most 1 (with the inner margin) means it holds."""
    out = [
        t.sse / (m.target.rmse * m.target.rmse * max(t.count, 1)) / MARGIN if np.isfinite(m.target.rmse) else 0.0
        for t, m in zip(totals, members, strict=True)
    ]
    ratio: Array = np.sqrt(np.array(out))
    return ratio


class Spool:
    """Keeps coded chunks aside (in memory, then in a temporary file) while the archive is written again."""

    def __init__(self, payloads: Iterable[bytes]) -> None:
        self._file = tempfile.SpooledTemporaryFile(_KEPT_IN_MEMORY)  # noqa: SIM115
        self._ends = [0]
        for p in payloads:
            self._file.write(p)
            self._ends.append(self._ends[-1] + len(p))

    def take(self, number: int) -> bytes:
        """Give back the bytes of a chunk."""
        self._file.seek(self._ends[number])
        return self._file.read(self._ends[number + 1] - self._ends[number])

    def close(self) -> None:
        """Forget everything."""
        self._file.close()

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()
