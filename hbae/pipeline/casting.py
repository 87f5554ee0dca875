# SPDX-License-Identifier: MIT
"""The last step of decoded values: limits, packing, the stored type.

NumPy is the reference; where ``_casting.c`` is built, it does the same faster.
"""

from __future__ import annotations

import numpy as np

from hbae.arrays import Array
from hbae.pipeline.plan import GroupPlan

try:
    from hbae.pipeline import _casting
except ImportError:
    _casting = None  # type: ignore[assignment]


class Finish:
    """Turns steps of one stage into stored values: steps by variable, ``scale``, offset, then as :func:`cast_into`."""

    def __init__(self, plan: GroupPlan, scale: Array) -> None:
        self._plan = plan
        self._each = np.column_stack([scale, plan.offset, plan.low, plan.high]).astype(np.float64)
        self._single = plan.dtype == np.float32
        self._plain = (self._single or plan.dtype == np.float64) and not any(plan.packing)

    def __call__(self, t: Array, out: Array, here: slice) -> None:
        """Write values into some columns of ``out`` (V, columns); t (V, n), float64, may be written over."""
        if _casting is not None and self._plain and t.flags.c_contiguous:
            _casting.finish(t, self._each, out, here.start, self._single)
            return
        t *= self._each[:, :1]
        t += self._each[:, 1:2]
        cast_into(out[:, here], t, self._plan)


def cast_into(out: Array, x: Array, plan: GroupPlan) -> None:
    """Clip x (V, ...), in place, and store it in the output's type; zeros lose their sign, which clip leaves open."""
    np.clip(x, column(plan.low, x.ndim), column(plan.high, x.ndim), out=x)
    x += 0.0
    if any(plan.packing):
        info = np.iinfo(plan.dtype)
        for v, p in enumerate(plan.packing):
            if p is not None:
                x[v] = np.clip(np.rint((x[v] - p[1]) / p[0]), info.min, info.max)
    out[...] = x


def column(a: Array, rank: int) -> Array:
    """Give one number of each variable (V,) the axes of an array (V, ...)."""
    return a.reshape(-1, *(1,) * (rank - 1))
