# SPDX-License-Identifier: MIT
"""A seeded sample of a group's boxes, for calibration and for training."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from hbae.arrays import Array, Box, boxes_of
from hbae.blocks import Geometry
from hbae.pipeline.inputs import Inputs
from hbae.pipeline.plan import GroupPlan
from hbae.pipeline.stats import Validity

SAMPLE_BYTES = 40 << 20
WHOLE_POINTS = 1 << 20
# A box holds at least so many points, and so many values of all variables.
_CELL_POINTS, _CELL_VALUES = 1 << 13, 1 << 17
# Longest first axis that may get a basis of its own.
MOST_WHOLE = 1024
# From that part of a variable's points on a value is common; how many of them are looked at.
_COMMON, _OFFSET_POINTS = 0.05, 1 << 17
# A box that varies less than that part of the busiest one is no measure for plans.
_QUIET = 0.1


@dataclass(frozen=True)
class Sample:
    """Boxes of a group: stored values (V, *box), invalid points, and the group's size over the sample's.

    ``chunk``: one whole chunk as a sample of its own, on which the finalists meet (predictors want room). ``columns``:
    boxes that hold the first axis from end to end, where a basis of all of it is worth trying. ``places``: where the
    boxes lie.
    """

    boxes: list[tuple[Array, Array]]
    ratio: float
    chunk: Sample | None = None
    columns: Sample | None = None
    places: tuple[Box, ...] = ()

    @property
    def whole(self) -> bool:
        """Tell whether it is the whole group."""
        return self.ratio < 1.01


def take_sample(
    draft: GroupPlan, inputs: Inputs, validity: list[Validity], seed: int, *, columns: bool = False
) -> Sample:
    """Read all of a small group, or seeded boxes of whole tiles spread over a large one; ``columns``: those too."""
    geometry = draft.geometry
    total = int(np.prod(geometry.shape, dtype=object)) * draft.num_variables * draft.dtype.itemsize
    whole = draft.num_variables * int(np.prod(geometry.chunk, dtype=object)) <= WHOLE_POINTS
    boxes = list(boxes_of(geometry.shape, geometry.chunk if whole else _cell(geometry, draft.num_variables)))
    if total <= SAMPLE_BYTES:
        np.random.default_rng(seed).shuffle(boxes)
    else:
        boxes = _spread(boxes, total, seed, SAMPLE_BYTES)
    sample = _read(draft, inputs, validity, boxes)
    whole_chunks = [b for b in geometry.chunks() if [k.stop - k.start for k in b] == _first_lengths(geometry)]
    one = whole_chunks[int(np.random.default_rng(seed).integers(len(whole_chunks)))]
    chunk = _read(draft, inputs, validity, [one])
    *of_boxes, of_chunk = _activity([*sample.boxes, *chunk.boxes])
    top = int(np.argmax(of_boxes))
    if of_boxes[0] < _QUIET * of_boxes[top]:
        sample = _with_first(sample, top)
    if of_chunk < _QUIET * of_boxes[top]:
        chunk = _read(draft, inputs, validity, [_chunk_at(geometry, [k.start for k in sample.places[0]])])
    tall = None
    if columns and _has_columns(geometry):
        places = _columns(geometry, draft.num_variables)
        tall = _read(draft, inputs, validity, _spread(places, total, seed, SAMPLE_BYTES))
    return replace(sample, chunk=chunk, columns=tall)


def offsets_of(sample: Sample, draft: GroupPlan) -> tuple[Array, Array]:
    """Give, for each variable, the value that its coder takes for 0, and the value next to its mean, for bases.

    The first is a common value if there is one: where a field is at rest it comes back as it is. Bases over variables
    have directions through the means.
    """
    found = [_offsets(sample, draft, v) for v in range(draft.num_variables)]
    return np.array([rest for rest, _ in found]), np.array([near for _, near in found])


def _offsets(sample: Sample, draft: GroupPlan, v: int) -> tuple[float, float]:
    flat = np.concatenate([raw[v][~bad[v]] for raw, bad in sample.boxes])
    if flat.size > _OFFSET_POINTS:
        # Anywhere: even steps may meet the same column of every row.
        flat = flat[np.random.default_rng(0).integers(0, flat.size, _OFFSET_POINTS)]
    if not flat.size:
        return float(draft.offset[v]), float(draft.offset[v])
    scale, shift = draft.packing[v] or (1.0, 0.0)
    values, counts = np.unique(flat, return_counts=True)
    with np.errstate(all="ignore"):
        mean = float(flat.mean(dtype=np.float64))
        # A value of the data: many are multiples of something.
        near = float(values[np.abs(values.astype(np.float64) - mean).argmin()])
    top = int(counts.argmax())
    rest = float(values[top]) if counts[top] >= _COMMON * flat.size else near
    return rest * scale + shift, near * scale + shift


def _activity(boxes: list[tuple[Array, Array]]) -> list[float]:
    """How much happens in each box: its variances over the largest of each variable, summed."""
    with np.errstate(all="ignore"):
        found = np.nan_to_num(np.array([_variances(*box) for box in boxes]), posinf=0.0)
    out: list[float] = (found / np.maximum(found.max(axis=0), 1e-300)).sum(axis=1).tolist()
    return out


def _variances(raw: Array, invalid: Array) -> Array:
    """Variance of the valid points of each variable."""
    rows = (x[~bad].astype(np.float64) for x, bad in zip(raw, invalid, strict=True))
    return np.array([x.var() if x.size else 0.0 for x in rows])


def _with_first(sample: Sample, i: int) -> Sample:
    """Put a box in front."""
    order = [i, *(k for k in range(len(sample.boxes)) if k != i)]
    return replace(sample, boxes=[sample.boxes[k] for k in order], places=tuple(sample.places[k] for k in order))


def _chunk_at(geometry: Geometry, point: list[int]) -> Box:
    """Give the chunk that holds a point."""
    begins = [p // c * c for p, c in zip(point, geometry.chunk, strict=True)]
    return tuple(slice(b, min(b + c, n)) for b, c, n in zip(begins, geometry.chunk, geometry.shape, strict=True))


def _first_lengths(geometry: Geometry) -> list[int]:
    """Lengths of the first chunk: no other is longer."""
    return [min(n, c) for n, c in zip(geometry.shape, geometry.chunk, strict=True)]


def few_boxes(boxes: list[tuple[Array, Array]], points: int) -> list[tuple[Array, Array]]:
    """Give the first boxes up to a number of points, one at least."""
    ends = np.cumsum([x.size for x, _ in boxes])
    return boxes[: max(1, int(np.searchsorted(ends, points, side="right")))]


def whole_axis(geometry: Geometry) -> Geometry:
    """Give the geometry with tiles and chunks that hold the first axis from end to end."""
    n = geometry.shape[0]
    return replace(geometry, tile=(n, *geometry.tile[1:]), chunk=(n, *geometry.chunk[1:]))


def _has_columns(geometry: Geometry) -> bool:
    """Tell whether a chunk holds the first axis, tiles cut it, and a basis of it is no larger than it can be worth."""
    n = geometry.shape[0]
    return len(geometry.shape) > 1 and geometry.tile[0] < n <= min(geometry.chunk[0], MOST_WHOLE)


def _columns(geometry: Geometry, variables: int) -> list[Box]:
    return list(boxes_of(geometry.shape, (geometry.shape[0], *_cell(geometry, variables)[1:])))


def _read(draft: GroupPlan, inputs: Inputs, validity: list[Validity], boxes: list[Box]) -> Sample:
    taken = []
    points = 0
    for box in boxes:
        raw = inputs.read(draft.paths, box)
        invalid = np.stack([k.invalid(raw[v]) for v, k in enumerate(validity)])
        taken.append((raw, invalid))
        points += raw[0].size
    return Sample(taken, int(np.prod(draft.geometry.shape, dtype=object)) / points, places=tuple(boxes))


def _cell(geometry: Geometry, variables: int) -> tuple[int, ...]:
    """Whole tiles, at least 32 points long where the chunk has them: predictors need room to show their worth.

    And many values where the chunk has them: each box costs time of its own, and tables that a chunk would share.
    """
    least = max(_CELL_POINTS, _CELL_VALUES // variables)
    pairs = list(zip(geometry.tile, geometry.chunk, strict=True))
    cell = [t * max(1, min(-(-32 // t), c // t)) for t, c in pairs]
    while math.prod(cell) < least:
        room = [a for a, (_, c) in enumerate(pairs) if 2 * cell[a] <= c]
        if not room:
            break
        shortest = min(room, key=lambda a: cell[a])
        cell[shortest] *= 2
    return tuple(cell)


def _spread(boxes: list[Box], total: int, seed: int, most: int) -> list[Box]:
    """One random box out of each of equal runs of the grid's boxes."""
    count = max(4, int(len(boxes) * min(1.0, most / total)))
    edges = np.linspace(0, len(boxes), min(count, len(boxes)) + 1).astype(int)
    rng = np.random.default_rng(seed)
    picked = [int(rng.integers(a, b)) for a, b in pairwise(edges) if b > a]
    rng.shuffle(picked)
    return [boxes[i] for i in picked]


def sample_hyper_blocks(
    draft: GroupPlan, inputs: Inputs, validity: list[Validity], *, most_bytes: int, seed: int
) -> tuple[Array, Array]:
    """Give seeded hyper-blocks (N, K, P, V) float32 in physical units, filled, and which points are valid."""
    from hbae.blocks import fill_invalid, split_blocks
    from hbae.pipeline.original import physical

    geometry = draft.geometry
    cell = tuple(min(n, e * max(1, 8 // max(1, e // 4))) for n, e in zip(geometry.shape, geometry.extent, strict=True))
    cell = tuple(-(-c // e) * e for c, e in zip(cell, geometry.extent, strict=True))
    boxes = list(boxes_of(geometry.shape, cell))
    np.random.default_rng(seed).shuffle(boxes)
    xs, oks, nbytes = [], [], 0
    for box in boxes:
        raw = inputs.read(draft.paths, box)
        invalid = np.stack([k.invalid(raw[v]) for v, k in enumerate(validity)])
        x = fill_invalid(physical(raw, draft), ~invalid)
        xs.append(split_blocks(x, geometry).astype(np.float32))
        oks.append(split_blocks(~invalid, geometry))
        nbytes += xs[-1].nbytes
        if nbytes > most_bytes:
            break
    return np.concatenate(xs), np.concatenate(oks)
