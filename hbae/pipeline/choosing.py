# SPDX-License-Identifier: MIT
"""Chooses the plans of groups from samples; variables that want other kinds of plans get groups of their own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from hbae.bound import Target
from hbae.errors import ModelMismatchError
from hbae.exact import get_backend
from hbae.pipeline.calibrate import Choice, choose_plan
from hbae.pipeline.crew import Mapper
from hbae.pipeline.encode import with_latent_step
from hbae.pipeline.groups import LossyVariable, make_drafts
from hbae.pipeline.inputs import Inputs
from hbae.pipeline.kinds import WORTH_PARTING, Part, part_by_kind
from hbae.pipeline.learn import GroupModel
from hbae.pipeline.likeness import Earlier, family_of
from hbae.pipeline.options import CompressOptions
from hbae.pipeline.pass2 import Group
from hbae.pipeline.plan import GroupPlan
from hbae.pipeline.regions import Regions
from hbae.pipeline.replan import finer_plan
from hbae.pipeline.sampling import Sample, take_sample
from hbae.pipeline.setting import ModelOption

# Of which a model's latents may be multiples: the correction that follows is chosen for each.
LATENT_STEPS = (1, 2, 4)
# Parts may have more chunks than their group up to that number: an archive holds only so many.
_MOST_CHUNKS = 1 << 14


@dataclass(frozen=True)
class Chosen:
    """What the root chose for a group."""

    draft: GroupPlan
    choice: Choice
    targets: list[Target]


class Chooser:
    """Chooses on the root, where the samples stay: ``samples`` by the names of a group's variables.

    ``earlier``: plans of another archive, whose kinds alone are tried for the same variables; ``notes``: for which.
    """

    def __init__(
        self,
        inputs: Inputs,
        regions: Regions,
        options: CompressOptions,
        model: GroupModel | None,
        earlier: Earlier | None = None,
    ) -> None:
        self.samples: dict[tuple[str, ...], Sample] = {}
        self.notes: list[str] = []
        self._inputs, self._regions, self._options, self._model = inputs, regions, options, model
        self._earlier = earlier
        # Without a model the processor chooses: the choice is then that of any machine.
        self._backend = options.device if model is not None else "numpy"

    def choose(self, draft: GroupPlan, members: list[LossyVariable], workers: Mapper) -> list[Chosen]:
        """Give the plan of a group, or plans of several groups where those together take fewer bytes.

        Raises
        ------
        ModelMismatchError
            When only some of the model's variables are in the group.
        """
        if self._earlier is not None and (found := self._as_earlier(self._earlier, draft, members, workers)):
            return found
        whole = self._choose(draft, members, workers)
        apart: list[Chosen] = []
        for part in self._parts(whole, draft, members, workers):
            own = [members[v] for v in part.variables]
            for d, kept in make_drafts(own, self._options, None):
                apart.append(self._choose(d, kept, workers, part.kinds))
        chunks = sum(c.draft.geometry.num_chunks for c in apart)
        fits = chunks <= max(whole.draft.geometry.num_chunks, _MOST_CHUNKS)
        if apart and fits and sum(c.choice.estimate for c in apart) < WORTH_PARTING * whole.choice.estimate:
            del self.samples[draft.paths]
            return apart
        for c in apart:
            del self.samples[c.draft.paths]
        return [whole]

    def _as_earlier(
        self, earlier: Earlier, draft: GroupPlan, members: list[LossyVariable], workers: Mapper
    ) -> list[Chosen]:
        """Choose among plans like the earlier ones of these variables, parted as they were.

        Nothing where it has none, or where a plainer one takes fewer bytes.
        """
        plans, found = earlier.parts_of(draft.paths), {m.variable.path: m for m in members}
        drafts = [(p, d) for p in plans for d in make_drafts([found[n] for n in p.paths], self._options, None)]
        fits = sum(d.geometry.num_chunks for _, (d, _) in drafts) <= max(draft.geometry.num_chunks, _MOST_CHUNKS)
        chosen = [self._choose(d, mine, workers, like=plan) for plan, (d, mine) in drafts if fits]
        pairs = zip(chosen, drafts, strict=False)
        how = "as there" if chosen else "chosen anew, as it has none for them"
        if not all(family_of(c.choice.plan) == family_of(p) for c, (p, _) in pairs):
            how = "chosen anew, as another kind takes fewer bytes"
            for c in chosen:
                del self.samples[c.draft.paths]
            chosen = []
        more = f" and {len(draft.paths) - 3} more" if len(draft.paths) > 3 else ""
        self.notes.append(f"like {earlier.name}: plan of {', '.join(draft.paths[:3])}{more}: {how}")
        return chosen

    def _choose(
        self,
        draft: GroupPlan,
        members: list[LossyVariable],
        workers: Mapper,
        kinds: frozenset[str] | None = None,
        like: GroupPlan | None = None,
    ) -> Chosen:
        model = self._model_of(draft)
        options = []
        if model is not None:
            draft = replace(draft, geometry=model.geometry)
            extra = len(model.section) if self._options.embed else 0
            options = [
                ModelOption(with_latent_step(model.encoder, k), model.decoder, model.sha, extra, k)
                for k in LATENT_STEPS
            ]
        methods = self._methods()
        if "hbae" in methods and (model is None or draft.domain == "log"):
            methods = tuple(dict.fromkeys("linear" if k == "hbae" else k for k in methods))
        validity = [m.stats.validity for m in members]
        sample = take_sample(draft, self._inputs, validity, self._options.seed, columns=True)
        pick = partial(
            choose_plan,
            models=options,
            backend=self._backend,
            workers=workers,
            fast=self._options.fast,
            kinds=kinds,
            like=like,
        )

        def choose(targets: list[Target]) -> Choice:
            return pick(draft, targets, sample, methods)

        targets, encoder = [m.target for m in members], model.encoder if model else None
        own = get_backend(self._backend)
        choice, targets = self._regions.choose(draft.paths, targets, sample, choose, encoder, own)
        self.samples[draft.paths] = sample
        # A plan may come with tiles of its own.
        return Chosen(replace(draft, geometry=choice.plan.geometry), choice, targets)

    def _model_of(self, draft: GroupPlan) -> GroupModel | None:
        if self._model is None or self._model.names == draft.paths:
            return self._model
        if set(self._model.names) & set(draft.paths):
            raise ModelMismatchError("model: its variables are not all lossy together on one grid")
        return None

    def _methods(self) -> tuple[str, ...]:
        m = self._options.method
        return {"auto": ("linear", "hbae", "lossless"), "linear": ("linear", "lossless")}.get(m, (m,))

    def _parts(self, whole: Chosen, draft: GroupPlan, members: list[LossyVariable], workers: Mapper) -> list[Part]:
        """Variables that may gain from groups of their own; nothing where none does."""
        if "linear" not in self._methods() or self._model_of(draft) is not None:
            return []
        # Blocks, of which some bounds speak, depend on the number of variables.
        if any(m.target.regions or m.target.by_block for m in members):
            return []
        singles = [replace(make_drafts([m], self._options, None)[0][0], geometry=draft.geometry) for m in members]
        return part_by_kind(
            singles,
            whole.targets,
            self.samples[draft.paths],
            whole.choice,
            backend=self._backend,
            workers=workers,
            fast=self._options.fast,
        )


def as_before(
    drafts: list[tuple[GroupPlan, list[LossyVariable]]], old: list[Group], options: CompressOptions
) -> list[tuple[GroupPlan, list[LossyVariable]]]:
    """Part groups as a run at another scale did, where all its parts are there."""
    out = []
    for draft, members in drafts:
        found = {m.variable.path: m for m in members}
        parts = [o.draft.paths for o in old if set(o.draft.paths) <= set(found)]
        if len(parts) < 2 or sum(map(len, parts)) != len(members):
            out.append((draft, members))
            continue
        for paths in parts:
            out += make_drafts([found[p] for p in paths], options, None)
    return out


def near_choice(
    draft: GroupPlan, members: list[LossyVariable], old: list[Group]
) -> tuple[Chosen, Sample | None] | None:
    """Give what the run at another scale chose for the same group, steps moved with the bounds, and its sample."""
    for o in old:
        if o.draft.paths != draft.paths or o.choice is None or o.choice.lossless or draft.domain == "log":
            continue
        targets, before = [m.target for m in members], [m.target for m in o.members]
        points = o.choice.plan.geometry.points
        factor = np.array([t.tolerance(points) / b.tolerance(points) for t, b in zip(targets, before, strict=True)])
        if any(t.by_point or t.regions for t in targets) or not ((factor > 0.5) & (factor < 2)).all():
            continue
        moved = np.full(len(factor), factor.min()) if o.choice.plan.ties_variables else factor
        plan = finer_plan(o.choice.plan, moved)
        draft = replace(draft, geometry=plan.geometry)
        plan = replace(plan, gae_unit=plan.gae_unit * factor, bounds=draft.bounds)
        return Chosen(draft, replace(o.choice, plan=plan), targets), o.sample
    return None
