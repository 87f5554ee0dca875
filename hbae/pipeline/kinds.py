# SPDX-License-Identifier: MIT
"""Which variables of one grid are better coded apart, as different kinds of plans suit them."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace

from hbae.bound import Target
from hbae.codecs import estimate_lossless
from hbae.exact import get_backend
from hbae.pipeline.calibrate import ALONE_POINTS, FIRST_POINTS, Choice, points_of, trial_part, weigh
from hbae.pipeline.crew import Mapper
from hbae.pipeline.encode import quiet
from hbae.pipeline.families import Task, family_tasks, kind_of, make_family
from hbae.pipeline.plan import GroupPlan
from hbae.pipeline.sampling import Sample, offsets_of
from hbae.pipeline.setting import MANY, Candidate, Setting, make_setting

# Variables leave their group for that part of its bytes, and a kind that suits more of them serves one whose own is no
# better than that.
WORTH_PARTING = 0.98
# Estimates without loss that are so many times the best kind's bytes need not be looked into.
_HOPELESS = 2.0
# Kinds that take no more than so many times the best one's bytes for a part's variables are looked into for them.
_NEAR = 1.1


@dataclass(frozen=True)
class Part:
    """Numbers of variables to be coded apart, and the kinds of plans that may suit them."""

    variables: list[int]
    kinds: frozenset[str]


def part_by_kind(
    drafts: list[GroupPlan],
    targets: list[Target],
    sample: Sample,
    choice: Choice,
    *,
    backend: str,
    workers: Mapper,
    fast: bool = False,
) -> list[Part]:
    """Part a group's variables by the kind of plan that suits each best; nothing where none gains.

    ``drafts``: of each variable alone, on the group's geometry. ``choice``: the plan for all. A small part of the
    sample is coded, each variable by one plan of each family.
    """
    if len(drafts) == 1 or choice.plan.domain == "log":
        return []
    few = trial_part(sample, FIRST_POINTS)
    singles = [_only(few, v) for v in range(len(drafts))]
    own = get_backend(backend)
    plan = Candidate(choice.name, choice.plan, None, 0, choice.lossless)
    with quiet():
        whole = weigh(plan, targets, few, own)[0]
    # What a basis ties together has much in common, unless a variable needs next to nothing without loss.
    if choice.plan.ties_variables and len(drafts) >= MANY and not min(map(_plain_size, singles)) * len(drafts) < whole:
        return []
    drafts = [replace(d, offset=offsets_of(s, d)[0]) for d, s in zip(drafts, singles, strict=True)]
    settings = [make_setting(d, [t], s, None, own) for d, t, s in zip(drafts, targets, singles, strict=True)]
    if any(s is None for s in settings):
        return []
    able = [replace(s, fast=fast, brief=True) for s in settings if s is not None]
    jobs = [(v, task) for v, s in enumerate(able) for task in family_tasks(s)]
    alone = points_of(few) < ALONE_POINTS
    sizes: list[dict[str, float]] = [{} for _ in drafts]
    for (v, task), size in zip(jobs, workers.map(_try_alone, (able, backend), jobs, alone=alone), strict=True):
        kind = kind_of(task)
        sizes[v][kind] = min(size, sizes[v].get(kind, math.inf))
    sizes = [_with_lossless(kinds, s) for kinds, s in zip(sizes, able, strict=True)]
    kinds = _assigned(sizes)
    apart = sum(s[k] for s, k in zip(sizes, kinds, strict=True))
    if len(set(kinds)) == 1 or not apart < whole:
        return []
    parts = [[v for v, k in enumerate(kinds) if k == kind] for kind in dict.fromkeys(kinds)]
    return [Part(p, _near_kinds([sizes[v] for v in p])) for p in parts]


def _only(sample: Sample, v: int) -> Sample:
    return Sample([(raw[v : v + 1], bad[v : v + 1]) for raw, bad in sample.boxes], sample.ratio)


def _try_alone(shared: tuple[list[Setting], str], v: int, task: Task) -> float:
    """Bytes of a variable by the first plan of a family."""
    settings, backend = shared
    s = settings[v]
    with quiet():
        family = make_family(s, task)
        if not family.members:
            return math.inf
        return weigh(family.members[0], s.targets, s.sample, get_backend(backend))[0]


def _plain_size(sample: Sample) -> float:
    """Estimate a group's bytes without loss."""
    return sum(estimate_lossless(raw) for raw, _ in sample.boxes) * sample.ratio


def _with_lossless(sizes: dict[str, float], s: Setting) -> dict[str, float]:
    """Add the bytes without loss, in place of kinds that are no better: their chunks are kept without loss, too."""
    if _plain_size(s.sample) > _HOPELESS * min(sizes.values()):
        return sizes
    with quiet():
        plain = weigh(Candidate("lossless", s.draft, None, 0, True), s.targets, s.sample, get_backend("numpy"))[0]
    return {"lossless": plain, **{k: size for k, size in sizes.items() if size < plain}}


def _assigned(sizes: list[dict[str, float]]) -> list[str]:
    """Give each variable its kind: the one that suits most variables where it is about as good as its own."""
    best = [min(s, key=lambda k: s[k]) for s in sizes]
    common = [k for k, _ in Counter(best).most_common()]
    return [
        next(k for k in (*common, b) if s.get(k, math.inf) * WORTH_PARTING <= s[b])
        for s, b in zip(sizes, best, strict=True)
    ]


def _near_kinds(sizes: list[dict[str, float]]) -> frozenset[str]:
    """Kinds of plans that take about the fewest bytes for some variables together."""
    total = {kind: sum(s.get(kind, math.inf) for s in sizes) for kind in set().union(*sizes)}
    least = min(total.values())
    return frozenset(kind for kind, size in total.items() if size <= _NEAR * least)
