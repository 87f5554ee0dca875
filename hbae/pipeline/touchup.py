# SPDX-License-Identifier: MIT
"""A global bound that was missed by little is met by coding a few chunks again, with finer steps."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable
from types import TracebackType

import numpy as np

from hbae.arrays import Array
from hbae.bound import Totals, VariableErrors
from hbae.bound.targets import MARGIN
from hbae.pipeline.groups import LossyVariable

TOUCH_UPS = ((8, 0.035), (16, 0.07), (32, 0.145), (64, 0.3), (128, 0.65), (192, 0.85))
"""Fineness of chunks that are coded again (steps times 31/32, 15/16, 7/8, 3/4, 1/2, 1/4), and the part of their squared
error that is counted on to go."""
# Where coefficients are few, bytes grow about as that power of the fineness of steps.
_GROWTH = 0.8
STUBBORN = 3.0
"""Errors of variables that a basis ties together grow about as the cubic root of their own step, or less."""
# Such variables after a first and a second miss: power of the factor asked for, factor of those that held. No power
# takes a factor below the last number, unless steps that no basis ties would go there, too.
_TRIES_TIED, _LEAST_TIED = ((STUBBORN, 1.0), (1.5, 0.97)), 0.8
_KEPT_IN_MEMORY = 64 << 20


def touch_up(errors: list[list[VariableErrors]], ratio: Array, coded: int) -> tuple[int, Array]:
    """Give a fineness beyond ``coded`` and the chunks to code again with it, for the fewest bits more; maybe none.

    ``errors``, ``ratio``: as of :func:`worst_chunks`.
    """
    # Some may have been coded again already: only what is new is counted on.
    left = 1 - dict(TOUCH_UPS).get(coded, 0.0)
    found = [(fine, worst_chunks(errors, ratio, 1 - (1 - gain) / left)) for fine, gain in TOUCH_UPS if fine > coded]
    able = [(len(again) * math.log2(256 / (256 - fine)), fine, again) for fine, again in found if len(again)]
    return min(able, key=lambda a: a[:2])[1:] if able else (coded, np.zeros(0, np.int64))


def worst_chunks(errors: list[list[VariableErrors]], ratio: Array, gain: float) -> Array:
    """Give the numbers of the fewest chunks whose finer steps should meet every limit, ascending.

    None when all limits hold already, or when more than a third would be needed.

    Parameters
    ----------
    errors : V lists of errors by chunk
    ratio : (V,) array
        RMSE over its limit; at most 1 holds.
    gain : float
        Part of a chunk's squared error that finer steps take away.
    """
    missed = np.flatnonzero(ratio > 1)
    sse = np.array([[e.sse for e in errors[v]] for v in missed]).reshape(len(missed), len(errors[0]))
    excess = sse.sum(1) * (1 - ratio[missed] ** -2.0)
    if not missed.size or not (excess > 0).all() or not np.isfinite(sse).all():
        return np.zeros(0, np.int64)
    share = gain * sse / excess[:, None]
    order = np.argsort(-share.max(0), kind="stable")
    enough = (np.cumsum(share[:, order], axis=1) >= 1).all(0)
    count = int(enough.argmax()) + 1 if enough.any() else len(order)
    out: Array = np.sort(order[:count]) if 3 * count <= len(order) else np.zeros(0, np.int64)
    return out


def finer_factors(ratio: Array, attempt: int, *, tied: bool) -> Array:
    """Give factors for the steps after a miss: for the variables that missed, or, where that was tried, for all alike.

    ``tied``: a basis over the variables makes the error of each less depend on its own step, and more on those of
    others, so that a second try comes before all move alike.
    """
    if attempt > tied:
        return np.full(len(ratio), float(0.98 / ratio.max()) ** 1.25)
    ask = 0.98 / ratio
    if not tied:
        return np.where(ratio > 0.99, ask**1.2, 1.0)
    power, others = _TRIES_TIED[attempt]
    return np.where(ratio > 0.99, np.maximum(ask**power, np.minimum(ask**1.2, _LEAST_TIED)), others)


def growth_of_chunks(fine: int, share: float) -> float:
    """Estimate by what part bytes grow where a share of the chunks gets that fineness."""
    return share * (math.pow(256 / (256 - fine), _GROWTH) - 1)


def growth_of_plan(ratio: Array, attempt: int, *, tied: bool) -> float:
    """Estimate by what part bytes grow with the next plan (:func:`finer_factors`)."""
    return float((finer_factors(ratio, attempt, tied=tied) ** -_GROWTH).mean()) - 1


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
