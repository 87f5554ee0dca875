# SPDX-License-Identifier: MIT
"""Pass 2 over a group: its chunks are encoded, decoded, judged over all ranks, and written until every bound holds."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from hbae.arrays import Array, Box
from hbae.bound import Target, Totals, VariableErrors
from hbae.container import Writer
from hbae.errors import BoundViolationError
from hbae.pipeline.calibrate import ALONE_POINTS, Choice
from hbae.pipeline.encode import BlockEncoder, with_latent_step
from hbae.pipeline.groups import LossyVariable
from hbae.pipeline.inputs import Inputs
from hbae.pipeline.options import CompressOptions
from hbae.pipeline.plan import GroupPlan, encode_plan
from hbae.pipeline.pool import Job, encode_all
from hbae.pipeline.regions import Regions
from hbae.pipeline.replan import finer_plan, with_block_limits
from hbae.pipeline.sampling import Sample
from hbae.pipeline.settle import Errors, Look, Settler, can_settle, chunks_to_look_at
from hbae.pipeline.touchup import Spool, finer_factors, global_ratios, growth_of_chunks, growth_of_plan, touch_up
from hbae.pipeline.workers import Workers
from hbae.ranks import Team, agreed, share_of, together

REDO = 2


@dataclass
class Group:
    """A group on its way through pass 2; ranks beside the root know no sample."""

    number: int
    draft: GroupPlan
    members: list[LossyVariable]
    choice: Choice | None = None
    sample: Sample | None = None
    totals: list[Totals] | None = None
    notes: tuple[str, ...] = ()


# Part of the bytes that coding some chunks again may take beyond what finer steps of some variables take everywhere.
_DEAR = 0.01


@dataclass(frozen=True)
class _Verdict:
    """What the root makes of all chunks: totals, RMSE over its limit by variable, chunks to code again and how fine."""

    totals: list[Totals]
    ratio: Array
    again: Array
    fine: int


class GroupWriter:
    """Writes groups into an archive; each rank of a team encodes its share of the chunks.

    ``stages``: number of groups, for progress. ``backend``: as of :func:`hbae.exact.get_backend`.
    """

    def __init__(
        self,
        inputs: Inputs,
        regions: Regions,
        options: CompressOptions,
        workers: Workers,
        team: Team,
        *,
        model: BlockEncoder | None,
        backend: str,
        stages: int,
    ) -> None:
        self._inputs, self._regions, self._options = inputs, regions, options
        self._workers, self._team = workers, team
        self._model, self._backend, self._stages = model, backend, stages

    def write(self, w: Writer, g: Group) -> None:
        """Write a group's chunks; a global bound that fails is met by finer steps, at the end block by block.

        Raises
        ------
        BoundViolationError
            When it could not be met: a bug.
        """
        if g.choice is None:
            raise BoundViolationError("a group without a plan")
        plan, targets = g.choice.plan, [m.target for m in g.members]
        if can_settle(plan, targets, lossless=g.choice.lossless):
            plan = self._settled(g, plan, targets)
        mark = w.mark()
        for attempt in range(REDO + 3):
            w.rewind(mark)
            w.add_section(f"group {g.number}", encode_plan(plan))
            ratio = self._write_chunks(w, g, plan, targets, attempt)
            if (ratio <= 1).all():
                g.choice = replace(g.choice, plan=plan)
                return
            plan, targets = agreed(self._team, Finer(g, plan, targets, ratio, attempt).decide)
        raise BoundViolationError(f"the global bound of {', '.join(g.draft.paths[:3])} could not be kept")

    def _settled(self, g: Group, plan: GroupPlan, targets: list[Target]) -> GroupPlan:
        """Look at chunks until the plan's steps are right; ranks share the looks."""
        numbers = chunks_to_look_at(plan)
        sampled, whole = g.sample is not None and not g.sample.whole, len(numbers) == plan.geometry.num_chunks
        settler = Settler.on_chunks(plan, targets, sampled=sampled, whole=whole)
        more = True
        while more:
            found = together(self._team, partial(self._look, g, plan, targets, numbers))
            plan, more = agreed(self._team, partial(_after_look, settler, self._team.gather(found)))
        return plan

    def _look(self, g: Group, plan: GroupPlan, targets: list[Target], numbers: list[int]) -> list[Errors]:
        """Errors of this rank's share of those chunks."""
        mine = share_of(self._team, len(numbers))
        boxes = plan.geometry.chunks()
        chunks = self._chunks(g, [boxes[numbers[i]] for i in mine], targets)
        look = Look(plan, targets, self._model_of(g, plan), self._backend)
        alone = len(mine) == 1 or math.prod(plan.geometry.shape) * plan.num_variables < ALONE_POINTS
        found = []
        for k, errors in enumerate(self._workers.map(Look.errors, look, chunks, alone=alone)):
            self._options.tell(f"looking {g.number + 1}/{self._stages}", (k + 1) / len(mine))
            found.append(errors)
        return found

    def _model_of(self, g: Group, plan: GroupPlan) -> BlockEncoder | None:
        """The model, where the plan has one, with the latents that were chosen for the group."""
        if self._model is None or not plan.model:
            return None
        return with_latent_step(self._model, g.choice.latent_step if g.choice is not None else 1)

    def _write_chunks(self, w: Writer, g: Group, plan: GroupPlan, targets: list[Target], attempt: int) -> Array:
        """Write all chunks, some of them again with finer steps where that meets the global limits.

        Only where that is cheap, while finer steps of the variables that missed may follow; ``attempt``: of the plans.
        RMSE over its limit, by variable.
        """
        job = Job(plan, targets, self._model_of(g, plan), self._backend, g.choice is not None and g.choice.lossless)
        boxes = plan.geometry.chunks()
        mine = w.share(len(boxes))
        mark = w.mark()
        errors: dict[int, list[VariableErrors]] = {}
        again: Array = np.arange(len(boxes))
        while True:
            found = together(self._team, partial(self._take, w, mark, mine, job, g, again))
            for by_chunk in self._team.gather(found) or ():
                errors.update(by_chunk)
            verdict = agreed(self._team, partial(_judge, errors, g, job, attempt))
            g.totals, again = verdict.totals, verdict.again
            if not len(again):
                return verdict.ratio
            job = replace(job, fine=verdict.fine)

    def _take(
        self, w: Writer, mark: tuple[int, int, int], mine: range, job: Job, g: Group, again: Array
    ) -> dict[int, list[VariableErrors]]:
        """Write this rank's chunks, those of the numbers ``again`` encoded anew; give these one's errors."""
        chosen = [i for i in again.tolist() if i in mine]
        errors: dict[int, list[VariableErrors]] = {}
        with Spool(w.payloads(mark)) as old:
            w.rewind(mark)
            coded, anew = self._encode(job, g, chosen, errors), set(chosen)
            for k, i in enumerate(mine):
                w.add_chunk(next(coded) if i in anew else old.take(k))
        return errors

    def _encode(
        self, job: Job, g: Group, numbers: list[int], errors: dict[int, list[VariableErrors]]
    ) -> Iterator[bytes]:
        """Give the bytes of the chunks of those numbers, and note their errors."""
        boxes = job.plan.geometry.chunks()
        chunks = self._chunks(g, [boxes[i] for i in numbers], job.targets)
        for k, coded in enumerate(encode_all(job, chunks, self._workers, alone=len(numbers) == 1)):
            if not coded.errors.hold:
                raise BoundViolationError(f"chunk {numbers[k]} of {job.plan.paths[0]} does not hold its bound")
            errors[numbers[k]] = coded.errors.variables
            self._options.tell(f"encoding {g.number + 1}/{self._stages}", (k + 1) / len(numbers))
            yield coded.payload

    def _chunks(self, g: Group, boxes: list[Box], targets: list[Target]) -> Iterator[tuple[Array, Array, list[Target]]]:
        for box in boxes:
            raw = self._inputs.read(g.draft.paths, box)
            invalid = np.stack([m.stats.validity.invalid(raw[v]) for v, m in enumerate(g.members)])
            yield raw, invalid, self._regions.at(g.draft.paths, targets, box)


def _after_look(settler: Settler, by_rank: list[list[Errors]] | None) -> tuple[GroupPlan, bool]:
    """Move steps by the errors in the order of chunks, whatever the number of ranks; tell whether to look again."""
    settler.step(errors for rank in by_rank or () for errors in rank)
    return settler.plan, settler.more


def _judge(errors: dict[int, list[VariableErrors]], g: Group, job: Job, attempt: int) -> _Verdict:
    """Sum errors up in the order of chunks; after the last touch-up, or where none is possible, none is coded again.

    Nor where finer steps of the variables that missed, which the plan after that ``attempt`` has, take fewer bytes.
    """
    by_variable = [[errors[i][v] for i in sorted(errors)] for v in range(len(g.members))]
    totals = [Totals.of(e, m.target.span) for e, m in zip(by_variable, g.members, strict=True)]
    ratio = global_ratios(totals, g.members)
    fine, again = job.fine, np.zeros(0, np.int64)
    if job.plan.domain != "log" and not job.lossless:
        fine, again = touch_up(by_variable, ratio, job.fine)
        tied = job.plan.ties_variables
        by_plan = growth_of_plan(ratio, attempt, tied=tied) if attempt <= tied else math.inf
        if growth_of_chunks(fine, len(again) / len(errors)) > _DEAR + by_plan:
            fine, again = job.fine, np.zeros(0, np.int64)
    return _Verdict(totals, ratio, again, fine)


@dataclass(frozen=True)
class Finer:
    """A plan whose global bound failed."""

    group: Group
    plan: GroupPlan
    targets: list[Target]
    ratio: Array
    attempt: int

    def decide(self) -> tuple[GroupPlan, list[Target]]:
        """Give a plan with finer steps; where that has been tried, every block is held to the limit."""
        if self.attempt < REDO + self.plan.ties_variables and (self.plan.unit.any() or self.plan.point_unit.any()):
            factors = finer_factors(self.ratio, self.attempt, tied=self.plan.ties_variables)
            return finer_plan(self.plan, factors), self.targets
        if self.group.sample is None:
            raise BoundViolationError("a group without a sample")
        return with_block_limits(self.plan, self.targets, self.group.sample)
