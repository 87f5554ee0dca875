# SPDX-License-Identifier: MIT
"""The true values of a chunk, here or on a device: what the encoder quantises and judges decoded values by."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hbae.arrays import Array
from hbae.blocks import fill_invalid
from hbae.bound import ROUNDING, ChunkErrors, Target, check_chunk
from hbae.exact import Backend
from hbae.exact.backend import TorchBackend
from hbae.pipeline.device import device_of, encodes, errors_there, judges, load, reads, tile_integers, wave_integers
from hbae.pipeline.parts import Parts, values_of
from hbae.pipeline.plan import GroupPlan, finer_steps
from hbae.pipeline.rounding import worth_of
from hbae.pipeline.waves import code_waves, waves_of


def physical(raw: Array, plan: GroupPlan) -> Array:
    """Give stored values (V, ...) as float64 in physical units (packed variables unpacked)."""
    x = raw.astype(np.float64)
    for v, p in enumerate(plan.packing):
        if p is not None:
            x[v] = x[v] * p[0] + p[1]
    return x


def rounding_of(targets: list[Target]) -> float:
    """What predicted points add before they are cut: 0.5 (the nearest step) where single points have limits."""
    return 0.5 if any(k.by_point for k in targets) else ROUNDING


@dataclass(frozen=True)
class Original:
    """True values on the host. ``x``: physical, with invalid points filled."""

    x: Array
    valid: Array
    plan: GroupPlan

    def judge(self, decoded: Array, targets: list[Target]) -> ChunkErrors:
        """Measure what a reader gets, of the stored type."""
        y = physical(decoded, self.plan)
        return check_chunk(self.x, y, self.valid, targets, self.plan.geometry.block, margin=True)


@dataclass(frozen=True)
class OriginalThere:
    """True values on a device. ``raw``: as stored, on the host."""

    there: TorchBackend
    x: Any
    raw: Array
    valid: Array
    plan: GroupPlan

    def quantised(self, targets: list[Target], parts: Parts) -> Parts:
        """Make the integers of a plan with one stage, and the bytes of one by wavelets."""
        q, plan, wavelet = self._integers(targets, parts.fine), self.plan, self.plan.wavelet
        if wavelet is None:
            return replace(parts, coefs=q)
        return replace(parts, coded_point=code_waves(q, wavelet, related=plan.related))

    def errors(self, targets: list[Target]) -> ChunkErrors:
        """Measure what a reader would get of such a plan, without a byte of it.

        The host sums, as where there is no device: steps are set by it, and plans must not depend on who works.
        """
        q, plan = self._integers(targets, 0), self.plan
        parts = Parts(coefs=q) if plan.wavelet is None else Parts(waves=waves_of(q))
        here = Original(fill_invalid(physical(self.raw, plan), self.valid), self.valid, plan)
        return here.judge(values_of(parts, plan, self.raw.shape[1:], self.there), targets)

    def _integers(self, targets: list[Target], fine: int) -> Array:
        """Quantised coefficients: of tiles, or of waves, held in float64."""
        worth = worth_of(self.plan.related, nearest=rounding_of(targets) == 0.5)
        plan, wavelet, transform = finer_steps(self.plan, fine), self.plan.wavelet, self.plan.transform
        with self.there.working():
            if transform is not None:
                return tile_integers(self.there, self.x, plan, transform)
            if wavelet is None:
                raise ValueError("a plan that is not worked on there")
            return wave_integers(self.there, self.x, plan, wavelet, worth)

    def judge(self, decoded: Array, targets: list[Target]) -> ChunkErrors:
        """Measure what a reader gets, of the stored type; limits of points and blocks are the host's business."""
        if not judges(targets):
            here = Original(physical(self.raw, self.plan), self.valid, self.plan)
            return here.judge(decoded, targets)
        stored, packing = _readable(decoded, self.plan)
        with self.there.working():
            valid = None if self.valid.all() else self.valid
            return errors_there(self.there, self.x, stored, valid, packing)


def original_of(raw: Array, valid: Array, plan: GroupPlan, backend: Backend) -> Original | OriginalThere:
    """Take a chunk (V, *grid) where its plan is worked on."""
    there = device_for(plan, backend)
    if there is None:
        return Original(fill_invalid(physical(raw, plan), valid), valid, plan)
    if valid.all():
        stored, packing = _readable(raw, plan)
    else:
        stored, packing = fill_invalid(physical(raw, plan), valid), ()
    with there.working():
        return OriginalThere(there, load(there, stored, packing), raw, valid, plan)


def device_for(plan: GroupPlan, backend: Backend) -> TorchBackend | None:
    """Give the device that a plan is worked on, or None for the host."""
    return device_of(backend) if encodes(plan) else None


def _readable(stored: Array, plan: GroupPlan) -> tuple[Array, tuple[tuple[float, float] | None, ...]]:
    """Give values of a type that devices read, and how they are packed: physical ones for types that they do not."""
    return (stored, plan.packing) if reads(stored.dtype) else (physical(stored, plan), ())
