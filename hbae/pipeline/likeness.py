# SPDX-License-Identifier: MIT
"""Plans of another archive for data like the data that it holds: what kinds of plans won there need not be found again.

Bases and steps are of the file at hand; only families of plans, and which of their plans, are those of the other one.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Container
from contextlib import suppress
from dataclasses import dataclass

from hbae.errors import FormatError, ModelMismatchError
from hbae.pipeline.archive import Archive
from hbae.pipeline.families import Task, kind_of, without_basis
from hbae.pipeline.plan import GroupPlan, encode_plan
from hbae.pipeline.setting import Family

# Ways that are tried beside an earlier kind of plan, so that one that suits badly is noticed.
_PLAIN = ("wavelet", "lorenzo")


@dataclass(frozen=True)
class Earlier:
    """Plans of an archive's groups that may serve others, without a model, and the archive's name."""

    name: str
    plans: tuple[GroupPlan, ...]

    @staticmethod
    def of(path: str | os.PathLike[str]) -> Earlier:
        """Read the plans of an archive; of its chunks nothing is read.

        Raises
        ------
        InputError, FormatError
            When it is not there, or damaged.
        """
        plans = []
        try:
            with Archive(path, backend="numpy") as archive:
                for group in (p.group for p in archive.parts if p.group is not None):
                    # A plan whose model is elsewhere serves nobody here.
                    with suppress(ModelMismatchError):
                        plans.append(archive.plan(group))
        except FormatError as e:
            raise FormatError(f"like {path}: {e}") from e
        return Earlier(os.fspath(path), tuple(p for p in plans if p.model is None))

    @property
    def digest(self) -> str:
        """SHA-256 of the plans."""
        return hashlib.sha256(b"".join(encode_plan(p) for p in self.plans)).hexdigest()

    def parts_of(self, paths: tuple[str, ...]) -> list[GroupPlan]:
        """Give the plans that together serve just those variables; nothing where there are none."""
        found = [p for p in self.plans if set(p.paths) <= set(paths)]
        return found if sum(len(p.paths) for p in found) == len(paths) else []


def family_of(plan: GroupPlan) -> Task:
    """Name the family of a plan, whatever limits it is for."""
    if not (plan.unit.any() or plan.point_unit.any()):
        return ("lossless",)
    if plan.transform is not None:
        return ("transform", *(a.kind for a in plan.transform.axes))
    if plan.domain == "log":
        return ("log",)
    way = "wavelet" if plan.wavelet is not None else "interpolation" if plan.levels is not None else "lorenzo"
    return ("points", way, "none" if plan.mix is None else "klt")


def is_plain(task: Task, tasks: Container[Task]) -> bool:
    """Tell whether a task makes the plainest plans of all ``tasks``: with a basis only where there are none without."""
    head, *rest = task
    if head == "points":
        return rest[0] in _PLAIN and (rest[1] == "none" or without_basis(task) not in tasks)
    return task in (("each point", "lorenzo"), ("log",))


def is_like(task: Task, plan: GroupPlan) -> bool:
    """Tell whether a task makes plans of an earlier one's family."""
    head, *rest = task
    if head == "transform":
        return family_of(plan) == (head, *("klt" if k == "pod" else k for k in rest))
    if head == "log":
        return plan.domain == "log"
    basis = "klt" if head != "each point" and rest[-1:] == ["klt"] else "none"
    return family_of(plan) == ("points", kind_of(task), basis)


def alike(family: Family, plan: GroupPlan) -> Family:
    """Leave a family's plans that predict as an earlier one does; the first one where none is."""
    told = (plan.wavelet, plan.levels, plan.diff_axes, plan.related)
    same = [c for c in family.members if (c.plan.wavelet, c.plan.levels, c.plan.diff_axes, c.plan.related) == told]
    return Family(same or family.members[:1])
