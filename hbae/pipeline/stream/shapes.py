# SPDX-License-Identifier: MIT
"""How many steps a chunk in time holds, and geometries whose chunks and blocks divide that number."""

from __future__ import annotations

from dataclasses import replace

from hbae.blocks import Geometry, choose_preset, plan_geometry
from hbae.errors import ConfigError
from hbae.pipeline.groups import check_geometry
from hbae.pipeline.options import CompressOptions

# Numbers with many divisors: blocks of different lengths divide them.
_STEPS = (60, 30, 12, 6)
_SLAB_CHUNKS = 8


def slab_steps(step_bytes: int, unit: int, options: CompressOptions, asked: int | None) -> int:
    """Choose how many steps are coded together: as asked, else up to 60 while they fit 8 times ``options.chunk``.

    ``unit``: steps that a model's hyper-block covers (1 without a model); the number is a multiple of it.

    Raises
    ------
    ConfigError
        When the number asked for is no positive multiple of ``unit``.
    """
    if asked is not None:
        if asked < 1 or asked % unit:
            raise ConfigError(f"steps: must be a positive multiple of {unit}")
        return asked
    if options.block is not None and unit == 1:
        unit = options.block[0]
    room = _SLAB_CHUNKS * options.chunk * (1 << 20)
    fitting = next((n for n in _STEPS if n * step_bytes <= room), _STEPS[-1])
    return unit * max(1, fitting // unit) if unit > 1 else fitting


def slab_geometry(shape: tuple[int, ...], num_variables: int, itemsize: int, options: CompressOptions) -> Geometry:
    """Plan the geometry of a slab (first axis: its steps).

    Raises
    ------
    ConfigError
        When preset or block do not fit.
    """
    preset = choose_preset(options.preset, shape, num_variables)
    block = options.block or preset.block
    if len(block) == len(shape):
        if options.block is not None and shape[0] % block[0]:
            raise ConfigError(f"block {block}: {shape[0]} steps of a slab are no multiple of {block[0]}")
        block = (_divisor(shape[0], block[0], 1), *block[1:])
    hyper = (1, *preset.hyper[1:])
    g = plan_geometry(
        shape, num_variables, itemsize, replace(preset, hyper=hyper), block=block, chunk_mib=options.chunk
    )
    g = even_chunks(g)
    check_geometry(g, num_variables)
    return g


def even_chunks(g: Geometry) -> Geometry:
    """Shorten chunks and tiles along time so that they divide the slab; blocks and hyper-blocks divide it already."""
    steps, unit = g.shape[0], g.extent[0]
    chunk = _divisor(steps, g.chunk[0], unit)
    tile = _divisor(chunk, g.tile[0], 1)
    return replace(g, chunk=(chunk, *g.chunk[1:]), tile=(tile, *g.tile[1:]))


def _divisor(whole: int, most: int, unit: int) -> int:
    """Give the largest divisor of ``whole`` that is a multiple of ``unit`` and at most ``most``, or ``unit``."""
    return next((n for n in range(min(most, whole), unit - 1, -1) if whole % n == 0 and n % unit == 0), unit)
