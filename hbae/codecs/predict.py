# SPDX-License-Identifier: MIT
"""Integer differences along axes (Lorenzo prediction when all axes are taken) and their exact inverse.

NumPy is the reference; where ``_sums.c`` is built, it adds up faster, above all along axes far apart in memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from hbae.arrays import Array

try:
    from hbae.codecs import _sums
except ImportError:
    _sums = None  # type: ignore[assignment]


def difference(q: Array, axes: Iterable[int]) -> Array:
    """Replace values by differences to the one before, along each given axis in turn."""
    for a in axes:
        q = np.diff(q, axis=a, prepend=np.zeros_like(np.take(q, [0], axis=a)))
    return q


def integrate(d: Array, axes: Iterable[int]) -> Array:
    """Undo :func:`difference` (int64, wraps modulo 2**64 as the difference does)."""
    out = np.array(d, np.int64, order="C")
    for a in axes:
        add_along(out, a)
    return out


def add_along(a: Array, axis: int, start: int = 0) -> None:
    """Replace integers by their running sums along an axis from ``start`` on, in place, modulo their size.

    ``a``: C-contiguous, in this machine's byte order.

    Raises
    ------
    ValueError
        For other arrays.
    """
    if a.dtype.kind not in "iu" or not a.dtype.isnative or not a.flags.c_contiguous or not 0 <= axis < a.ndim:
        raise ValueError("running sums are of contiguous integers along one of their axes")
    if _sums is not None and a.size:
        boxes, n, row = math.prod(a.shape[:axis]), a.shape[axis], math.prod(a.shape[axis + 1 :])
        _sums.add_along(a, a.itemsize, boxes, n, row, min(start, n))
        return
    ends = a[(slice(None),) * axis + (slice(start, None),)]
    np.add.accumulate(ends, axis=axis, out=ends)
