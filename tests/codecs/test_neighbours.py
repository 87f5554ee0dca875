# SPDX-License-Identifier: MIT
"""Compiled contexts are those of NumPy, every point of a band is in one phase, and bad arguments are refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import hbae.codecs.neighbours as module
from hbae.codecs.neighbours import CLIP, GUIDE_BITS, GUIDES, PHASE_CONTEXTS, Spot, hints_around, phases_of, sizes_of
from hbae.codecs.related import CLASSES, RELATED_CONTEXTS

SHAPES = [(1,), (2,), (7,), (1, 5), (4, 1, 9), (6, 7, 8), (2, 3, 2, 3), (3, 2, 3, 2, 3, 2)]


@pytest.fixture
def compiled(kernel_of: Callable[[ModuleType, str], Any]) -> Any:
    return kernel_of(module, "_neighbours")


@pytest.mark.parametrize("with_kernel", [False, True])
def test_sizes_are_those_of_the_format(with_kernel: bool, compiled: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The formula of docs/format.md: equal to the magnitude below 64, then 48 more for each doubling."""
    monkeypatch.setattr(module, "_neighbours", compiled if with_kernel else None)

    def size(u: int) -> int:
        k = u.bit_length() - 7
        return u if u < 64 else min(CLIP, 64 + 48 * k + (48 * (u - (64 << k)) >> (k + 6)))

    values = [*range(70_000), 1 << 40, (1 << 61) - 1]
    expected = np.array([size(v) for v in values])
    assert np.array_equal(sizes_of(np.array(values)), expected)
    assert np.array_equal(sizes_of(-np.array(values)), expected)
    assert (np.diff(expected) >= 0).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_every_point_lies_in_one_phase(shape: tuple[int, ...]) -> None:
    seen = np.zeros((2, *shape), int)
    for p in phases_of(shape):
        seen[p.target] += 1
    assert (seen == 1).all()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("with_hints", [False, True])
def test_compiled_contexts_are_those_of_numpy(
    shape: tuple[int, ...], with_hints: bool, compiled: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(3)
    known = np.zeros((3, *(n + 2 for n in shape)), np.uint16)
    inside = (slice(None), *(slice(1, -1) for _ in shape))
    known[inside] = np.where(rng.random((3, *shape)) < 0.3, CLIP, rng.integers(0, 30, (3, *shape)))
    hints = None
    if with_hints:
        means = np.where(rng.random((3, *shape)) < 0.3, 16 * CLIP, rng.integers(0, 90, (3, *shape)))
        hints = (means << GUIDE_BITS | rng.integers(0, GUIDES, means.shape)).astype(np.uint16)
    for p in phases_of(shape):
        told = rng.integers(0, 2 * CLASSES, 3 * math.prod(p.counts)).astype(np.uint8)
        plain, related, silent = [], [], []
        for kernel in (compiled, None):
            monkeypatch.setattr(module, "_neighbours", kernel)
            plain.append(p.contexts(known, hints))
            related.append(p.contexts(known, hints, CLASSES, told))
            silent.append(p.contexts(known, hints, CLASSES))
        for found in (plain, related, silent):
            assert np.array_equal(*found)
        assert plain[0].max() < PHASE_CONTEXTS
        assert np.array_equal(silent[0], plain[0] // GUIDES * CLASSES)
        assert np.array_equal(related[0], silent[0] + (told >> 1))
        assert related[0].max() < RELATED_CONTEXTS


def test_contexts_refuse_what_does_not_fit(compiled: Any) -> None:
    near, table, none = np.zeros((1, 5, 5), np.uint16), np.zeros(511 * 2 + 1, np.uint32), np.zeros(0, np.uint16)
    classes = np.zeros(16 * CLIP + 1, np.uint16)
    told = np.zeros(4, np.uint8)
    good = ((3, 3), (0, 0), (1, -1), table, none, 2, classes, 0, told, True, np.zeros((1, 2, 2), np.uint16))
    call = compiled.phase_contexts
    call(near, *good)
    for place, bad in (
        (0, (3, 4)),
        (0, (1 << 62, 3)),
        (0, (9,)),
        (0, ()),
        (1, (2, 0)),
        (1, (0,)),
        (2, 1),
        (2, (1,) * 97),
        (2, (1, -9)),
        (2, (20, 1)),
        (2, (1, -1, 1)),
        (3, table[:-1]),
        (4, np.zeros(3, np.uint16)),
        (5, 17),
        (6, classes[:-1]),
        (8, told[:3]),
        (9, False),
        (10, np.zeros((1, 2, 3), np.uint16)),
    ):
        args = list(good)
        args[place] = bad
        with pytest.raises((ValueError, OverflowError)):
            call(near, *args)


def test_sizes_and_hints_out_of_range_read_no_strange_memory(compiled: Any) -> None:
    """The kernel keeps to its tables, whatever it is given."""
    near, hints = np.full((1, 5, 5), 65535, np.uint16), np.full((1, 3, 3), 65535, np.uint16)
    table, classes = np.full(511 * 2 + 1, 1 << 31, np.uint32), np.full(16 * CLIP + 1, 9, np.uint16)
    out = np.zeros((1, 2, 2), np.uint16)
    call = (near, (3, 3), (0, 0), (1, -1), table, hints, 5, classes, 100)
    compiled.phase_contexts(*call, np.zeros(0, np.uint8), False, out)
    assert (out == 9 + 7 + 100).all()
    compiled.phase_contexts(*call, np.full(4, 255, np.uint8), True, out)
    assert (out == 9 + 127 + 100).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_compiled_hints_are_those_of_numpy(
    shape: tuple[int, ...], compiled: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And those of the format: (4 + 2 m) parts of a point itself, one of each of 2 m neighbours."""
    rng = np.random.default_rng(5)
    inside = np.where(rng.random((3, *shape)) < 0.3, 16 * CLIP, rng.integers(0, 90, (3, *shape)))
    guide = np.pad(inside, [(0, 0), *((1, 1) for _ in shape)]).astype(np.uint16)
    for box in (shape, tuple(max(1, n - 1) for n in shape)):
        found = []
        for kernel in (compiled, None):
            monkeypatch.setattr(module, "_neighbours", kernel)
            found.append(hints_around(guide, shape, box))
        assert np.array_equal(*found)
        axes = [a for a, n in enumerate(shape, 1) if n > 1]
        around = sum(np.roll(guide.astype(int), k, a) for a in axes for k in (-1, 1))
        mean = ((4 + 2 * len(axes)) * guide.astype(int) + around) // (4 + 4 * len(axes))
        here = (slice(None), *(slice(1, n + 1) for n in box))
        classes = sum((guide >= k).astype(int) for k in (2, 8, 24, 64))
        assert np.array_equal(found[0], ((mean << GUIDE_BITS) + classes)[here])


def test_hints_and_sizes_refuse_what_does_not_fit(compiled: Any) -> None:
    guide, classes = np.zeros((2, 5, 6), np.uint16), np.zeros(16 * CLIP + 1, np.uint16)
    good = ((2, 3, 4), (2, 3, 2), (1, -1, 6, -6), 8, classes, np.zeros((2, 3, 2), np.uint16))
    compiled.hints(guide, *good)
    for place, bad in (
        (0, (2, 3, 5)),
        (0, (2, 1 << 62, 4)),
        (0, ()),
        (1, (2, 4, 2)),
        (1, (2, 0, 2)),
        (1, (2, 3)),
        (2, (1, -8)),
        (2, (1 << 40,)),
        (3, 0),
        (3, 65),
        (4, classes[:-1]),
        (5, np.zeros((2, 3, 3), np.uint16)),
    ):
        with pytest.raises((ValueError, OverflowError)):
            compiled.hints(guide, *good[:place], bad, *good[place + 1 :])
    for values, out in (
        (np.zeros(3, np.int64), np.zeros(2, np.uint16)),
        (np.zeros(3, np.int32), np.zeros(1, np.uint16)),
    ):
        with pytest.raises(ValueError, match="do not fit"):
            compiled.sizes(values, out)


@pytest.mark.parametrize("shape", [(1,), (9,), (2, 5), (12, 1, 9), (3, 8, 5)])
@pytest.mark.parametrize("step", [1, 2])
def test_compiled_moves_are_those_of_numpy(
    shape: tuple[int, ...], step: int, compiled: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every phase of a band, there and back, with sizes; points outside the band are left alone."""
    rng = np.random.default_rng(4)
    q = np.rint(rng.laplace(size=(4, *shape)) * 10.0 ** rng.integers(0, 18, (4, *shape)))
    near_limits = rng.random(q.shape) < 0.5
    q[near_limits] = rng.choice([64, -65, 127, -128, 43007, -43008], near_limits.sum())
    place = tuple(slice((n > 1) * (step - 1), None, step) for n in shape)
    rows = np.array([0, 2, 3])
    results = []
    for kernel in (compiled, None):
        monkeypatch.setattr(module, "_neighbours", kernel)
        spot, back = Spot(q, place, rows), Spot(np.full_like(q, 7.0), place, rows)
        near = [np.zeros((3, *(n + 2 for n in spot.shape)), np.uint16) for _ in range(4)]
        rng, lists = np.random.default_rng(5), []
        for p in phases_of(spot.shape):
            for k, expected in enumerate((None, rng.integers(-32767, 32768, 3 * math.prod(p.counts)).astype(np.int16))):
                lists.append(p.load(spot, near[2 * k], expected))
                p.store(back, near[2 * k + 1], lists[-1], expected)
        assert np.array_equal(near[0], near[1])
        assert np.array_equal(near[2], near[3])
        assert np.array_equal(back.grid[(rows, *place)], q[(rows, *place)])
        assert (back.grid[1] == 7.0).all()
        results.append([x.tobytes() for x in (*lists, *near, back.grid)])
    assert results[0] == results[1]


def test_narrow_values_are_moved_alike(compiled: Any) -> None:
    rng = np.random.default_rng(6)
    q = np.clip(np.rint(rng.standard_cauchy((2, 5, 9)) * 30), -32767, 32767) * (rng.random((2, 5, 9)) < 0.4)
    place, rows = (slice(0, None, 1),) * 2, np.arange(2)
    for some in (False, True):
        spot, back, near = Spot(q, place, rows), Spot(np.zeros_like(q), place, rows), np.zeros((2, 2, 7, 11), np.uint16)
        for p in phases_of((5, 9)):
            expected = rng.integers(-32767, 32768, 2 * math.prod(p.counts)).astype(np.int16) if some else None
            p.store(back, near[1], p.load(spot, near[0], expected).astype(np.int16), expected)
        assert np.array_equal(back.grid, q)
        assert np.array_equal(*near)


def test_sizes_are_those_of_what_is_not_expected() -> None:
    q = np.array([[5.0, -7.0, 100.0, 0.0]])
    spot, near = Spot(q, (slice(0, None, 1),), np.arange(1)), np.zeros((1, 6), np.uint16)
    for p in phases_of((4,)):
        p.load(spot, near, np.array([[4, 60], [-7, -3]][p.parity[0]], np.int16))
    assert near.tolist() == [[0, 1, 0, 40, 3, 0]]


def test_moves_refuse_what_does_not_fit(compiled: Any) -> None:
    near = np.zeros((2, 5, 6), np.uint16)
    good = [near, (3, 4), (0, 1), np.zeros(2 * 2 * 2, np.int64), np.zeros(8, np.int16), np.zeros(24)]
    good += [np.array([0, 12]), (4, 1), True, False]
    move = compiled.move
    move(*good)
    for place, bad in (
        (0, near[:1].copy()),
        (1, (3, 5)),
        (1, (3,)),
        (1, (0, 4)),
        (1, (1 << 62, 4)),
        (2, (0, 2)),
        (2, (-1, 0)),
        (3, np.zeros(7, np.int64)),
        (4, np.zeros(7, np.int16)),
        (5, np.zeros(23)),
        (6, np.array([0, 13])),
        (6, np.array([-1, 0])),
        (6, np.array([0])),
        (7, (0, 1)),
        (7, (5, 1)),
        (7, (1 << 61, 1)),
        (9, True),
    ):
        with pytest.raises((ValueError, OverflowError)):
            move(*good[:place], bad, *good[place + 1 :])
