# SPDX-License-Identifier: MIT
"""A chunk in which the limits on the whole variable hold too: finer steps where the plan's own do not reach them."""

from __future__ import annotations

import math

import numpy as np

from hbae.arrays import Array
from hbae.bound import ChunkErrors, Target
from hbae.bound.targets import MARGIN
from hbae.errors import BoundViolationError
from hbae.exact import Backend
from hbae.pipeline.encode import BlockEncoder, Coded
from hbae.pipeline.plan import GroupPlan
from hbae.pipeline.regions import encode_by_region

_TRIES = 3
_FINEST = 255


def encode_held(
    raw: Array,
    invalid: Array,
    plan: GroupPlan,
    targets: list[Target],
    *,
    model: BlockEncoder | None,
    backend: Backend,
) -> bytes:
    """Encode (V, *grid) values so that every limit holds in this chunk; without loss where finer steps do not help.

    Raises
    ------
    BoundViolationError
        When a limit does not hold all the same: a bug in hbae.
    """

    def encode(fine: int, lossless: bool) -> Coded:
        return encode_by_region(raw, invalid, plan, targets, model=model, backend=backend, lossless=lossless, fine=fine)

    fine, coded = 0, encode(0, False)
    steps = plan.domain == "linear" and bool(plan.unit.any() or plan.point_unit.any())
    for _ in range(_TRIES if steps else 0):
        ratio = worst_ratio(coded.errors, targets)
        if ratio <= 1 or fine == _FINEST:
            break
        fine = finer(fine, ratio)
        coded = encode(fine, False)
    if not worst_ratio(coded.errors, targets) <= 1:
        coded = encode(0, True)
    if not (coded.errors.hold and worst_ratio(coded.errors, targets) <= 1):
        raise BoundViolationError(f"a chunk of {plan.paths[0]} does not hold its bound")
    return coded.payload


def worst_ratio(errors: ChunkErrors, targets: list[Target]) -> float:
    """RMSE of the chunk over its limit, the largest of all variables; at most 1 (with the inner margin) holds."""
    ratios = [
        math.sqrt(e.sse / (t.rmse * t.rmse * e.count) / MARGIN)
        for e, t in zip(errors.variables, targets, strict=True)
        if math.isfinite(t.rmse) and e.count and e.sse
    ]
    return max(ratios, default=0.0)


def finer(fine: int, ratio: float) -> int:
    """Give the fineness at which an RMSE that is ``ratio`` times its limit should meet it."""
    if not math.isfinite(ratio):
        return _FINEST
    left = (256 - fine) / 256 * (0.98 / ratio) ** 1.2
    return int(np.clip(math.ceil(256 * (1 - left)), fine + 1, _FINEST))
