# SPDX-License-Identifier: MIT
"""Chooses stages and steps for a group by the real bytes of sample boxes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

import numpy as np

from hbae.arrays import Array
from hbae.bound import ChunkErrors, Target
from hbae.codecs import estimate_lossless
from hbae.errors import FormatError
from hbae.exact import Backend, get_backend
from hbae.pipeline.chunk import encode_raw
from hbae.pipeline.crew import Mapper
from hbae.pipeline.encode import NEAR_LOSSLESS, encode_chunk, quiet, trial_chunk
from hbae.pipeline.families import Task, family_tasks, kind_of, make_family, without_basis
from hbae.pipeline.likeness import alike, is_like, is_plain
from hbae.pipeline.plan import GroupPlan, encode_plan
from hbae.pipeline.replan import finer_plan
from hbae.pipeline.sampling import Sample, few_boxes
from hbae.pipeline.setting import Candidate, Family, ModelOption, Setting, make_setting, make_settings
from hbae.pipeline.settle import Look, Settler, can_settle
from hbae.pipeline.steps import AIM

_T = TypeVar("_T")
FIRST_POINTS = 1 << 19
_FINALISTS = 3
# Groups of no more values than that are coded whole by the finalists.
_LAST_POINTS = 1 << 21
# Finalists are weighed again, so many times in all, whose errors are further than that from the tolerances.
_TURNS, _OFF = 3, 0.05
# Errors below that part of the tolerances tell nothing about steps.
_QUIET = 0.25
# A plan that takes this many times the bytes on a part will not win on the whole; nor one of the best one's kind that
# takes so many times its bytes, as more room serves both alike.
_FAR, _FAR_ALIKE = 1.6, 1.1
# Finalists that are further behind than that on a whole chunk are not weighed again.
_CLOSE = 1.1
# A small part flatters transforms: the best family of a kind stays on though others of one kind are
# ahead of it, if it takes no more than that many times the best one's bytes.
_NEAR = 1.2
# So many plans of a family may go on.
_VARIANTS = 2
# Related variables take half as long again to decode: for less than that part of the bytes they are left alone.
_RELATED = 1.01
# How far, in logarithms, steps that move one by one bring the bytes of a plan with a basis from those that its worst
# variable asks for to those that the mean does.
_BALANCED = 0.8
# Samples smaller than this are weighed sooner than a process starts.
ALONE_POINTS = 1 << 20


@dataclass(frozen=True)
class Choice:
    """A plan, its estimated bytes for the group, whether it is the lossless one, and its name for the report.

    ``latent_step``: of which its model's latents are multiples.
    """

    plan: GroupPlan
    estimate: float
    lossless: bool
    name: str
    latent_step: int = 1


class Weight(NamedTuple):
    """Bytes that a plan takes for the whole group by those of a sample, and what its errors are there.

    ``ratio``: errors over tolerances (V,) of plans for a global RMSE; None where a box is kept without loss. ``lossy``:
    whether none is.
    """

    size: float
    ratio: Array | None
    lossy: bool


@dataclass(frozen=True)
class _Trials:
    """What goes to the workers: settings to make families in, where plans are weighed, what they are to be like."""

    settings: list[Setting]
    targets: list[Target]
    part: Sample
    backend: str
    like: GroupPlan | None = None


def choose_plan(
    draft: GroupPlan,
    targets: list[Target],
    sample: Sample,
    methods: tuple[str, ...],
    *,
    models: list[ModelOption],
    backend: str,
    workers: Mapper,
    fast: bool = False,
    kinds: frozenset[str] | None = None,
    like: GroupPlan | None = None,
    looks_follow: bool = True,
) -> Choice:
    """Give the plan with the fewest bytes among the methods allowed; ties go to the simpler one.

    ``draft`` holds all that is fixed (names, geometry, ranges). A first round weighs one plan of each family on a
    small part of the sample (predictors behind a basis only where those without one were not far behind), a second one
    the variants of the best families, a third one the finalists on a whole chunk. ``fast``: variables do not tell of
    each other, which takes time to decode. ``kinds``: of plans to weigh, if not all. ``like``: a
    plan of another file, whose family alone is tried beside the plainest ones. ``looks_follow``: chunks are looked at
    before they are coded, and steps set right then.
    """
    own = get_backend(backend)
    settings = make_settings(draft, targets, sample, own) if "linear" in methods else []
    if "hbae" in methods and draft.domain == "linear":
        based = [make_setting(draft, targets, sample, m, own) for m in models]
        settings += [s for s in based if s is not None]
    settings = [replace(s, fast=fast) for s in settings]
    trials = _Trials(settings, targets, trial_part(sample, FIRST_POINTS), backend, like)
    alone = points_of(sample) < ALONE_POINTS
    finalists = _finalists_of(draft, trials, methods, kinds, workers, alone=alone)
    size, winner = _winner(finalists, trials, _last_part(trials.part, sample), workers, alone=alone)
    wide = sample.columns if winner.tall and sample.columns is not None else sample
    plan = _set_right(winner, targets, wide, backend=backend, workers=workers, looks_follow=looks_follow)
    return Choice(plan, size, winner.lossless, winner.name, winner.latent_step)


def _set_right(
    winner: Candidate,
    targets: list[Target],
    sample: Sample,
    *,
    backend: str,
    workers: Mapper,
    looks_follow: bool = True,
) -> GroupPlan:
    """Give a plan with the steps that its errors on the sample ask for; those that follow their limits stay.

    ``looks_follow``: as for :func:`choose_plan`; a sample that is the whole group is left to them.
    """
    plan = winner.plan
    if (sample.whole and looks_follow) or not can_settle(plan, targets, lossless=winner.lossless):
        return plan
    alone = points_of(sample) < ALONE_POINTS
    settler = (Settler.on_sample if looks_follow else Settler.for_stream)(plan, targets)
    while settler.more:
        look = Look(settler.plan, targets, winner.model, backend)
        settler.step(workers.map(Look.errors, look, sample.boxes, alone=alone))
    return settler.plan


def _finalists_of(
    draft: GroupPlan,
    trials: _Trials,
    methods: tuple[str, ...],
    kinds: frozenset[str] | None,
    workers: Mapper,
    *,
    alone: bool,
) -> dict[Candidate, Weight]:
    """Weigh a plan of each family on the part, then variants of the best; give those that may win, with weights."""
    first: list[tuple[Family, Weight]] = []
    for tasks in _rounds(trials.settings, first, kinds, trials.like):
        first += workers.map(_try_family, trials, tasks, alone=alone)
    able = [(w.size, f) for f, w in first if f.members]
    known = {f.members[0]: w for f, w in first if f.members}
    if not able or ("lossless" in methods and not all(w.lossy for _, w in first)):
        plain = Candidate("lossless", draft, None, 0, True)
        known[plain] = weigh(plain, trials.targets, trials.part, get_backend(trials.backend))
        able.insert(0, (known[plain].size, Family([plain])))
    kept = _kept(able)
    # A small part says nothing about plans whose tiles are larger than that.
    variants = [(k, c) for k, (_, f) in enumerate(kept) for c in f.members[1:] if not c.tall]
    weights = workers.map(_try_plan, replace(trials, settings=[]), [(c,) for _, c in variants], alone=alone)
    weighed = [[(size, f.members[0])] for size, f in kept]
    for (k, c), w in zip(variants, weights, strict=True):
        known[c] = w
        weighed[k].append((w.size, c))
    # A small part says little about which of a family's plans is the best, too.
    best = _may_win([found for family in weighed for found in sorted(family, key=_size)[:_VARIANTS]])
    return {c: known[c] for c in best}


def _winner(
    finalists: dict[Candidate, Weight], trials: _Trials, last: Sample, workers: Mapper, *, alone: bool
) -> tuple[float, Candidate]:
    """Let the finalists meet on the ``last`` part, steps set right there; give the best one and its bytes."""
    whole = replace(trials, settings=[], part=last)
    # Plans with a sample of their own were weighed there.
    known = {c: w for c, w in finalists.items() if not c.tall} if _same_boxes(last, trials.part) else {}
    new = [c for c in finalists if c not in known]
    known |= zip(new, workers.map(_try_plan, whole, [(c,) for c in new], alone=alone), strict=True)
    least = min(w.size for w in known.values())
    close = [(c, known[c]) for c in finalists if known[c].size <= _CLOSE * least]
    # Where one is ahead of all others its steps are set right later.
    ahead = [(w.size, c) for c, w in close]
    tried = workers.map(_try_finalist, whole, close, alone=alone) if len(close) > 1 else ahead
    return min(tried, key=_size)


def _last_part(few: Sample, sample: Sample) -> Sample:
    """Give where the finalists meet: all chunks of a small group, else a whole one or, if that is more, the part."""
    chunk = sample.chunk or sample
    in_chunks = max(raw.size for raw, _ in sample.boxes) >= chunk.boxes[0][0].size
    if in_chunks and sample.ratio == 1 and points_of(sample) <= _LAST_POINTS:
        return sample
    return max(few, chunk, key=points_of)


def _same_boxes(a: Sample, b: Sample) -> bool:
    """Tell whether samples are of the same boxes and stand for the same."""
    boxes = zip(a.boxes, b.boxes, strict=False)
    return a.ratio == b.ratio and len(a.boxes) == len(b.boxes) and all(x is y for (x, _), (y, _) in boxes)


def points_of(sample: Sample) -> int:
    """Values of all variables."""
    return sum(raw.size for raw, _ in sample.boxes)


def _kept(able: list[tuple[float, Family]]) -> list[tuple[float, Family]]:
    """Give the families that go on: the best three, the best of each kind that is near, those with their own sample."""
    near = _nearest(able)
    # Plans of their own sample take nobody's place.
    short, tall = ([f for f in near if f[1].members[0].tall is own] for own in (False, True))
    kept, late = short[:_FINALISTS], short[_FINALISTS:]
    kinds = {f.members[0].kind for _, f in kept}
    for size, f in late:
        if f.members[0].kind not in kinds and size < _NEAR * near[0][0]:
            kinds.add(f.members[0].kind)
            kept.append((size, f))
    return kept + tall


def _may_win(best: list[tuple[float, Candidate]]) -> list[Candidate]:
    """Give the plans that may win on a whole chunk."""
    leads: dict[str, float] = {}
    near = _nearest(best)
    for size, c in near:
        leads.setdefault(c.kind, size)
    return [c for size, c in near if size <= _FAR_ALIKE * leads[c.kind]]


def _rounds(
    settings: list[Setting],
    found: list[tuple[Family, Weight]],
    kinds: frozenset[str] | None,
    like: GroupPlan | None,
) -> Iterator[list[tuple[int, Task]]]:
    """Give the families to try: those without a model, then one of each model, then a model's others if it may pay.

    Predictors behind a basis over the variables come after those without one, and only those that were not far behind.
    ``found``: what the tasks so far gave, of those without a model first. ``kinds``: of plans without one, if not all.
    ``like``: what these are to be like.
    """
    plain = [(i, task) for i, s in enumerate(settings) if s.model is None for task in family_tasks(s)]
    plain = [(i, task) for i, task in plain if kinds is None or kind_of(task) in kinds]
    tasks_of = {task for _, task in plain}
    plain = [job for job in plain if like is None or is_plain(job[1], tasks_of) or is_like(job[1], like)]
    tasks_of = {task for _, task in plain}
    late = [job for job in plain if without_basis(job[1]) in tasks_of]
    early = [job for job in plain if job not in late]
    yield early
    sizes = {task: w.size for (_, task), (_, w) in zip(early, found, strict=True)}
    least = min((sizes[without_basis(task)] for _, task in late), default=math.inf)
    late = [job for job in late if sizes[without_basis(job[1])] <= _FAR * least]
    with_model = [(i, family_tasks(s)) for i, s in enumerate(settings) if s.model is not None]
    yield late + [(i, tasks[-1]) for i, tasks in with_model]
    of_plain = len(early) + len(late)
    best = min((w.size for _, w in found[:of_plain]), default=math.inf)
    probes = [(w.size, i, tasks) for (i, tasks), (_, w) in zip(with_model, found[of_plain:], strict=True)]
    # Of a model's latents the step that is best there.
    size, i, tasks = min(probes, default=(math.inf, 0, []))
    yield [(i, task) for task in tasks[:-1] if size < _FAR * best]


def _try_family(trials: _Trials, setting: int, task: Task) -> tuple[Family, Weight]:
    """Make a family and weigh its first plan."""
    with quiet():
        family = make_family(trials.settings[setting], task)
        if trials.like is not None and is_like(task, trials.like):
            family = alike(family, trials.like)
        if not family.members:
            return family, Weight(math.inf, None, True)
        s = trials.settings[setting]
        part = trial_part(s.sample, FIRST_POINTS) if s.tall else trials.part
        return family, weigh(family.members[0], trials.targets, part, get_backend(trials.backend))


def _try_plan(trials: _Trials, candidate: Candidate) -> Weight:
    with quiet():
        return weigh(candidate, trials.targets, trials.part, get_backend(trials.backend))


def _try_finalist(trials: _Trials, candidate: Candidate, weight: Weight) -> tuple[float, Candidate]:
    """Move the steps of a plan of that weight until its errors are near the tolerances there; give its bytes.

    Steps that a basis ties come back as they were, unless that is the whole group: one by one they are set by more than
    one chunk.
    """
    given, tied = candidate, candidate.plan.ties_variables
    settler = Settler.on_sample(candidate.plan, trials.targets)
    with quiet():
        for turn in range(_TURNS):
            if turn:
                weight = weigh(candidate, trials.targets, trials.part, get_backend(trials.backend))
            ratio = weight.ratio
            # A chunk where hardly anything happens says nothing about steps.
            if ratio is None or not float(ratio.max()) > _QUIET:
                break
            before = candidate.plan.steps
            if tied:
                settler.follow(ratio)
                plan = settler.plan
            else:
                factor = np.maximum(AIM / np.where(ratio > _QUIET, ratio, ratio.max()), 1 / 4)
                plan = finer_plan(candidate.plan, factor)
            candidate = replace(candidate, plan=plan)
            if np.abs(plan.steps / np.where(before > 0, before, 1) - 1).mean() < _OFF:
                break
    return weight.size, given if tied and not trials.part.whole else candidate


def _nearest(found: list[tuple[float, _T]]) -> list[tuple[float, _T]]:
    """Sort by size, smallest first, and leave out what is far behind."""
    found = sorted(found, key=_size)
    return [f for f in found if f[0] < _FAR * found[0][0]]


def _size(found: tuple[float, object]) -> float:
    return found[0]


def weigh(c: Candidate, targets: list[Target], sample: Sample, backend: Backend) -> Weight:
    """Estimate bytes for the whole group at the tolerances from real bytes of the sample's boxes.

    Plans for a global RMSE are compared at equal error.
    """
    plain = size = 0
    sse, count = np.zeros(len(targets)), np.zeros(len(targets))
    for raw, bad in sample.boxes:
        nbytes, errors = _coded(c, raw, bad, targets, backend)
        if errors is None:
            # No error, and no fewer bytes with coarser steps.
            plain += nbytes
            continue
        size += nbytes
        sse += [e.sse for e in errors.variables]
        count += [e.count for e in errors.variables]
    factor, ratio = 1.0, None
    if size and _by_rmse(targets) and (c.plan.unit.any() or c.plan.point_unit.any()):
        ratio = np.sqrt(sse / np.maximum(count, 1)) / np.array([t.rmse for t in targets])
        factor = _at_the_aim(ratio, 8 * size / max(float(count.sum()), 1.0), tied=c.plan.ties_variables)
    if c.plan.related:
        factor *= _RELATED
    estimate = c.extra + len(encode_plan(c.plan)) + (plain + size * factor) * sample.ratio
    return Weight(estimate, None if plain else ratio, not plain)


def _at_the_aim(ratio: Array, bits: float, *, tied: bool) -> float:
    """Factor of bytes when errors go from ``ratio`` to the aim, at so many bits a value.

    A bit halves the error where there are several; with few, bytes change about as the 0.8th power of it. ``tied``: a
    basis makes the errors of variables depend on each other, so that not all of them come near the aim.
    """
    power = min(0.8, 1 / (math.log(2) * max(bits, 1e-9)))
    off = np.maximum(ratio / AIM, 0.1)
    mean = float((off**power).mean())
    return mean**_BALANCED * float(off.max() ** power) ** (1 - _BALANCED) if tied else mean


def _coded(
    c: Candidate, raw: Array, bad: Array, targets: list[Target], backend: Backend
) -> tuple[int, ChunkErrors | None]:
    """Bytes of a box, and its errors if it is not kept without loss."""
    # Where nothing needs repairs, what is decoded need not be known byte by byte; blocks at masks often need some.
    likely = not any(t.regions or (t.by_block and bad.any()) for t in targets)
    if likely and not c.lossless and c.plan.domain != "log" and not bad.all():
        try:
            size, errors = trial_chunk(raw, bad, c.plan, targets, model=c.model, backend=backend)
        except FormatError:
            return len(encode_raw(raw, c.plan)), None
        if _by_rmse(targets) or errors.hold:
            plain = len(encode_raw(raw, c.plan)) if estimate_lossless(raw) < NEAR_LOSSLESS * size else math.inf
            return (size, errors) if size < plain else (int(plain), None)
    coded = encode_chunk(raw, bad, c.plan, targets, model=c.model, backend=backend, lossless=c.lossless)
    return len(coded.payload), None if coded.lossless else coded.errors


def _by_rmse(targets: list[Target]) -> bool:
    return not any(t.by_point or t.by_block for t in targets)


def trial_part(sample: Sample, points: int) -> Sample:
    """Use no more boxes than needed to weigh plans."""
    kept = Sample(few_boxes(sample.boxes, points), 1.0)
    return replace(kept, ratio=sample.ratio * points_of(sample) / max(points_of(kept), 1))
