# SPDX-License-Identifier: MIT
"""Rounding by worth on a device: the choices of :mod:`hbae.pipeline.rounding`, for all variables at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hbae.arrays import Array
from hbae.exact.backend import TorchBackend
from hbae.exact.on_torch import active, lattice, tensor
from hbae.exact.wavelet import num_levels
from hbae.pipeline.rounding import CLASSES, FIRST, SYMBOLS, TOP, WORTH, class_of, lowest_of


def round_by_worth_there(
    there: TorchBackend, c: Any, groups: Sequence[tuple[int, ...]], worth: float = WORTH, *, pyramid: bool
) -> None:
    """Round coefficients c (V, ...), in steps, in place, float64.

    ``groups``: axes along which neighbours count. With ``pyramid`` they are a wavelet's, whose bands lie on lattices,
    and neighbours those of the band; else all is one band.
    """
    import torch

    if not worth:
        c.round_()
        return

    size = c.abs()
    first = size.add(FIRST).floor_()
    first = torch.where(first < TOP, first, float(TOP)).to(torch.int16)
    total = torch.zeros_like(first)
    for group in groups:
        total += _near(first, {a: num_levels(first.shape[a]) if pyramid else 0 for a in group})
    limits = there.load(_limits(2 * sum(len(g) for g in groups)))
    classes = torch.bucketize(total, limits, out_int32=True, right=True).mul_(SYMBOLS)
    seen = torch.bincount((classes + first.clamp_(max=SYMBOLS - 1)).reshape(-1), minlength=CLASSES * SYMBOLS)
    lowest = tensor(lowest_of(there.fetch(seen).reshape(CLASSES, SYMBOLS), worth).ravel(), c)
    near = size.round()
    # A comparison, as a number that is none must not become a place in a table.
    place = torch.where(near < SYMBOLS - 1, near, float(SYMBOLS - 1)).to(torch.int32).add_(classes)
    limit = torch.index_select(lowest, 0, place.reshape(-1)).reshape(c.shape)
    near.sub_(size.sub_(near).lt(limit).double())
    # No zeros with a sign.
    torch.copysign(near, c, out=c).add_(0.0)


def _near(first: Any, levels: dict[int, int]) -> Any:
    """Sum of the first roundings of the two neighbours along each axis, in the band of each point."""
    import torch

    total = torch.zeros_like(first)
    now, then = active(levels)
    for axis in levels:
        step = 2 if axis in now else 1
        rest = first.shape[axis] - step
        if rest > 0:
            total.narrow(axis, step, rest).add_(first.narrow(axis, 0, rest))
            total.narrow(axis, 0, rest).add_(first.narrow(axis, step, rest))
    if now:
        # The bands of this level hold every point but those of the low one, which has bands of its own.
        lattice(total, now).copy_(_near(lattice(first, now).contiguous(), then))
    return total


def _limits(neighbours: int) -> Array:
    """Give the smallest sum of each class but the first, int16."""
    table = class_of(neighbours)
    return np.searchsorted(table, np.arange(1, CLASSES), side="left").astype(np.int16)
