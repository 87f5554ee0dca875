# SPDX-License-Identifier: MIT
"""Errors between an original and a decoded array, in float64 over the valid points."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from hbae.arrays import Array
from hbae.errors import FieldError


@dataclass(frozen=True)
class Errors:
    """Errors of one variable: root mean square and largest (its units), over ``span`` = max - min of the original."""

    rmse: float
    max_error: float
    span: float

    @property
    def nrmse(self) -> float:
        """RMSE over the range; 0 for an exact array, infinite for an inexact one of range 0."""
        if self.rmse == 0:
            return 0.0
        return self.rmse / self.span if self.span > 0 else math.inf

    @property
    def psnr(self) -> float:
        """-20 log10(nrmse), dB."""
        return -20 * math.log10(self.nrmse) if self.nrmse > 0 else math.inf


def measure(original: Array, decoded: Array, valid: Array | None = None) -> Errors:
    """Measure ``decoded`` against ``original`` over the valid (by default: finite) points, any shape.

    A decoded point that is not finite makes the errors infinite.

    Raises
    ------
    FieldError
        If the shapes differ.
    """
    if original.shape != decoded.shape:
        raise FieldError(f"shapes differ: {original.shape} and {decoded.shape}")
    mask = np.isfinite(original) if valid is None else valid
    whole = bool(mask.all())
    x = original.ravel() if whole else original[mask]
    y = decoded.ravel() if whole else decoded[mask]
    if x.size == 0:
        return Errors(0.0, 0.0, 0.0)
    span = float(x.max()) - float(x.min())
    total, largest, step = [], 0.0, 1 << 20
    for start in range(0, x.size, step):
        e = y[start : start + step].astype(np.float64)
        e -= x[start : start + step]
        if not np.isfinite(e).all():
            return Errors(math.inf, math.inf, span)
        total.append(float(np.dot(e, e)))
        largest = max(largest, float(e.max()), float(-e.min()))
    return Errors(math.sqrt(math.fsum(total) / x.size), largest, span)
