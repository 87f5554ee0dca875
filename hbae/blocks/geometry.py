# SPDX-License-Identifier: MIT
"""How a grid is cut. A chunk is a box of whole tiles and hyper-blocks; arrays have the variables as first axis."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from hbae.arrays import Array, Box, boxes_of
from hbae.errors import FormatError

MAX_RANK = 32
# Values of all variables of a chunk, padded: decoding takes up to some 90 bytes for each.
MAX_VALUES = 1 << 24


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """Lengths along each grid axis (the variable axis is apart).

    ``shape``: the grid. ``block``: points of a block. ``hyper``: blocks of a hyper-block. ``tile``: points of a
    transform tile. ``chunk``: points of a chunk.
    """

    shape: tuple[int, ...]
    block: tuple[int, ...]
    hyper: tuple[int, ...]
    tile: tuple[int, ...]
    chunk: tuple[int, ...]

    def __post_init__(self) -> None:
        parts = (self.block, self.hyper, self.tile, self.chunk)
        if len(self.shape) > MAX_RANK or any(len(p) != len(self.shape) for p in parts):
            raise FormatError("geometry: ranks differ or exceed 32")
        if any(n < 1 for p in (*parts, self.shape) for n in p):
            raise FormatError("geometry: every length must be at least 1")

    @property
    def points(self) -> int:
        """P, points of a block (of one variable)."""
        return int(np.prod(self.block, dtype=object))

    @property
    def num_blocks(self) -> int:
        """K, blocks of a hyper-block."""
        return int(np.prod(self.hyper, dtype=object))

    @property
    def extent(self) -> tuple[int, ...]:
        """Points that a hyper-block covers along each axis."""
        return tuple(b * h for b, h in zip(self.block, self.hyper, strict=True))

    def padded(self, grid: tuple[int, ...]) -> int:
        """Points of a box of that shape, rounded up to whole tiles and hyper-blocks."""
        lengths = zip(grid, self.tile, self.extent, strict=True)
        return math.prod(max(t * -(-n // t), e * -(-n // e)) for n, t, e in lengths)

    def chunks(self) -> list[Box]:
        """Boxes of all chunks, in C order."""
        return list(boxes_of(self.shape, self.chunk))

    @property
    def num_chunks(self) -> int:
        """How many chunks there are."""
        return int(np.prod([-(-n // c) for n, c in zip(self.shape, self.chunk, strict=True)], dtype=object))

    def to_json(self) -> dict[str, list[int]]:
        """Give all lengths."""
        return {k: list(getattr(self, k)) for k in ("shape", "block", "hyper", "tile", "chunk")}

    @staticmethod
    def from_json(doc: Mapping[str, Any]) -> Geometry:
        """Undo :meth:`to_json`."""
        try:
            names = ("shape", "block", "hyper", "tile", "chunk")
            return Geometry(**{k: tuple(int(n) for n in doc[k]) for k in names})
        except (KeyError, TypeError, ValueError, OverflowError) as e:
            raise FormatError(f"geometry is malformed: {e!r}") from e


def _pad(x: Array, cell: tuple[int, ...]) -> Array:
    """Repeat the last value along each grid axis up to a multiple of ``cell``."""
    width = [(0, 0)] + [(0, -n % c) for n, c in zip(x.shape[1:], cell, strict=True)]
    return np.pad(x, width, mode="edge") if any(w for _, w in width) else x


def _cells(x: Array, cell: tuple[int, ...]) -> Array:
    """Cut a padded (V, *grid) into (V, n1, c1, n2, c2, ...)."""
    shape = [x.shape[0]]
    for n, c in zip(x.shape[1:], cell, strict=True):
        shape += [n // c, c]
    return x.reshape(shape)


def split_tiles(x: Array, tile: tuple[int, ...]) -> Array:
    """Cut (V, *grid) into tiles (V, B, *tile); edges are padded by their last value."""
    r = len(tile)
    y = _cells(_pad(x, tile), tile)
    y = y.transpose([0] + [1 + 2 * i for i in range(r)] + [2 + 2 * i for i in range(r)])
    return np.ascontiguousarray(y).reshape(x.shape[0], -1, *tile)


def join_tiles(y: Array, grid: tuple[int, ...]) -> Array:
    """Undo :func:`split_tiles` for a box of shape ``grid``."""
    tile, r = y.shape[2:], len(grid)
    counts = [-(-n // t) for n, t in zip(grid, tile, strict=True)]
    z = y.reshape(len(y), *counts, *tile)
    order = [0]
    for i in range(r):
        order += [1 + i, r + 1 + i]
    z = z.transpose(order).reshape(len(y), *(c * t for c, t in zip(counts, tile, strict=True)))
    return z[(slice(None), *(slice(0, n) for n in grid))]


def split_blocks(x: Array, geometry: Geometry) -> Array:
    """Cut (V, *grid) into hyper-blocks of blocks, (N, K, P, V)."""
    r = len(geometry.block)
    y = split_tiles(x, geometry.extent)
    shape = [*y.shape[:2]]
    for h, b in zip(geometry.hyper, geometry.block, strict=True):
        shape += [h, b]
    y = y.reshape(shape)
    y = y.transpose([1] + [2 + 2 * i for i in range(r)] + [3 + 2 * i for i in range(r)] + [0])
    return np.ascontiguousarray(y).reshape(len(y), geometry.num_blocks, geometry.points, x.shape[0])


def join_blocks(y: Array, geometry: Geometry, grid: tuple[int, ...]) -> Array:
    """Undo :func:`split_blocks` for a box of shape ``grid``."""
    r, v = len(geometry.block), y.shape[-1]
    z = y.reshape(len(y), *geometry.hyper, *geometry.block, v)
    order = [1 + 2 * r, 0]
    for i in range(r):
        order += [1 + i, 1 + r + i]
    return join_tiles(z.transpose(order).reshape(v, len(y), *geometry.extent), grid)


def block_sums(x: Array, block: tuple[int, ...]) -> Array:
    """Sum (V, *grid) over blocks, giving (V, *block counts); cut edge blocks sum what they have."""
    for axis, b in enumerate(block, start=1):
        if b > 1:
            x = np.add.reduceat(x, np.arange(0, x.shape[axis], b), axis=axis)
    return x
