# SPDX-License-Identifier: MIT
"""What a decoder must know of a group of variables on one grid, and its stored form."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, cast, get_args

import numpy as np

from hbae.arrays import Array, plain_dtype
from hbae.blocks import Geometry
from hbae.codecs import ByteReader, ByteWriter, pack, unpack, unpack_json
from hbae.codecs.related import Relation
from hbae.config import ErrorBound
from hbae.container import decode_transform, encode_transform
from hbae.errors import FormatError, ModelMismatchError
from hbae.exact import BlockDecoder, Transform, Wavelet

_MAX_DOC = 64 << 20
_NUMBERS = ("low", "high", "span", "offset", "unit", "gae_unit", "point_unit")


@dataclass(frozen=True)
class Levels:
    """Multilevel interpolation of the point stage: order of grid axes, cubic or linear.

    And steps by level (2**-6 units).
    """

    order: tuple[int, ...]
    cubic: bool
    steps: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.steps or any(not 1 <= s <= 1 << 20 for s in self.steps) or len(set(self.order)) != len(self.order):
            raise FormatError("levels: malformed")

    def step(self, level: int) -> int:
        """Step of a level; the last one listed serves all coarser ones."""
        return self.steps[min(level, len(self.steps) - 1)]


@dataclass(frozen=True, kw_only=True)
class GroupPlan:
    """Everything that turns a chunk's integers into values for V variables of one grid and type.

    ``domain``: ``linear``, or ``log`` (ordered integers of the IEEE bits). ``low``, ``high``: (V,) clip of decoded
    values. ``span``: (V,) the range that bounds refer to. ``offset``: (V,) value where no base is used. ``unit``,
    ``gae_unit``, ``point_unit``: (V,) steps of the three correctors, in the variables' units. ``packing``: (scale,
    offset) or None for each variable. ``diff_axes``: grid axes along which the point stage is differenced. ``mix``:
    basis over the variables for the point stage, or None. ``levels``: the point stage by interpolation instead of
    differences, or None. ``wavelet``: the point stage by wavelets, or None. ``related``: what variables tell of each
    other's wavelet coefficients. ``model``: SHA-256 of the decoder or None.
    ``limits``: smallest and largest value by variable in the log domain, where ``low`` and ``high`` are magnitudes;
    None where these say all.
    """

    paths: tuple[str, ...]
    dtype: np.dtype[Any]
    geometry: Geometry
    domain: str
    bounds: tuple[tuple[ErrorBound, ...], ...]
    low: Array
    high: Array
    span: Array
    offset: Array
    unit: Array
    gae_unit: Array
    point_unit: Array
    packing: tuple[tuple[float, float] | None, ...]
    diff_axes: tuple[int, ...] = ()
    transform: Transform | None = None
    gae: Transform | None = None
    mix: Transform | None = None
    levels: Levels | None = None
    wavelet: Wavelet | None = None
    related: Relation = ""
    model: str | None = None
    decoder: BlockDecoder | None = None
    limits: tuple[tuple[float, float], ...] | None = None

    def __post_init__(self) -> None:
        v = len(self.paths)
        if v < 1 or len(self.packing) != v or len(self.bounds) != v or self.domain not in ("linear", "log"):
            raise FormatError("group: number of variables or domain is wrong")
        for name in _NUMBERS:
            a = getattr(self, name)
            if a.shape != (v,) or not np.isfinite(a).all():
                raise FormatError(f"group: {name} is malformed")
        g = self.geometry
        if not g.shape:
            raise FormatError("group: a grid without axes")
        if self.transform is not None and self.transform.tile != (v, *g.tile):
            raise FormatError("group: the transform does not fit the tile")
        if self.gae is not None and self.gae.tile != (v, *g.block):
            raise FormatError("group: the block basis does not fit the block")
        if self.mix is not None and self.mix.tile != (v,):
            raise FormatError("group: the mixing basis does not fit the variables")
        d = self.decoder
        if d is not None and (d.num_blocks, d.points, d.num_variables) != (g.num_blocks, g.points, v):
            raise FormatError("group: the model does not fit the blocks")
        if self.wavelet is not None and (self.levels is not None or self.wavelet.rank != len(g.shape)):
            raise FormatError("group: the wavelet does not fit the grid, or another predictor is there too")
        if self.related and self.wavelet is None:
            raise FormatError("group: related variables without a wavelet")
        if self.domain == "log" and (self.levels is not None or self.wavelet is not None or self.mix is not None):
            raise FormatError("group: the log domain knows differences only")
        if self.limits is not None and (self.domain != "log" or len(self.limits) != v or not _rising(self.limits)):
            raise FormatError("group: limits are malformed")
        if any(not 0 <= a < len(g.shape) for a in self.diff_axes):
            raise FormatError("group: difference along an axis that does not exist")

    @property
    def num_variables(self) -> int:
        """V."""
        return len(self.paths)

    @property
    def steps(self) -> Array:
        """Steps of the stage that errors follow: single points, else coefficients."""
        return self.point_unit if self.point_unit.any() else self.unit

    @property
    def ties_variables(self) -> bool:
        """Whether a basis over the variables ties their errors together."""
        return self.mix is not None or (self.transform is not None and self.transform.axes[0].matrix is not None)

    @property
    def corrects_points(self) -> bool:
        """Whether the block stage has no basis: behind wavelets its integers correct single points."""
        gae = self.gae
        return self.wavelet is not None and gae is not None and all(a.matrix is None for a in gae.axes)

    @property
    def predicts(self) -> bool:
        """Whether the point stage's integers come in units of 2**-6: from interpolation or wavelets."""
        return self.levels is not None or self.wavelet is not None


def finer_steps(plan: GroupPlan, fine: int) -> GroupPlan:
    """Give the plan of a chunk of that fineness (0 to 255): unit and point_unit times (256 - fine) / 256.

    Not for the log domain: its steps are integers.
    """
    if fine == 0:
        return plan
    factor = (256 - fine) / 256
    return replace(plan, unit=plan.unit * factor, point_unit=plan.point_unit * factor)


def _relation(doc: dict[str, Any]) -> Relation:
    if "related" not in doc:
        return ""
    for known in get_args(Relation):
        if known and doc["related"] == known:
            return cast("Relation", known)
    raise FormatError("group section: an unknown relation of variables")


def _bounds_of(doc: dict[str, Any], count: int) -> tuple[tuple[ErrorBound, ...], ...]:
    regions = doc.get("regions") or [[]] * count
    return tuple(
        (*(ErrorBound(str(k), float(x)) for k, x in bs), *(ErrorBound(str(k), float(x), str(n)) for k, x, n in rs))
        for bs, rs in zip(doc["bounds"], regions, strict=True)
    )


def _rising(pairs: tuple[tuple[float, float], ...]) -> bool:
    return all(-math.inf < low <= high < math.inf for low, high in pairs)


def encode_plan(plan: GroupPlan) -> bytes:
    """Encode a plan as a section (the decoder is a section of its own)."""
    doc: dict[str, Any] = {
        "vars": plan.paths,
        "dtype": plan.dtype.str,
        "geometry": plan.geometry.to_json(),
        "domain": plan.domain,
        "bounds": [[[b.kind, b.value] for b in bs if b.region is None] for bs in plan.bounds],
        "packing": plan.packing,
        "diff": plan.diff_axes,
        "levels": None if plan.levels is None else [plan.levels.order, plan.levels.cubic, plan.levels.steps],
        "wavelet": None if plan.wavelet is None else plan.wavelet.groups,
        "model": plan.model,
        "transform": plan.transform is not None,
        "gae": plan.gae is not None,
        "mix": plan.mix is not None,
    }
    if plan.related:
        doc["related"] = plan.related
    if plan.limits is not None:
        doc["limits"] = plan.limits
    regions = [[[b.kind, b.value, b.region] for b in bs if b.region is not None] for bs in plan.bounds]
    if any(regions):
        doc["regions"] = regions
    w = ByteWriter()
    w.raw(pack(json.dumps(doc, separators=(",", ":"), ensure_ascii=False).encode(), 19))
    numbers = np.stack([np.asarray(getattr(plan, n), "<f8") for n in _NUMBERS])
    w.raw(pack(np.ascontiguousarray(numbers).astype("<f8").tobytes(), 19))
    for t in (plan.transform, plan.gae, plan.mix):
        if t is not None:
            w.part(encode_transform(t))
    return w.getvalue()


def decode_plan(data: bytes, find_model: Callable[[str], BlockDecoder]) -> GroupPlan:
    """Undo :func:`encode_plan`; ``find_model`` gives a decoder by its SHA-256.

    Raises
    ------
    FormatError
        When the section is damaged or hostile.
    """
    r = ByteReader(data)
    try:
        doc = unpack_json(r, _MAX_DOC, "group section")
        paths = tuple(str(p) for p in doc["vars"])
        raw = unpack(r, len(_NUMBERS) * 8 * max(1, len(paths)))
        numbers = np.frombuffer(raw, "<f8").astype(np.float64).reshape(len(_NUMBERS), len(paths))
        transform = decode_transform(r.part()) if doc["transform"] else None
        gae = decode_transform(r.part()) if doc["gae"] else None
        mix = decode_transform(r.part()) if doc["mix"] else None
        r.end()
        levels = None
        if doc["levels"] is not None:
            order, cubic, steps = doc["levels"]
            levels = Levels(tuple(int(a) for a in order), bool(cubic), tuple(int(n) for n in steps))
        wavelet = None
        if doc["wavelet"] is not None:
            wavelet = Wavelet(tuple(tuple(int(a) for a in g) for g in doc["wavelet"]))
        return GroupPlan(
            paths=paths,
            dtype=plain_dtype(doc["dtype"]),
            geometry=Geometry.from_json(doc["geometry"]),
            domain=str(doc["domain"]),
            bounds=_bounds_of(doc, len(paths)),
            packing=tuple(None if p is None else (float(p[0]), float(p[1])) for p in doc["packing"]),
            diff_axes=tuple(int(a) for a in doc["diff"]),
            transform=transform,
            gae=gae,
            mix=mix,
            levels=levels,
            wavelet=wavelet,
            related=_relation(doc),
            model=doc["model"],
            limits=None if doc.get("limits") is None else tuple((float(a), float(b)) for a, b in doc["limits"]),
            decoder=None if doc["model"] is None else find_model(str(doc["model"])),
            **dict(zip(_NUMBERS, numbers, strict=True)),
        )
    except (FormatError, ModelMismatchError):
        raise
    except (KeyError, TypeError, ValueError, IndexError, OverflowError) as e:
        raise FormatError(f"group section is malformed: {e!r}") from e
