# SPDX-License-Identifier: MIT
"""Geometry only: chunks, tiles, hyper-blocks and blocks of a grid, padding, and the exact inverse."""

from hbae.blocks.fill import fill_invalid
from hbae.blocks.geometry import (
    MAX_RANK,
    MAX_VALUES,
    Geometry,
    block_sums,
    join_blocks,
    join_tiles,
    split_blocks,
    split_tiles,
)
from hbae.blocks.presets import PRESETS, Preset, choose_preset, plan_geometry

__all__ = [
    "MAX_RANK",
    "MAX_VALUES",
    "PRESETS",
    "Geometry",
    "Preset",
    "block_sums",
    "choose_preset",
    "fill_invalid",
    "join_blocks",
    "join_tiles",
    "plan_geometry",
    "split_blocks",
    "split_tiles",
]
