# SPDX-License-Identifier: MIT
"""Errors of a variable as partial sums, combined in chunk order: NRMSE, PSNR, largest error."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from hbae.arrays import Array


@dataclass(frozen=True)
class VariableErrors:
    """Errors of one variable in one chunk: sum of squares, number of valid points, largest error.

    Units as the variable.
    """

    sse: float = 0.0
    count: int = 0
    max_error: float = 0.0

    @staticmethod
    def of(error: Array, valid: Array) -> VariableErrors:
        """Measure ``decoded - original`` (float64) over the valid points."""
        e = error[valid] if not valid.all() else error.ravel()
        if e.size == 0:
            return VariableErrors()
        return VariableErrors(float(np.dot(e, e)), int(e.size), float(np.abs(e).max()))


@dataclass(frozen=True)
class Totals:
    """Errors of a whole variable. ``span`` is the range that the bounds refer to."""

    sse: float
    count: int
    max_error: float
    span: float

    @staticmethod
    def of(parts: Iterable[VariableErrors], span: float) -> Totals:
        """Combine chunks; the sum is exact before its one rounding (fsum)."""
        items = list(parts)
        return Totals(
            math.fsum(p.sse for p in items),
            sum(p.count for p in items),
            max((p.max_error for p in items), default=0.0),
            span,
        )

    @property
    def rmse(self) -> float:
        """Root of the mean squared error."""
        return math.sqrt(self.sse / self.count) if self.count else 0.0

    @property
    def nrmse(self) -> float:
        """RMSE over the range; 0 for an exact variable of range 0."""
        if self.rmse == 0:
            return 0.0
        return self.rmse / self.span if self.span > 0 else math.inf

    @property
    def psnr(self) -> float:
        """-20 log10(nrmse), dB."""
        return -20 * math.log10(self.nrmse) if self.nrmse > 0 else math.inf
