# SPDX-License-Identifier: MIT
"""Values as ordered integers of their IEEE bits: the domain of pointwise relative bounds (no log, no exp).

``m`` is the magnitude's bit pattern seen as an integer, a piecewise-linear log2. A step of n units changes a normal
float of p fraction bits by at most n * 2**-p of its magnitude. Signs are a mask; zeros and non-finite values are
invalid points.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hbae.arrays import Array
from hbae.errors import FormatError
from hbae.pipeline.plan import GroupPlan

FRACTION_BITS = {2: 10, 4: 23, 8: 52}


def split_bits(x: Array) -> tuple[Array, Array]:
    """Give magnitudes as int64 and signs as bool, for native-order floats."""
    bits = x.view(f"u{x.dtype.itemsize}").astype(np.uint64)
    top = np.uint64(8 * x.dtype.itemsize - 1)
    return (bits & ((np.uint64(1) << top) - np.uint64(1))).astype(np.int64), (bits >> top).astype(bool)


def step_for(pw_rel: float, dtype: np.dtype[Any]) -> int:
    """Largest step whose half meets the bound: floor(2 * value * 2**p); under 2 means lossless."""
    return int(2.0 * pw_rel * 2.0 ** FRACTION_BITS[dtype.itemsize])


def join_bits(q: Array | None, signs: Array | None, plan: GroupPlan, shape: tuple[int, ...]) -> Array:
    """Give values from quantised magnitudes: ``m = clip(q * step, low, high)`` in int64, then bits with the sign.

    ``low`` and ``high`` of the plan are the smallest and largest magnitudes' bit patterns' float values here. Last, the
    values are clipped to the plan's limits.
    """
    if q is None or signs is None:
        raise FormatError("a log-domain chunk without its integers")
    native = plan.dtype.newbyteorder("=")
    column = (-1, *(1,) * (len(shape) - 1))
    low = split_bits(plan.low.astype(native))[0].reshape(column)
    high = split_bits(plan.high.astype(native))[0].reshape(column)
    if (plan.point_unit > 2.0**60).any():
        raise FormatError("a log-domain step is too large")
    step = plan.point_unit.astype(np.int64).reshape(column)
    if (step < 1).any():
        raise FormatError("a log-domain step below 1")
    m = np.clip(np.clip(q, 0, (1 << 62) // step) * step, low, high)
    top = np.uint64(8 * native.itemsize - 1)
    bits = m.astype(np.uint64) | (signs.astype(np.uint64) << top)
    out = bits.astype(f"u{native.itemsize}").view(native)
    if plan.limits is not None:
        least, most = (np.array(a).astype(native).reshape(column) for a in zip(*plan.limits, strict=True))
        # Comparisons, as clip leaves the sign of zeros open.
        np.copyto(out, least, where=out < least)
        np.copyto(out, most, where=out > most)
    return out.astype(plan.dtype)
