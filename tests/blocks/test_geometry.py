# SPDX-License-Identifier: MIT
"""Cutting and joining grids is exact, and every geometry that is planned can be cut."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hbae.blocks import (
    Geometry,
    block_sums,
    choose_preset,
    fill_invalid,
    join_blocks,
    join_tiles,
    plan_geometry,
    split_blocks,
    split_tiles,
)
from hbae.errors import ConfigError, FormatError

AXIS = st.tuples(st.integers(1, 13), st.integers(1, 5), st.integers(1, 3))


@settings(max_examples=120)
@given(axes=st.lists(AXIS, max_size=4), v=st.integers(1, 3))
def test_blocks_and_tiles_come_back(axes: list[tuple[int, int, int]], v: int) -> None:
    grid = tuple(n for n, _, _ in axes)
    g = Geometry(
        shape=grid, block=tuple(b for _, b, _ in axes), hyper=tuple(h for _, _, h in axes), tile=(1,) * len(axes),
        chunk=grid,
    )  # fmt: skip
    x = np.arange(v * int(np.prod(grid)), dtype=float).reshape(v, *grid)
    y = split_blocks(x, g)
    assert y.shape[1:] == (g.num_blocks, g.points, v)
    assert np.array_equal(join_blocks(y, g, grid), x)
    assert np.array_equal(join_tiles(split_tiles(x, g.block), grid), x)
    assert set(np.unique(y)) == set(x.ravel()), "padding repeats values, it makes up none"


@settings(max_examples=80)
@given(axes=st.lists(AXIS, min_size=1, max_size=4))
def test_block_sums(axes: list[tuple[int, int, int]]) -> None:
    grid, block = tuple(n for n, _, _ in axes), tuple(b for _, b, _ in axes)
    x = np.random.default_rng(0).integers(0, 99, (2, *grid)).astype(float)
    want = np.zeros((2, *(-(-n // b) for n, b in zip(grid, block, strict=True))))
    for index in np.ndindex(*grid):
        want[(slice(None), *(i // b for i, b in zip(index, block, strict=True)))] += x[(slice(None), *index)]
    assert np.array_equal(block_sums(x, block), want)


@settings(max_examples=200)
@given(
    shape=st.lists(st.sampled_from([1, 2, 7, 31, 64, 129, 720, 1440]), max_size=6).map(tuple),
    v=st.integers(1, 60),
    itemsize=st.sampled_from([2, 4, 8]),
    mib=st.sampled_from([0.0625, 1.0, 16.0]),
    block=st.none() | st.lists(st.integers(1, 9), min_size=6, max_size=6),
)
def test_planned_geometries(shape: tuple[int, ...], v: int, itemsize: int, mib: float, block: list[int] | None) -> None:
    given_block = None if block is None else tuple(block[: len(shape)])
    preset = choose_preset("auto", shape, v)
    g = plan_geometry(shape, v, itemsize, preset, block=given_block, chunk_mib=mib)
    for n, b, e, t, c in zip(shape, g.block, g.extent, g.tile, g.chunk, strict=True):
        assert 1 <= b <= n
        assert given_block is None or g.block == tuple(min(a, m) for a, m in zip(given_block, shape, strict=True))
        if c < n:
            assert c % e == 0, "a chunk is whole hyper-blocks"
            assert c % t == 0, "a chunk is whole tiles"
    if np.prod(shape, dtype=object) < 1 << 24:
        boxes = g.chunks()
        assert len(boxes) == g.num_chunks
        assert sum(int(np.prod([s.stop - s.start for s in box])) for box in boxes) == int(np.prod(shape))
    assert Geometry.from_json(g.to_json()) == g


def test_geometries_that_make_no_sense() -> None:
    with pytest.raises(FormatError):
        Geometry(shape=(4,), block=(0,), hyper=(1,), tile=(1,), chunk=(4,))
    with pytest.raises(FormatError):
        Geometry(shape=(4,), block=(1, 1), hyper=(1,), tile=(1,), chunk=(4,))
    with pytest.raises(ConfigError, match="axes"):
        plan_geometry((4, 4), 1, 4, choose_preset("auto", (4, 4), 1), block=(2,))
    with pytest.raises(ConfigError, match="unknown"):
        choose_preset("abc", (4, 4), 1)
    with pytest.raises(ConfigError, match="axes"):
        choose_preset("s3d", (4, 4), 1)


@settings(max_examples=60)
@given(
    shape=st.lists(st.integers(1, 9), max_size=4), share=st.sampled_from([0.0, 0.3, 0.9, 1.0]), seed=st.integers(0, 99)
)
def test_filling_keeps_valid_points_and_stays_within_them(shape: list[int], share: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(2, *shape))
    valid = rng.random(x.shape) >= share
    dirty = np.where(valid, x, np.nan)
    out = fill_invalid(dirty, valid)
    assert np.array_equal(out[valid], x[valid])
    assert np.isfinite(out).all()
    for v in range(2):
        low, high = (x[v][valid[v]].min(), x[v][valid[v]].max()) if valid[v].any() else (0.0, 0.0)
        assert (out[v] >= low - 1e-12).all()
        assert (out[v] <= high + 1e-12).all()
    assert fill_invalid(dirty, valid).tobytes() == out.tobytes()
