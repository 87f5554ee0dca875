# SPDX-License-Identifier: MIT
"""What all families of plans of a group share: worked out once, before any of them is made."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from hbae.arrays import Array
from hbae.blocks import fill_invalid, split_blocks, split_tiles
from hbae.bound import Target
from hbae.exact import Backend, BlockDecoder, Transform
from hbae.pipeline.encode import BlockEncoder, latents_of
from hbae.pipeline.original import physical
from hbae.pipeline.parts import Parts, linear_values
from hbae.pipeline.plan import GroupPlan
from hbae.pipeline.replan import fit_blocks
from hbae.pipeline.sampling import Sample, few_boxes, offsets_of, whole_axis
from hbae.pipeline.steps import AIM, FIT_POINTS, solve_units
from hbae.pipeline.variants import wavelet_options

# From that many variables on, plans without PCA over them are tried only where PCA saves fewer bits a value than that
# or there are few values.
MANY, _LITTLE_GAIN, _FEW_VALUES = 8, 0.3, 1 << 21
# Squared tolerances, summed over variables, from which on the coefficients of a place are worth bits; so many places.
_WORTH_BITS, _DETAILS = 6.0, 1 << 13


@dataclass(frozen=True)
class ModelOption:
    """A model that may serve as base: its encoder, its decoder and SHA-256, and the bytes that it adds to the file.

    ``latent_step``: of which its encoder's latents are multiples.
    """

    encoder: BlockEncoder
    decoder: BlockDecoder
    sha: str
    nbytes: int
    latent_step: int = 1


@dataclass(frozen=True, eq=False)
class Candidate:
    """A plan on trial; ``extra``: bytes of the model that it needs; ``tall``: its tiles hold the first axis.

    ``latent_step``: of which the model's latents are multiples.
    """

    name: str
    plan: GroupPlan
    model: BlockEncoder | None
    extra: int
    lossless: bool
    tall: bool = False
    latent_step: int = 1

    @property
    def kind(self) -> str:
        """What the name says before its details."""
        return self.name.partition(",")[0].partition("(")[0]


@dataclass(frozen=True)
class Family:
    """Plans that differ in details; the first one stands for all in the first round."""

    members: list[Candidate]


@dataclass(frozen=True)
class Setting:
    """What all families of a group share: tolerances, residual boxes, tiles to fit on, stages that close the gap.

    ``tall``: tiles hold the first axis. ``head``: the only one of the ways over the variables that its offsets suit, if
    not all. ``fast``: variables do not tell of each other. ``brief``: half of the trials within a family will do.
    """

    draft: GroupPlan
    targets: list[Target]
    sample: Sample
    tol: Array
    left: list[Array]
    tiles: Array
    model: ModelOption | None
    closing: dict[str, Any]
    tall: bool = False
    head: str = ""
    fast: bool = False
    brief: bool = False
    _mixes: dict[str, list[tuple[Transform, Array]]] = field(default_factory=dict, repr=False)
    _details: list[Array] = field(default_factory=list, repr=False)

    @property
    def by_point(self) -> bool:
        """Whether any variable has pointwise limits."""
        return any(t.by_point for t in self.targets)

    @property
    def by_point_alone(self) -> bool:
        """Whether every variable has one limit for all of its points, and no other."""
        others = any(t.regions or t.by_block or min(t.rmse, t.pw_rel) < math.inf for t in self.targets)
        return self.by_point and not others

    @property
    def by_block(self) -> bool:
        """Whether any variable has block limits."""
        return any(t.by_block for t in self.targets)

    def points(self) -> Array:
        """Some of the residual boxes' points, (V, n)."""
        flat = np.concatenate([x.reshape(len(x), -1) for x in self.left], axis=1)
        return flat[:, :: max(1, flat.size // FIT_POINTS)]

    def details(self) -> Array:
        """Coefficients of wavelets of some places of the residual boxes, (V, n), where any is worth bits."""
        if not self._details:
            self._details.append(_details_of(self))
        return self._details[0]

    def mixes(self, head: str) -> list[tuple[Transform, Array]]:
        """Bases over the variables with steps for points, of every degree of balance; worked out once."""
        if head not in self._mixes:
            self._mixes[head] = solve_units(self.points(), self.tol, (head,), rounding=0.5)
        return self._mixes[head]

    def heads(self) -> tuple[str, ...]:
        """Whether PCA over the variables is worth trying, or its absence, or both."""
        v = self.draft.num_variables
        if v == 1:
            return ("none",)
        few = sum(x.size for x in self.left) <= _FEW_VALUES
        both = few or v < MANY or _gain(self.points() / self.tol[:, None]) < _LITTLE_GAIN
        return tuple(h for h in (("none", "klt") if both else ("klt",)) if self.head in ("", h))

    def family(self, named: list[tuple[str, GroupPlan]]) -> Family:
        """Wrap plans."""
        encoder = self.model.encoder if self.model else None
        extra, step = (self.model.nbytes, self.model.latent_step) if self.model else (0, 1)
        prefix, suffix = "" if self.model is None else "hbae+", "" if step == 1 else f", latents x{step}"
        return Family([Candidate(prefix + n + suffix, p, encoder, extra, False, self.tall, step) for n, p in named])


def make_settings(draft: GroupPlan, targets: list[Target], sample: Sample, backend: Backend) -> list[Setting]:
    """Work out what families without a model share.

    Offsets are those that suit plans without a basis over the variables, and those for bases where these are others.
    """
    if draft.domain == "log":
        made = [make_setting(draft, targets, sample, None, backend)]
        return [s for s in made if s is not None]
    rest, mean = offsets_of(sample, draft)
    centred = replace(draft, offset=mean)
    made = [make_setting(centred, targets, sample, None, backend)]
    if made[0] is not None and "none" in made[0].heads() and (rest != mean).any():
        apart = make_setting(replace(draft, offset=rest), targets, sample, None, backend)
        alone = draft.num_variables == 1
        made = [apart] if alone else [s and replace(s, head=h) for s, h in ((apart, "none"), (made[0], "klt"))]
    made.append(make_tall(centred, targets, sample, backend))
    return [s for s in made if s is not None and s.heads()]


def make_tall(draft: GroupPlan, targets: list[Target], sample: Sample, backend: Backend) -> Setting | None:
    """Give the setting of plans whose tiles hold the first axis from end to end, where there are any."""
    if sample.columns is None or draft.domain == "log" or any(t.regions for t in targets):
        return None
    tall = make_setting(replace(draft, geometry=whole_axis(draft.geometry)), targets, sample.columns, None, backend)
    return None if tall is None else replace(tall, tall=True)


def make_setting(
    draft: GroupPlan, targets: list[Target], sample: Sample, model: ModelOption | None, backend: Backend
) -> Setting | None:
    """Work out what the families share, with a model as base or without; nothing where no plan can meet the targets."""
    if model is not None:
        draft = replace(draft, decoder=model.decoder, model=model.sha)
    tol = np.array([t.tolerance(draft.geometry.points) for t in targets])
    if draft.domain == "log":
        return Setting(draft, targets, sample, tol, [], np.zeros(0), None, {})
    left = [_residual(raw, invalid, draft, model, backend) for raw, invalid in sample.boxes]
    tiles = np.concatenate([split_tiles(x, draft.geometry.tile) for x in left], axis=1)
    tiles = tiles[:, :: max(1, -(-tiles.size // (4 * FIT_POINTS)))]
    s = Setting(draft, targets, sample, tol, left, tiles, model, {})
    if s.by_point:
        unit = _point_units(draft, targets, tol)
        return replace(s, closing={"point_unit": unit}) if (unit > 0).all() else None
    return replace(s, closing=_block_stage(s)) if s.by_block else s


def _details_of(s: Setting) -> Array:
    waves = wavelet_options(s.draft)
    if not waves:
        return s.points()
    found = []
    for x in few_boxes([(x, x) for x in s.left], FIT_POINTS):
        c = x[0].copy()
        for grid in c:
            waves[0].forward(grid)
        c = c.reshape(len(c), -1)
        found.append(c[:, ((c / s.tol[:, None]) ** 2).sum(axis=0) > _WORTH_BITS])
    all_ = np.concatenate(found, axis=1)
    return all_[:, :: max(1, -(-all_.shape[1] // _DETAILS))]


def _block_stage(s: Setting) -> dict[str, Any]:
    """The stage that closes block limits: GAE with bins 2 tau / sqrt(P)."""
    points = s.draft.geometry.points
    unit = np.array(
        [2 * t.tolerance(points) * 0.98 if t.by_block else tl for t, tl in zip(s.targets, s.tol, strict=True)]
    )
    return {"gae_unit": unit, "gae": fit_blocks(s.left, s.draft, unit)}


def _residual(raw: Array, invalid: Array, draft: GroupPlan, model: ModelOption | None, backend: Backend) -> Array:
    """What is left of a box after base or offset, invalid points filled."""
    x = fill_invalid(physical(raw, draft), ~invalid)
    parts = Parts()
    if model is not None:
        parts = latents_of(model.encoder, model.decoder, split_blocks(x, draft.geometry), Parts())
    return x - linear_values(parts, draft, x.shape, backend)


def _point_units(draft: GroupPlan, targets: list[Target], tol: Array) -> Array:
    """Steps of the point stage: twice the bound less the output's rounding; 0 where the type cannot hold it."""
    units = []
    for v, t in enumerate(targets):
        if not math.isfinite(t.point):
            units.append(tol[v] * math.sqrt(12) * AIM)
            continue
        top = max(abs(draft.low[v]), abs(draft.high[v]))
        p = draft.packing[v]
        if p is not None:
            rounding = abs(p[0]) * 0.5
        else:
            rounding = float(np.spacing(np.abs(np.asarray(top).astype(draft.dtype.newbyteorder("="))))) * 0.5
        room = min(t.point, tol[v] * math.sqrt(3)) - rounding
        units.append(max(0.0, 2 * room * (1 - 1e-6)))
    return np.array(units)


def _gain(points: Array) -> float:
    """Bits for each value that PCA over the variables saves at high rates, (V, n) values in tolerances."""
    cov = np.cov(points) + np.eye(len(points)) / 12
    return float(np.log2(np.diag(cov)).mean() - np.linalg.slogdet(cov)[1] / len(cov) / np.log(2)) / 2
