# SPDX-License-Identifier: MIT
"""Slabs of steps to chunks: plans are chosen on the first slab in which a variable varies, and kept from then on."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hbae.arrays import Array, ArraySource, Field, Tiling, Variable
from hbae.bound import Target, resolve_target
from hbae.bound.targets import MARGIN
from hbae.codecs import ByteReader, ByteWriter
from hbae.config import ErrorBound
from hbae.errors import BoundViolationError, ConfigError, FormatError, ModelMismatchError, UnknownNameError
from hbae.exact import BlockDecoder, get_backend
from hbae.io import fill_patterns
from hbae.pipeline.calibrate import choose_plan
from hbae.pipeline.chunk import encode_lossless_chunk
from hbae.pipeline.encode import BlockEncoder, Coded, quiet
from hbae.pipeline.exactvars import chunk_step
from hbae.pipeline.families import ModelOption
from hbae.pipeline.groups import LossyVariable, judge_variable, make_drafts
from hbae.pipeline.inputs import Inputs
from hbae.pipeline.learn import GroupModel
from hbae.pipeline.options import CompressOptions
from hbae.pipeline.plan import GroupPlan, decode_plan, encode_plan
from hbae.pipeline.regions import Regions, encode_by_region
from hbae.pipeline.sampling import take_sample
from hbae.pipeline.stats import Validity
from hbae.pipeline.stream.layout import Layout
from hbae.pipeline.stream.shapes import slab_geometry
from hbae.pipeline.workers import Workers

_SPAN_KINDS = ("nrmse", "psnr", "rel_range", "block_nrmse")
_FINEST = 255


@dataclass
class Group:
    """Variables that are coded together: box shape of their chunks, and the plan once it is chosen.

    ``lossy``: whether a plan may ever be chosen. ``sentinels``: fill values found in the data, by variable.
    """

    paths: tuple[str, ...]
    chunk: tuple[int, ...]
    lossy: bool
    plan: GroupPlan | None = None
    targets: tuple[Target, ...] = ()
    sentinels: tuple[tuple[float, ...], ...] = ()


class Coder:
    """Turns slabs into chunks whose bounds hold, ``nrmse`` and ``psnr`` included, chunk by chunk.

    Parameters
    ----------
    steps : int
        Steps of a whole slab.
    wanted : mapping
        Bounds of the lossy variables.
    """

    def __init__(
        self,
        layout: Layout,
        steps: int,
        wanted: Mapping[str, tuple[ErrorBound, ...]],
        options: CompressOptions,
        model: GroupModel | None = None,
    ) -> None:
        self.layout, self.steps, self.wanted, self.options, self.model = layout, steps, dict(wanted), options, model
        self.groups: list[Group] = []
        self._shapes = {v.path: v.shape for v in layout.moving}

    def check(self) -> None:
        """Check what can be checked before the first step is written.

        Raises
        ------
        ConfigError, UnknownNameError, ModelMismatchError
            When a range is missing, names or regions do not fit, or a model's variables do not lie on one grid.
        """
        for path, bounds in self.wanted.items():
            kinds = [b.kind for b in bounds if b.kind in _SPAN_KINDS]
            if kinds and path not in self.options.ranges:
                raise ConfigError(f"range: {kinds[0]} of {path} needs range={{'{path}': (low, high)}}: later steps are unknown")
        for name in self.options.ranges:
            if name not in self.wanted:
                raise UnknownNameError(f"range: {name!r} is no lossy variable")
        Regions(self._hollow(self.steps), self.wanted)
        if self.model is not None and self.model.names not in [g.paths for g in self._partition(())]:
            raise ModelMismatchError("model: its variables are not all lossy together on one grid")

    def _hollow(self, n: int) -> Field:
        return self.layout.field(np.arange(n), {})

    def field(self, arrays: Mapping[str, Array]) -> Field:
        """Give a slab as a field."""
        n = len(next(iter(arrays.values())))
        return self.layout.field(np.arange(n), {p: ArraySource(a) for p, a in arrays.items()})

    def chunks_of(self, g: Group, n: int) -> Tiling:
        """Boxes of a group's chunks in a slab of n steps."""
        return Tiling((n, *self._shapes[g.paths[0]]), g.chunk)

    def encode(self, arrays: Mapping[str, Array]) -> Iterator[bytes]:
        """Give the chunks of a slab, group after group; the first slab decides which variables go together."""
        with quiet():
            field = self.field(arrays)
            n = len(next(iter(arrays.values())))
            self._choose(field)
            regions = Regions(field, self.wanted)
            for g in self.groups:
                for box in self.chunks_of(g, n):
                    raw = np.stack([arrays[p][box] for p in g.paths], out=_room(arrays, g, box))
                    yield self._encode(raw, g, regions.at(g.paths, list(g.targets), box))

    def _choose(self, field: Field) -> None:
        """Choose plans of groups that have none yet and all of whose variables vary in this slab."""
        n = field.dims_of("")["time"].size
        if not self.groups:
            self.groups = self._partition(self._constant(field), n)
        waiting = [g for g in self.groups if g.lossy and g.plan is None]
        if not waiting:
            return
        variables = [field.variable(p) for g in waiting for p in g.paths]
        with Inputs(variables, self.options) as inputs:
            inputs.read_all()
            for g in waiting:
                members = [
                    judge_variable(field.variable(p), self.wanted[p], inputs.stats[p], self.options.ranges.get(p))
                    for p in g.paths
                ]
                if n == self.steps or len(self.groups[0].chunk) and not any(k.plan for k in self.groups):
                    self._choose_group(g, members, inputs, field)

    def _constant(self, field: Field) -> tuple[str, ...]:
        """Lossy variables that cannot be coded with loss in this slab: they get groups of their own."""
        with Inputs([field.variable(p) for p in self.wanted], self.options) as inputs:
            inputs.read_all()
            found = [
                judge_variable(field.variable(p), b, inputs.stats[p], self.options.ranges.get(p))
                for p, b in self.wanted.items()
            ]
        return tuple(m.variable.path for m in found if m.reason)

    def _partition(self, alone: tuple[str, ...], n: int | None = None) -> list[Group]:
        raise NotImplementedError


def _room(arrays: Mapping[str, Array], g: Group, box: Any) -> Array:
    first = arrays[g.paths[0]]
    return np.empty((len(g.paths), *first[box].shape), first.dtype)
