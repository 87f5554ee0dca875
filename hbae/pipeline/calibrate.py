# SPDX-License-Identifier: MIT
"""Chooses stages and steps for a group by the real bytes of sample boxes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from hbae.arrays import Array
from hbae.bound import Target
from hbae.errors import FormatError
from hbae.exact import Backend, get_backend
from hbae.pipeline.crew import Mapper
from hbae.pipeline.encode import encode_chunk, quiet, trial_errors
from hbae.pipeline.families import (
    Candidate,
    Family,
    ModelOption,
    Setting,
    Task,
    family_tasks,
    make_family,
    make_setting,
    make_tall,
)
from hbae.pipeline.plan import GroupPlan, encode_plan
from hbae.pipeline.sampling import Sample
from hbae.pipeline.steps import AIM

_T = TypeVar("_T")
_FIRST_POINTS = 1 << 19
_FINALISTS = 3
# A plan that takes this many times the bytes on a part will not win on the whole.
_FAR = 1.6
AIM_SAMPLED = 0.98
# Samples smaller than this are weighed sooner than a process starts.
_ALONE_POINTS = 1 << 20


@dataclass(frozen=True)
class Choice:
    """A plan, its estimated bytes for the group, whether it is the lossless one, and its name for the report."""

    plan: GroupPlan
    estimate: float
    lossless: bool
    name: str


@dataclass(frozen=True)
class _Trials:
    """What goes to the workers: the settings to make families in, and where plans are weighed."""

    settings: list[Setting]
    targets: list[Target]
    part: Sample
    backend: str


def choose_plan(
    draft: GroupPlan,
    targets: list[Target],
    sample: Sample,
    methods: tuple[str, ...],
    *,
    models: list[ModelOption],
    backend: str,
    workers: Mapper,
) -> Choice:
    """Give the plan with the fewest bytes among the methods allowed; ties go to the simpler one.

    ``draft`` holds all that is fixed (names, geometry, ranges). A first round weighs one plan of each family on a
    small part of the sample, a second one the variants of the best three families, a third one the finalists on a
    whole chunk.
    """
    own = get_backend(backend)
    bases: list[ModelOption | None] = [None] if "linear" in methods else []
    bases += models if "hbae" in methods and draft.domain == "linear" else []
    settings = [s for s in (make_setting(draft, targets, sample, m, own) for m in bases) if s is not None]
    tall = make_tall(draft, targets, sample, own) if "linear" in methods else None
    settings += [tall] if tall is not None else []
    few = _trial_part(sample, _FIRST_POINTS)
    trials = _Trials(settings, targets, few, backend)
    alone = sum(raw.size for raw, _ in sample.boxes) < _ALONE_POINTS
    first: list[tuple[Family, float]] = []
    for tasks in _rounds(settings, first):
        first += workers.map(_try_family, trials, tasks, alone=alone)
    if "lossless" in methods or not any(f.members for f, _ in first):
        plain = Candidate("lossless", draft, None, 0, True)
        first.insert(0, (Family([plain]), _weigh(plain, targets, few, own)))
    near = _nearest([(size, f) for f, size in first if f.members])
    # Plans of their own sample take nobody's place.
    kept = [f for f in near if not f[1].members[0].tall][:_FINALISTS] + [f for f in near if f[1].members[0].tall]
    bare = replace(trials, settings=[])
    # A small part says nothing about plans whose tiles are larger than that.
    variants = [(k, c) for k, (_, f) in enumerate(kept) for c in f.members[1:] if not c.tall]
    sizes = workers.map(_try_plan, bare, [(c,) for _, c in variants], alone=alone)
    best = [(size, f.members[0]) for size, f in kept]
    for (k, c), size in zip(variants, sizes, strict=True):
        best[k] = min(best[k], (size, c), key=_size)
    finalists = [c for _, c in _nearest(best)]
    whole = replace(bare, part=sample.chunk or sample)
    sizes = workers.map(_try_plan, whole, [(c,) for c in finalists], alone=alone)
    size, winner = min(zip(sizes, finalists, strict=True), key=_size)
    wide = sample.columns if winner.tall and sample.columns is not None else sample
    plan = _settle(winner, targets, wide, backend, workers, alone=alone)
    return Choice(plan, size, winner.lossless, winner.name)


def _rounds(settings: list[Setting], found: list[tuple[Family, float]]) -> Iterator[list[tuple[int, Task]]]:
    """Give the families to try: those without a model and one of each model, then a model's others if it may pay.

    ``found``: what the tasks so far gave, of those without a model first.
    """
    plain = [(i, task) for i, s in enumerate(settings) if s.model is None for task in family_tasks(s)]
    with_model = [(i, family_tasks(s)) for i, s in enumerate(settings) if s.model is not None]
    yield plain + [(i, tasks[-1]) for i, tasks in with_model]
    best = min((size for _, size in found[: len(plain)]), default=math.inf)
    probes = zip(with_model, found[len(plain) :], strict=True)
    yield [(i, task) for (i, tasks), (_, size) in probes if size < _FAR * best for task in tasks[:-1]]


def _try_family(trials: _Trials, setting: int, task: Task) -> tuple[Family, float]:
    """Make a family and weigh its first plan."""
    with quiet():
        family = make_family(trials.settings[setting], task)
        if not family.members:
            return family, math.inf
        s = trials.settings[setting]
        part = _trial_part(s.sample, _FIRST_POINTS) if s.tall else trials.part
        return family, _weigh(family.members[0], trials.targets, part, get_backend(trials.backend))


def _try_plan(trials: _Trials, candidate: Candidate) -> float:
    with quiet():
        return _weigh(candidate, trials.targets, trials.part, get_backend(trials.backend))


def _nearest(found: list[tuple[float, _T]]) -> list[tuple[float, _T]]:
    """Sort by size, smallest first, and leave out what is far behind."""
    found = sorted(found, key=_size)
    return [f for f in found if f[0] < _FAR * found[0][0]]


def _size(found: tuple[float, object]) -> float:
    return found[0]


def _settle(
    c: Candidate, targets: list[Target], sample: Sample, backend: str, workers: Mapper, *, alone: bool
) -> GroupPlan:
    """Set the winner's steps right for the global limits on the whole sample: apart first, then all alike.

    A basis over the variables ties their errors together: all alike then.
    """
    plan = c.plan
    if c.lossless or not _by_rmse(targets) or not (plan.unit.any() or plan.point_unit.any()):
        return plan
    # A sample may flatter: a little room is cheaper than coding many chunks again.
    aim = AIM if sample.ratio < 1.01 else AIM_SAMPLED
    mixes = plan.mix is not None or (plan.transform is not None and plan.transform.axes[0].matrix is not None)
    for alike in (True, True) if mixes else (False, False, True):
        try:
            found = list(workers.map(_try_errors, (replace(c, plan=plan), targets, backend), sample.boxes, alone=alone))
        except FormatError:
            # Integers too large for exact arithmetic: such chunks are kept without loss.
            return plan
        sse, count = (np.sum([f[k] for f in found], axis=0) for k in (0, 1))
        ratio = np.sqrt(sse / np.maximum(count, 1)) / np.array([t.rmse for t in targets])
        factor = aim / np.maximum(ratio, 1e-9)
        if alike:
            factor = np.full(len(ratio), float(factor.min()))
        plan = replace(plan, unit=plan.unit * factor, point_unit=plan.point_unit * factor)
    return plan


def _try_errors(job: tuple[Candidate, list[Target], str], raw: Array, bad: Array) -> tuple[list[float], list[int]]:
    """Squared errors and numbers of points of a box, by variable."""
    c, targets, backend = job
    with quiet():
        errors = trial_errors(raw, bad, c.plan, targets, model=c.model, backend=get_backend(backend))
    return [e.sse for e in errors.variables], [e.count for e in errors.variables]


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
