# SPDX-License-Identifier: MIT
"""Block shapes by kind of data, and a geometry for any grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from hbae.blocks.geometry import MAX_VALUES, Geometry
from hbae.errors import ConfigError

MIB = 1 << 20


@dataclass(frozen=True)
class Preset:
    """Block and hyper-block by trailing grid axes; ``hyper`` counts blocks.

    ``s3d``: all species of a 5 x 4 x 4 block, 10 blocks in time; ``e3sm``: 6 x 16 x 16, 5 in time; ``xgc``:
    39 x 39 velocity grid, the planes (up to 8) of a node (the shapes of the paper's data sets, hbae_paper.md 1.1).
    """

    name: str
    block: tuple[int, ...]
    hyper: tuple[int, ...]


PRESETS = {
    "s3d": Preset("s3d", (5, 4, 4), (10, 1, 1)),
    "e3sm": Preset("e3sm", (6, 16, 16), (5, 1, 1)),
    "e3sm-ncol": Preset("e3sm-ncol", (6, 64), (5, 1)),
    "xgc": Preset("xgc", (1, 1, 39, 39), (8, 1, 1, 1)),
}
_GENERIC = {0: (), 1: (64,), 2: (8, 8), 3: (4, 8, 8), 4: (4, 4, 4, 4)}


def choose_preset(name: str, shape: Sequence[int], num_variables: int) -> Preset:
    """Give the preset of that name, or for ``auto`` one that fits number of variables and grid.

    Raises
    ------
    ConfigError
        When the name is unknown or the preset does not fit the rank.
    """
    rank = len(shape)
    if name == "e3sm" and rank == 2:
        name = "e3sm-ncol"
    if name in PRESETS:
        p = PRESETS[name]
        if rank < len(p.block):
            raise ConfigError(f"preset {name} needs at least {len(p.block)} grid axes, the variables have {rank}")
        lead = rank - len(p.block)
        return Preset(name, (1,) * lead + p.block, (1,) * lead + p.hyper)
    if name != "auto":
        raise ConfigError(f"preset: unknown name {name!r}; known: auto, s3d, e3sm, xgc")
    if rank == 3 and num_variables >= 8:
        return PRESETS["s3d"]
    if rank == 4 and shape[-2] == shape[-1] and 16 <= shape[-1] <= 64 and shape[0] <= 64:
        return Preset("xgc", (1, 1, shape[-2], shape[-1]), (min(8, shape[0]), 1, 1, 1))
    if rank == 3 and shape[1] * shape[2] >= 32 * 32:
        return PRESETS["e3sm"]
    tail = _GENERIC[min(rank, 4)]
    block = (1,) * (rank - len(tail)) + tail
    return Preset("auto", block, (1,) * rank)


def plan_geometry(
    shape: tuple[int, ...],
    num_variables: int,
    itemsize: int,
    preset: Preset,
    *,
    block: tuple[int, ...] | None = None,
    chunk_mib: float = 32,
    padded: bool = False,
) -> Geometry:
    """Give a geometry whose chunks hold whole tiles and hyper-blocks and decode to about ``chunk_mib``.

    Chunks hold at most 2**24 values unless a single hyper-block holds more. ``padded``: blocks and hyper-blocks keep
    their lengths on axes that are shorter.

    Raises
    ------
    ConfigError
        When a given block does not fit the rank.
    """
    rank = len(shape)
    if block is not None and (len(block) != rank or any(b < 1 for b in block)):
        raise ConfigError(f"block {block}: the variables have {rank} axes, each needs a length of at least 1")
    sizes = block or preset.block
    budget = max(1, min(int(chunk_mib * MIB) // itemsize, MAX_VALUES) // num_variables)
    while True:
        g = _cut(shape, sizes, preset.hyper, budget, num_variables >= 8)
        if padded:
            g = replace(g, block=sizes, hyper=preset.hyper)
        if budget == 1 or g.padded(g.chunk) * num_variables <= MAX_VALUES:
            return g
        budget //= 2


def _cut(shape: tuple[int, ...], sizes: tuple[int, ...], hypers: tuple[int, ...], budget: int, many: bool) -> Geometry:
    """Cut a grid into chunks of about ``budget`` points."""
    cell = tuple(min(b, n) for b, n in zip(sizes, shape, strict=True))
    hyper = tuple(max(1, min(h, -(-n // b))) for h, n, b in zip(hypers, shape, cell, strict=True))
    extent = tuple(c * h for c, h in zip(cell, hyper, strict=True))
    plain = (1,) * len(shape)
    tile = _tile(shape, plain, many, budget)
    chunk = _chunk(shape, tile, budget)
    # An axis that chunks cut needs whole hyper-blocks per tile; an axis inside one chunk takes equal parts.
    units = tuple(1 if c >= n else e for c, n, e in zip(chunk, shape, extent, strict=True))
    if units != plain:
        tile = _tile(shape, units, many, budget)
        chunk = _chunk(shape, tile, budget)
        chunk = tuple(c if c >= n else -(-c // e) * e for c, n, e in zip(chunk, shape, extent, strict=True))
        tile = tuple(t if c % t == 0 else e for t, c, e in zip(tile, chunk, extent, strict=True))
    return Geometry(shape=shape, block=cell, hyper=hyper, tile=tile, chunk=chunk)


def _chunk(shape: tuple[int, ...], tile: tuple[int, ...], budget: int) -> tuple[int, ...]:
    """Grow the shortest axis tile by tile: compact chunks predict better than flat ones."""
    chunk = list(tile)
    while True:
        points = int(np.prod(chunk, dtype=object))
        open_axes = [
            a for a, n in enumerate(shape) if chunk[a] < n and points // chunk[a] * (chunk[a] + tile[a]) <= budget
        ]
        if not open_axes:
            return tuple(chunk)
        axis = min(reversed(open_axes), key=lambda a: chunk[a])
        chunk[axis] += tile[axis]


def _tile(shape: tuple[int, ...], units: tuple[int, ...], many: bool, budget: int) -> tuple[int, ...]:
    """Tile lengths: short axes whole, long ones in equal parts, multiples of ``units``."""
    rank = sum(n > 1 for n in shape)
    ideal = {0: 1, 1: 512, 2: 64}.get(rank, 16 if many else 32)
    tile = []
    for n, u in zip(shape, units, strict=True):
        length = n if n <= 64 and u == 1 else -(-n // -(-n // ideal))
        tile.append(max(u, -(-length // u) * u))
    while int(np.prod(tile, dtype=object)) > budget:
        spare = [t // u for t, u in zip(tile, units, strict=True)]
        axis = int(np.argmax(spare))
        if spare[axis] < 2:
            break
        tile[axis] = units[axis] * -(-spare[axis] // 2)
    return tuple(tile)
