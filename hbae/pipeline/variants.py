# SPDX-License-Identifier: MIT
"""The details in which plans of a family differ: axes, ladders of steps, groupings, kinds of bases, relations."""

from __future__ import annotations

from hbae.blocks import Geometry
from hbae.codecs.related import Relation
from hbae.exact import MAX_DCT, Wavelet
from hbae.exact.interpolate import level_steps
from hbae.exact.wavelet import MOST_AXES, num_levels
from hbae.pipeline.plan import GroupPlan, Levels
from hbae.pipeline.sampling import Sample

# From that many variables on they seldom fail to tell of each other: steps are then set for that. Fewer than the least
# never do: their files were not smaller, and took up to twice as long to decode.
_MOSTLY, _LEAST = 16, 4


def difference_axes(geometry: Geometry) -> list[tuple[int, ...]]:
    """Axes along which differences are worth trying: all, all but the first, the first, the last, none."""
    axes = tuple(i for i, n in enumerate(geometry.shape) if n > 1)
    options = [axes, axes[1:], axes[:1], axes[-1:], ()] if len(axes) > 1 else [axes, ()]
    return list(dict.fromkeys(options))


def relations(num_variables: int, head: str, *, fast: bool) -> tuple[Relation, ...]:
    """What variables may tell of each other, the likeliest first: components of a basis are closely related."""
    if num_variables < _LEAST or fast:
        return ("",)
    told: tuple[Relation, ...] = ("rests",) if head == "klt" else ("contexts", "rests")
    return (*told, "") if num_variables >= _MOSTLY else ("", *told)


def level_options(draft: GroupPlan) -> list[Levels]:
    """Orders of axes, predictors and step ladders worth trying: each differs from the first in one thing."""
    r = len(draft.geometry.shape)
    steep, flat = tuple(level_steps(8, 2.0, 8.0)), tuple(level_steps(8, 1.35, 3.0))
    up, down = tuple(range(r)), tuple(reversed(range(r)))
    options = [Levels(up, True, steep), Levels(down, True, steep), Levels(up, False, steep), Levels(up, True, flat)]
    return list(dict.fromkeys(options))


def wavelet_options(draft: GroupPlan) -> list[Wavelet]:
    """Groupings of axes worth trying: the first axis (time, as a rule) apart, all together, all apart."""
    axes = tuple(range(len(draft.geometry.shape)))
    if len(axes) > MOST_AXES or all(num_levels(n) == 0 for n in draft.geometry.chunk):
        return []
    groups = [(axes[:1], axes[1:]), (axes,), tuple((a,) for a in axes)]
    return [Wavelet(g) for g in dict.fromkeys(groups) if all(g)]


def kind_options(draft: GroupPlan, sample: Sample, heads: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Basis kinds to try: PCA over the variables always, PCA or DCT over the grid axes."""
    options = [(heads[-1], *("dct" if t <= MAX_DCT else "none" for t in draft.geometry.tile))]
    if sum(raw.nbytes for raw, _ in sample.boxes) * sample.ratio > 1 << 20:
        options.append((heads[-1], *grid_kinds(draft.geometry.tile)))
    if len(heads) > 1:
        options.append(("none", *options[-1][1:]))
    return options


def grid_kinds(tile: tuple[int, ...]) -> tuple[str, ...]:
    """PCA along short axes of a tile, DCT along longer ones."""
    return tuple("klt" if t <= 64 else "dct" if t <= MAX_DCT else "none" for t in tile)
