# SPDX-License-Identifier: MIT
"""Pruning by magnitude: masks, and the levels of sparsity that a layer may take."""

from __future__ import annotations

import numpy as np

from hbae.arrays import Array

LEVELS = (0.0, 0.2, 0.35, 0.5, 0.65, 0.75, 0.85, 0.9, 0.95)


def magnitude_mask(weights: Array, sparsity: float) -> Array:
    """Tell which weights stay (bool): all but the smallest ``sparsity * size`` (rounded down); zeros never stay.

    Among equal magnitudes those in front stay.
    """
    size = np.abs(weights).ravel()
    mask = size > 0
    drop = int(sparsity * size.size)
    mask[np.argsort(-size, kind="stable")[size.size - drop :]] = False
    return mask.reshape(weights.shape)
