# SPDX-License-Identifier: MIT
"""Plans of another archive for data like the data that it holds: what kinds of plans won there need not be found again.

Bases and steps are of the file at hand; only families of plans, and which of their plans, are those of the other one.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from dataclasses import dataclass

from hbae.errors import ModelMismatchError
from hbae.pipeline.archive import Archive
from hbae.pipeline.families import Task, kind_of
from hbae.pipeline.plan import GroupPlan, encode_plan
from hbae.pipeline.setting import Family

# What is tried beside an earlier kind of plan, so that one that suits badly is noticed.
_PLAIN = (("points", "wavelet", "none"), ("points", "lorenzo", "none"), ("each point", "lorenzo"))


@dataclass(frozen=True)
class Earlier:
    """Plans of an archive's groups that may serve others, without a model and with loss, and the archive's name."""

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
        with Archive(path, backend="numpy") as archive:
            for group in (p.group for p in archive.parts if p.group is not None):
                # A plan whose model is elsewhere serves nobody here.
                with suppress(ModelMismatchError):
                    plans.append(archive.plan(group))
        return Earlier(os.fspath(path), tuple(p for p in plans if _serves(p)))

    @property
    def digest(self) -> str:
        """SHA-256 of the plans."""
        return hashlib.sha256(b"".join(encode_plan(p) for p in self.plans)).hexdigest()

    def parts_of(self, paths: tuple[str, ...]) -> list[GroupPlan]:
        """Give the plans that together serve just those variables; nothing where there are none."""
        found = [p for p in self.plans if set(p.paths) <= set(paths)]
        return found if sum(len(p.paths) for p in found) == len(paths) else []


def is_like(task: Task, plan: GroupPlan) -> bool:
    """Tell whether a task makes plans of an earlier one's family, or the plainest ones, which that one has to beat."""
    if task in _PLAIN:
        return True
    if plan.transform is not None:
        whole = plan.geometry.tile[0] == plan.geometry.shape[0]
        kinds = tuple(a.kind for a in plan.transform.axes)
        return task[0] == "transform" and kinds == tuple("klt" if k == "pod" and whole else k for k in task[1:])
    if plan.domain == "log":
        return task[0] == "log"
    way = "wavelet" if plan.wavelet is not None else "interpolation" if plan.levels is not None else "lorenzo"
    basis = task[0] != "each point" and task[-1] == "klt"
    return task[0] != "transform" and kind_of(task) == way and basis == (plan.mix is not None)


def alike(family: Family, plan: GroupPlan) -> Family:
    """Leave a family's plans that predict as an earlier one does; the first one where none is."""
    told = (plan.wavelet, plan.levels, plan.diff_axes, plan.related)
    same = [c for c in family.members if (c.plan.wavelet, c.plan.levels, c.plan.diff_axes, c.plan.related) == told]
    return Family(same or family.members[:1])


def _serves(plan: GroupPlan) -> bool:
    return plan.model is None and bool(plan.unit.any() or plan.point_unit.any())
