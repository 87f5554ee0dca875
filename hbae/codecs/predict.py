# SPDX-License-Identifier: MIT
"""Integer differences along axes (Lorenzo prediction when all axes are taken) and their exact inverse."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from hbae.arrays import Array


def difference(q: Array, axes: Iterable[int]) -> Array:
    """Replace values by differences to the one before, along each given axis in turn."""
    for a in axes:
        q = np.diff(q, axis=a, prepend=np.zeros_like(np.take(q, [0], axis=a)))
    return q


def integrate(d: Array, axes: Iterable[int]) -> Array:
    """Undo :func:`difference` (int64, wraps modulo 2**64 as the difference does)."""
    for a in axes:
        d = np.cumsum(d, axis=a, dtype=np.int64)
    return d
