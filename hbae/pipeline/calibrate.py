# SPDX-License-Identifier: MIT
"""Chooses stages and steps for a group by the real bytes of sample boxes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from hbae.arrays import Array
from hbae.bound import Target
from hbae.errors import FormatError
from hbae.exact import Backend
from hbae.pipeline.encode import encode_chunk, trial_errors
from hbae.pipeline.families import Candidate, Family, ModelOption, families_of
from hbae.pipeline.plan import GroupPlan, encode_plan
from hbae.pipeline.sampling import Sample
from hbae.pipeline.steps import AIM

_FIRST_POINTS = 1 << 19
_FINALISTS = 3
# A plan that takes this many times the bytes on a part will not win on the whole.
_FAR = 1.6
AIM_SAMPLED = 0.98


@dataclass(frozen=True)
class Choice:
    """A plan, its estimated bytes for the group, whether it is the lossless one, and its name for the report."""

    plan: GroupPlan
    estimate: float
    lossless: bool
    name: str


def choose_plan(
    draft: GroupPlan,
    targets: list[Target],
    sample: Sample,
    methods: tuple[str, ...],
    *,
    models: list[ModelOption],
    backend: Backend,
) -> Choice:
    """Give the plan with the fewest bytes among the methods allowed; ties go to the simpler one.

    ``draft`` holds all that is fixed (names, geometry, ranges). A first round weighs one plan of each family on a
    small part of the sample, a second one the variants of the best three families, a third one the finalists on a
    whole chunk.
    """
    families: list[Family] = []
    if "lossless" in methods:
        families.append(Family([Candidate("lossless", draft, None, 0, True)]))
    if "linear" in methods:
        families += list(families_of(draft, targets, sample, None, backend))
    if "hbae" in methods and draft.domain == "linear":
        for option in models:
            families += list(families_of(draft, targets, sample, option, backend))
    if not families:
        families.append(Family([Candidate("lossless", draft, None, 0, True)]))
    few = _trial_part(sample, _FIRST_POINTS)
    first = _ranked([f.members[0] for f in families], targets, few, backend)
    kept = [f for f in families if any(c is f.members[0] for _, c in first[:_FINALISTS])]
    others = _ranked([c for f in kept for c in f.members[1:]], targets, few, backend)
    best = [min((w for w in (*first, *others) if any(w[1] is c for c in f.members)), key=_size) for f in kept]
    finalists = [c for size, c in best if size < _FAR * min(map(_size, best))]
    size, winner = _ranked(finalists, targets, sample.chunk or sample, backend)[0]
    plan = _settle(winner, targets, sample, backend)
    return Choice(plan, size, winner.lossless, winner.name)


def _ranked(
    candidates: list[Candidate], targets: list[Target], sample: Sample, backend: Backend
) -> list[tuple[float, Candidate]]:
    """Weigh candidates: smallest first, those that are far behind left out."""
    sizes = [(_weigh(c, targets, sample, backend), c) for c in candidates]
    sizes.sort(key=_size)
    return [found for found in sizes if found[0] < _FAR * sizes[0][0]]


def _size(found: tuple[float, Candidate]) -> float:
    return found[0]


def _settle(c: Candidate, targets: list[Target], sample: Sample, backend: Backend) -> GroupPlan:
    """Set the winner's steps right for the global limits on the whole sample: apart first, then all alike."""
    plan = c.plan
    if c.lossless or not _by_rmse(targets) or not (plan.unit.any() or plan.point_unit.any()):
        return plan
    # A sample may flatter: a little room is cheaper than coding many chunks again.
    aim = AIM if sample.ratio < 1.01 else AIM_SAMPLED
    mixes = plan.mix is not None or (plan.transform is not None and plan.transform.axes[0].matrix is not None)
    for alike in (False, False, True):
        try:
            ratio = _ratios(replace(c, plan=plan), targets, sample, backend)
        except FormatError:
            # Integers too large for exact arithmetic: such chunks are kept without loss.
            return plan
        factor = aim / np.maximum(ratio, 1e-9)
        if alike or mixes:
            factor = np.full(len(ratio), float(factor.min()))
        plan = replace(plan, unit=plan.unit * factor, point_unit=plan.point_unit * factor)
    return plan


def _ratios(c: Candidate, targets: list[Target], sample: Sample, backend: Backend) -> Array:
    """RMSE over its limit, by variable, on the sample."""
    sse, count = np.zeros(len(targets)), np.zeros(len(targets))
    for raw, bad in sample.boxes:
        errors = trial_errors(raw, bad, c.plan, targets, model=c.model, backend=backend)
        sse += [e.sse for e in errors.variables]
        count += [e.count for e in errors.variables]
    out: Array = np.sqrt(sse / np.maximum(count, 1)) / np.array([t.rmse for t in targets])
    return out


def _weigh(c: Candidate, targets: list[Target], sample: Sample, backend: Backend) -> float:
    """Estimate bytes for the whole group at the tolerances from real bytes of the sample's boxes.

    Plans for a global RMSE are compared at equal error: bytes change about as the 0.8th power of the error.
    """
    plain, size, sse, count = 0, 0, np.zeros(len(targets)), np.zeros(len(targets))
    for raw, bad in sample.boxes:
        coded = encode_chunk(raw, bad, c.plan, targets, model=c.model, backend=backend, lossless=c.lossless)
        if coded.lossless:
            # No error, and no fewer bytes with coarser steps.
            plain += len(coded.payload)
            continue
        size += len(coded.payload)
        sse += [e.sse for e in coded.errors.variables]
        count += [e.count for e in coded.errors.variables]
    factor = 1.0
    if size and _by_rmse(targets) and (c.plan.unit.any() or c.plan.point_unit.any()):
        ratio = np.sqrt(sse / np.maximum(count, 1)) / np.array([t.rmse for t in targets])
        factor = max(0.1, float(ratio.max()) / AIM) ** 0.8
    return c.extra + len(encode_plan(c.plan)) + (plain + size * factor) * sample.ratio


def _by_rmse(targets: list[Target]) -> bool:
    return not any(t.by_point or t.by_block for t in targets)


def _trial_part(sample: Sample, points: int) -> Sample:
    """Use no more boxes than needed to weigh plans."""
    total = sum(raw.size for raw, _ in sample.boxes)
    kept: list[tuple[Array, Array]] = []
    seen = 0
    for raw, invalid in sample.boxes:
        if kept and seen + raw.size > points:
            break
        kept.append((raw, invalid))
        seen += raw.size
    return Sample(kept, sample.ratio * total / max(seen, 1))
