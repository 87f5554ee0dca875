# SPDX-License-Identifier: MIT
"""Quantisation with a dead zone: a little less fidelity near zero saves many bits."""

from __future__ import annotations

import numpy as np

from hbae.arrays import Array

ROUNDING = 0.33


def dead_zone(c: Array, rounding: float = ROUNDING) -> Array:
    """Give integers sign(c) * floor(|c| + rounding) (float64); 0.5 would be plain rounding."""
    q = np.abs(c)
    q += rounding
    np.floor(q, out=q)
    return np.copysign(q, c)
