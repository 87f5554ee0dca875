# SPDX-License-Identifier: MIT
"""Bounds by region: where the masks lie, which plan serves them, and chunks whose regions need finer steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from hbae.arrays import Array, Box, Field, Variable
from hbae.bound import Target
from hbae.config import ErrorBound
from hbae.errors import ConfigError, UnknownNameError
from hbae.exact import Backend
from hbae.io import fill_patterns, packing
from hbae.pipeline.calibrate import Choice
from hbae.pipeline.encode import BlockEncoder, Coded, encode_chunk, with_latent_step
from hbae.pipeline.plan import GroupPlan, encode_plan
from hbae.pipeline.sampling import Sample, few_boxes

_KEEP_POINTS = 1 << 26
_WEIGH_POINTS = 1 << 20
# Finenesses to try where points have no step of their own: steps times 1/2 and 1/8.
_FINER = (128, 224)


@dataclass
class _Mask:
    """The points of a region on the grid of one variable; ``axes``: where the mask's own axes lie there."""

    source: Variable
    axes: tuple[int, ...]
    whole: Array | None = field(default=None, repr=False)

    def inside(self, box: Box) -> Array:
        """Give the region's points of a box of the grid, as bool (a view that repeats along the other axes)."""
        own = tuple(box[a] for a in self.axes)
        if math.prod(self.source.shape) <= _KEEP_POINTS:
            if self.whole is None:
                self.whole = _counts(self.source, tuple(slice(0, n) for n in self.source.shape))
            part = self.whole[own]
        else:
            part = _counts(self.source, own)
        lengths = [s.stop - s.start for s in box]
        shape = [n if a in self.axes else 1 for a, n in enumerate(lengths)]
        out: Array = np.broadcast_to(part.reshape(shape), lengths)
        return out


def _counts(v: Variable, box: Box) -> Array:
    """Points of a mask that are not zero, not NaN and no declared fill value."""
    raw = np.asarray(v.source.read(box), v.dtype)
    p = packing(v)
    x = raw * p[0] + p[1] if p is not None else raw
    out = (x != 0) & (x == x)
    for fill in (f for pattern in fill_patterns(v) for f in np.ravel(pattern)):
        out &= raw != fill
    return np.asarray(out, bool)


class Regions:
    """The masks that the bounds of lossy variables name.

    Raises
    ------
    UnknownNameError
        When there is no variable of a mask's name.
    ConfigError
        When a mask does not fit its variable's grid, may itself lose something, or the rest of the variable is left
        without a bound.
    """

    def __init__(self, source: Field, wanted: Mapping[str, tuple[ErrorBound, ...]]) -> None:
        found = {v.path: v for v in source.variables()}
        self._masks: dict[tuple[str, str], _Mask] = {}
        for path, bounds in wanted.items():
            for b in bounds:
                if b.region is None:
                    continue
                mask = _find(found, found[path], b)
                if mask.path in wanted:
                    raise ConfigError(f"bound {path}: its region {b.region} is lossy itself; a region must be lossless")
                _check_rest(path, b, bounds)
                self._masks[path, b.region] = _Mask(mask, _axes(found[path], mask))

    def at(self, paths: Sequence[str], targets: list[Target], box: Box) -> list[Target]:
        """Give targets with the points of their regions in that box."""
        if not any(t.regions for t in targets):
            return targets
        return [
            replace(t, regions=tuple(replace(r, inside=self._masks[p, r.name].inside(box)) for r in t.regions))
            for p, t in zip(paths, targets, strict=True)
        ]

    def choose(
        self,
        paths: Sequence[str],
        targets: list[Target],
        sample: Sample,
        choose: Callable[[list[Target]], Choice],
        model: BlockEncoder | None,
        backend: Backend,
    ) -> tuple[Choice, list[Target]]:
        """Choose between a plan for what holds everywhere and one that gives every point its regions' limits.

        The first one pays where regions are small or chunks lie wholly inside or outside. Both are weighed on the
        sample, regions and all.
        """
        loose = choose(targets)
        if not any(t.regions for t in targets):
            return loose, targets
        tight = [t.everywhere() for t in targets]
        best, size = loose, math.inf
        kept = targets
        for choice, wanted in ((loose, targets), (choose(tight), tight)):
            encoder = with_latent_step(model, choice.latent_step) if model is not None and choice.plan.model else None
            n = float(len(encode_plan(choice.plan)))
            for (raw, bad), box in _few(sample):
                here = self.at(paths, wanted, box)
                coded = encode_by_region(
                    raw, bad, choice.plan, here, model=encoder, backend=backend, lossless=choice.lossless
                )
                n += len(coded.payload) * _share(sample)
            if n < size:
                best, size, kept = choice, n, wanted
        return replace(best, estimate=size), kept


def _few(sample: Sample) -> list[tuple[tuple[Array, Array], Box]]:
    """The first boxes of the sample, up to a number of points."""
    return list(zip(few_boxes(sample.boxes, _WEIGH_POINTS), sample.places, strict=False))


def _share(sample: Sample) -> float:
    """Points of the whole grid over those of the first boxes."""
    points = [raw[0].size for raw, _ in sample.boxes]
    return sample.ratio * float(sum(points)) / float(sum(points[: len(_few(sample))]))


def _find(found: Mapping[str, Variable], owner: Variable, b: ErrorBound) -> Variable:
    """Look for a mask in the variable's own group, then in those above."""
    group = owner.group
    while True:
        mask = found.get(f"{group}/{b.region}" if group else str(b.region))
        if mask is not None:
            break
        if not group:
            raise UnknownNameError(f"bound {owner.path}: {b}: there is no variable {b.region}")
        group = group.rpartition("/")[0]
    if mask.dtype.kind not in "biuf":
        raise ConfigError(f"bound {owner.path}: {b}: a region is a bool, integer or float variable, not {mask.dtype}")
    return mask


def _axes(owner: Variable, mask: Variable) -> tuple[int, ...]:
    """Find the mask's dimensions, by name and in order, among the variable's."""
    axes: list[int] = []
    for name, n in zip(mask.dims, mask.shape, strict=True):
        later = [a for a in range(axes[-1] + 1 if axes else 0, len(owner.dims)) if owner.dims[a] == name]
        if not later or owner.shape[later[0]] != n:
            raise ConfigError(
                f"bound {owner.path}: the region {mask.path} {mask.dims} {mask.shape} does not fit"
                f" {owner.dims} {owner.shape}"
            )
        axes.append(later[0])
    return tuple(axes)


def _check_rest(path: str, b: ErrorBound, bounds: tuple[ErrorBound, ...]) -> None:
    rest = {k.kind for k in bounds if k.region is None}
    if not rest:
        raise ConfigError(f"bound {path}: {b} leaves the rest without a bound; give one without '@' too")
    if b.kind == "pw_rel" and "pw_rel" not in rest:
        raise ConfigError(f"bound {path}: {b} needs a pw_rel bound for the rest too")


def encode_by_region(
    raw: Array,
    invalid: Array,
    plan: GroupPlan,
    targets: list[Target],
    *,
    model: BlockEncoder | None,
    backend: Backend,
    lossless: bool = False,
    fine: int = 0,
) -> Coded:
    """Encode a chunk as :func:`encode_chunk` does; where regions ask for more, with finer steps if that is smaller.

    Points that the plan's own steps leave over their region's limit are kept exactly.
    """
    coded = encode_chunk(raw, invalid, plan, targets, model=model, backend=backend, lossless=lossless, fine=fine)
    if lossless or coded.lossless or plan.domain == "log":
        return coded
    for f in _finenesses(plan, targets, ~invalid):
        if f <= fine:
            continue
        again = encode_chunk(raw, invalid, plan, targets, model=model, backend=backend, fine=f)
        if len(again.payload) < len(coded.payload):
            coded = again
    return coded


def _finenesses(plan: GroupPlan, targets: list[Target], valid: Array) -> tuple[int, ...]:
    """Finenesses worth trying: the one that brings every point of the regions at hand under its limit."""
    need = 0.0
    for v, t in enumerate(targets):
        limits = [r.point for r in t.regions if r.inside is not None and (r.inside & valid[v]).any()]
        if not limits:
            continue
        if not t.by_point:
            return _FINER
        # A hair under the limit, for the rounding to the output type.
        need = max(need, 1 - 0.998 * 2 * min(limits) / max(float(plan.point_unit[v]), 1e-300))
    f = math.ceil(256 * need) if need > 0 else 0
    return (f,) if 0 < f < 256 else ()
