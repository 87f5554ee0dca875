# SPDX-License-Identifier: MIT
"""Plans that change after they were chosen: finer steps, and a block stage with limits of its own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hbae.arrays import Array
from hbae.blocks import fill_invalid, split_tiles
from hbae.bound import Target, carried, fit_transform
from hbae.exact import MAX_DCT, Transform
from hbae.pipeline.original import physical
from hbae.pipeline.plan import GroupPlan
from hbae.pipeline.sampling import Sample

# What a limit of a block leaves of a squared error, in bins of its basis.
_ROOM = 0.25


def fit_blocks(left: list[Array], draft: GroupPlan, unit: Array) -> Transform:
    """Fit the block basis on the sample's residual, separable, shared by the variables."""
    column = (-1, *(1,) * len(draft.geometry.shape))
    tiles = np.concatenate([split_tiles(x / unit.reshape(column), draft.geometry.block) for x in left], axis=1)
    kinds = ("none", *("klt" if b <= 16 else "dct" if b <= MAX_DCT else "none" for b in draft.geometry.block))
    return fit_transform(tiles, kinds, _ROOM)


def finer_plan(plan: GroupPlan, factor: Array) -> GroupPlan:
    """Give the plan with steps times ``factor``; steps of the log domain stay integers of at least 1.

    Bases over the variables are carried along, so that dependences between variables stay what they are.
    """
    point = plan.point_unit * factor
    if plan.domain == "log":
        point = np.maximum(1.0, np.floor(point))
    plan = replace(plan, unit=plan.unit * factor, point_unit=point)
    if not plan.ties_variables or (factor == factor[0]).all():
        return plan
    return replace(plan, mix=_carried(plan.mix, factor), transform=_carried(plan.transform, factor))


def _carried(basis: Transform | None, factor: Array) -> Transform | None:
    return basis if basis is None else Transform((carried(basis.axes[0], factor), *basis.axes[1:]))


def with_block_limits(plan: GroupPlan, targets: list[Target], sample: Sample) -> tuple[GroupPlan, list[Target]]:
    """Give the plan with a block stage, and targets whose global RMSE is asked of every block (which implies it)."""
    tight = [replace(t, block_rmse=min(t.block_rmse, t.rmse)) for t in targets]
    if plan.domain == "log":
        return plan, tight
    points = plan.geometry.points
    unit = np.array([2 * t.tolerance(points) * 0.98 for t in tight])
    if plan.gae is None:
        left = [
            fill_invalid(physical(raw, plan), ~bad) - plan.offset.reshape(-1, *(1,) * (raw.ndim - 1))
            for raw, bad in sample.boxes
        ]
        plan = replace(plan, gae=fit_blocks(left, plan, unit))
    return replace(plan, gae_unit=unit), tight
