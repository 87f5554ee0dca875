# SPDX-License-Identifier: MIT
"""What is told of sizes: the kernel gives NumPy's numbers, these are the format's, and bad arguments are refused."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import hbae.codecs.hints as module
from hbae.arrays import Array
from hbae.codecs.hints import Hints, Seen, Sizes, settle
from hbae.codecs.neighbours import CLIP, GUIDE_BITS, GUIDE_CLASS

SHAPES = [(1,), (7,), (4, 1, 9), (6, 7, 8), (2, 3, 2, 3), (3, 2, 3, 2, 3, 2)]
ROWS = np.array([0, 2, 3, 7])


@pytest.fixture
def compiled(kernel_of: Callable[[ModuleType, str], Any]) -> Any:
    return kernel_of(module, "_hints")


def sizes_at_random(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return np.where(rng.random(shape) < 0.3, CLIP, rng.integers(0, 30, shape)).astype(np.uint16)


def seen_at_random(rng: np.random.Generator, shape: tuple[int, ...], ratio: int, factor: int) -> Seen:
    """A band with other variables, as long as the band of that shape needs, or shorter."""
    rows = np.array([0, 1, 3, 7, 9])
    there = tuple(max(1, n // ratio - int(rng.integers(2))) for n in shape)
    return Seen(Sizes(rows, sizes_at_random(rng, (len(rows), *there))), (ratio,) * len(shape), factor)


def told_of(s: Seen, row: int, point: tuple[int, ...]) -> int:
    """The size that a variable sees in another band, by the words of docs/format.md."""
    if s.band is None or row not in s.band.rows:
        return 0
    there = (min(i // r, n - 1) for i, r, n in zip(point, s.ratios, s.band.values.shape[1:], strict=True))
    return int(s.band.values[(s.band.rows.tolist().index(row), *there)])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("factors", [(), (4,), (16, 0), (4, 16, 0, 0, 0), (0, 0)])
@pytest.mark.parametrize("with_guide", [False, True])
def test_hints_are_those_of_the_format(
    shape: tuple[int, ...],
    factors: tuple[int, ...],
    with_guide: bool,
    compiled: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(7)
    seen = [seen_at_random(rng, shape, 1 if f == 0 else 2, f) for f in factors]
    if factors:
        seen[-1] = Seen(None, seen[-1].ratios, factors[-1])
    guide = (16 * sizes_at_random(rng, shape)).astype(np.uint16) if with_guide else None
    part, found = slice(1, 4), []
    for kernel in (compiled, None):
        monkeypatch.setattr(module, "_hints", kernel)
        found.append(Hints(ROWS, shape, seen).of(part, guide))
    if not factors and guide is None:
        assert found == [None, None]
        return
    assert np.array_equal(*found)
    siblings = [s for s in seen if not s.factor]
    for v, *at in np.ndindex(found[0].shape):
        point = tuple(at)
        row = int(ROWS[part][v])
        total = sum(2 * s.factor * told_of(s, row, point) for s in seen)
        weight = 2 * sum(s.factor > 0 for s in seen)
        if siblings:
            total += 2 * (16 * sum(told_of(s, row, point) for s in siblings) // len(siblings))
            weight += 2
        near = 0 if guide is None else int(guide[point])
        mean = (total + near) // (weight + (guide is not None))
        assert int(found[0][(v, *point)]) == (mean << GUIDE_BITS) + int(GUIDE_CLASS[near])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("with_guide", [False, True])
def test_the_guide_after_a_set_is_that_of_the_format(
    shape: tuple[int, ...], with_guide: bool, compiled: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(9)
    inside = sizes_at_random(rng, (3, *shape))
    known = np.pad(inside, [(0, 0), *((1, 1) for _ in shape)])
    guide = (16 * sizes_at_random(rng, shape)).astype(np.uint16) if with_guide else None
    mean = 16 * inside.sum(axis=0, dtype=np.int64) // 3
    for kernel in (compiled, None):
        monkeypatch.setattr(module, "_hints", kernel)
        sizes = np.full_like(inside, 9)
        after = settle(known, guide, sizes)
        assert np.array_equal(sizes, inside)
        assert after.dtype == np.uint16
        assert np.array_equal(after, mean if guide is None else (3 * mean + guide) >> 2)


@pytest.mark.parametrize("count", [1, 512, 513, 4096])
def test_the_guide_after_many_variables_is_exact(count: int, compiled: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Means just below an integer: quotients by multiplication would give the integer."""
    known = np.full((count, 3), CLIP, np.uint16)
    known[:, ::2] = 0
    known[-1, 1] -= 1
    for kernel in (compiled, None):
        monkeypatch.setattr(module, "_hints", kernel)
        after = settle(known, None, np.zeros((count, 1), np.uint16))
        assert after.tolist() == [16 * (CLIP * count - 1) // count]


def test_what_does_not_fit_is_refused(compiled: Any) -> None:
    there, sizes = np.array([0, -1, 1]), np.zeros((2, 2, 4), np.uint16)
    view = (sizes, there, (2, 4), (2, 1), 4)
    none = np.zeros(0, np.uint16)
    good = [(view, (*view[:4], 0)), 1, (3, 4), 1, none, GUIDE_CLASS, np.zeros((2, 3, 4), np.uint16)]

    def refused(place: int, bad: Any) -> None:
        with pytest.raises((ValueError, OverflowError, TypeError)):
            compiled.join(*good[:place], bad, *good[place + 1 :])

    compiled.join(*good)
    for at, bad in (
        (0, sizes[:1]),
        (0, sizes.ravel()[:-1]),
        (0, None),
        (1, there[:2]),
        (1, np.array([0, -2, 1])),
        (1, np.array([0, -1, 2])),
        (1, None),
        (2, (2, 5)),
        (2, (2,)),
        (2, (0, 4)),
        (2, (1 << 62, 4)),
        (3, (0, 1)),
        (3, (1,)),
        (4, -1),
        (4, 17),
        (4, None),
    ):
        refused(0, ((*view[:at], bad, *view[at + 1 :]), view))
        refused(0, (view, (*view[:at], bad, *view[at + 1 :])))
    for place, bad in (
        (0, ()),
        (0, [view]),
        (0, (view[:4],)),
        (0, (view,) * 67),
        (1, 3),
        (1, -1),
        (2, (3, 5)),
        (2, (3,)),
        (2, ()),
        (2, (0, 4)),
        (2, (1 << 62, 4)),
        (3, 2),
        (3, -1),
        (4, np.zeros(11, np.uint16)),
        (5, GUIDE_CLASS[:-1]),
        (6, np.zeros((2, 3, 3), np.uint16)),
    ):
        refused(place, bad)
    known, out = np.zeros((2, 5, 6), np.uint16), np.zeros((3, 4), np.uint16)
    settling = [known, (3, 4), none, np.zeros((2, 3, 4), np.uint16), out]
    compiled.settle(*settling)
    for place, bad in (
        (0, known[:1]),
        (1, (3, 5)),
        (1, (1 << 62, 4)),
        (1, ()),
        (2, out[:2]),
        (3, np.zeros((1, 3, 4), np.uint16)),
        (4, out[:2].copy()),
    ):
        with pytest.raises((ValueError, OverflowError)):
            compiled.settle(*settling[:place], bad, *settling[place + 1 :])
