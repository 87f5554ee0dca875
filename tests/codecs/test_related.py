# SPDX-License-Identifier: MIT
"""What is expected of related variables: the kernel gives NumPy's bits, relations are found, bad arguments refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import hbae.codecs.related as module
from hbae.arrays import Array
from hbae.codecs.neighbours import phases_of
from hbae.codecs.related import CLASS_LIMITS, MOST_LEADERS, Around, Expected, View, join_expected, solve, split_expected

SHAPES = [(1,), (7,), (1, 5), (4, 1, 9), (6, 7, 8), (2, 3, 2, 3), (3, 2, 3, 2, 3, 2)]


@pytest.fixture
def compiled(kernel_of: Callable[[ModuleType, str], Any]) -> Any:
    return kernel_of(module, "_related")


def band_of(values: Array) -> Around:
    """A band of which all is known."""
    around = Around.of(np.arange(len(values)), values.shape[1:], [], range(0), rests=True)
    for p in phases_of(values.shape[1:]):
        for part in (slice(0, MOST_LEADERS), slice(MOST_LEADERS, len(values))):
            if len(values[part]):
                around.note(
                    p, slice(part.start, min(part.stop, len(values))), values[part][p.target].ravel().astype(np.int64)
                )
    return around


def joined(blocks: tuple[Array, ...], count: int) -> Array:
    """All variables of a band, (*shape + 2, count)."""
    return np.concatenate([blocks[0][..., :MOST_LEADERS], *blocks[1:]], axis=-1)[..., :count]


def expected_of(values: Array, others: list[Array], part: slice, *, rests: bool = True) -> list[Expected]:
    """Walk over the phases of one set of variables; those before it are known everywhere."""
    views = [View(band_of(a), (1,) * (values.ndim - 1)) for a in others]
    around = Around.of(np.arange(len(values)), values.shape[1:], views, range(len(views)), rests=rests)
    out = []
    # As sets are coded: none lies on both sides of the last leader.
    for before in (slice(0, min(part.start, MOST_LEADERS)), slice(MOST_LEADERS, max(part.start, MOST_LEADERS))):
        for p in phases_of(values.shape[1:]):
            if before.stop > before.start:
                around.note(p, before, values[before][p.target].ravel().astype(np.int64))
    for p in phases_of(values.shape[1:]):
        out.append(around.expect(p, part))
        around.note(p, part, values[part][p.target].ravel().astype(np.int64))
    return out


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [1, 3, 1000, 1e7, 2.0**60])
def test_compiled_are_those_of_numpy(
    shape: tuple[int, ...], size: float, compiled: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Integers of any size, most of them zero or none; more leaders than count, as many places around as there are."""
    rng = np.random.default_rng(5)
    for variables, density in ((2, 1.0), (3, 0.3), (9, 0.5), (24, 0.6), (33, 1.0), (49, 0.8)):
        values, *others = np.clip(np.rint(size * rng.standard_cauchy((4, variables, *shape))), -(2.0**60), 2.0**60)
        values *= rng.random(values.shape) < density
        # Leaders first, and only behind them a set that lies in the other block.
        part = slice(variables // 2, min(variables, MOST_LEADERS) if variables // 2 < MOST_LEADERS else variables)
        results = []
        for kernel in (compiled, None):
            monkeypatch.setattr(module, "_related", kernel)
            found = expected_of(values, others, part)
            results.append([(x.codes.tobytes(), x.values.tobytes()) for x in found])
        assert results[0] == results[1]


@pytest.mark.parametrize("with_kernel", [False, True])
def test_a_relation_of_the_neighbourhood_is_found(
    with_kernel: bool, compiled: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Left, the last variable is three times the first; right, minus the second: both are told, with their signs."""
    monkeypatch.setattr(module, "_related", compiled if with_kernel else None)
    rng = np.random.default_rng(6)
    values = np.rint(rng.normal(0, 9, (3, 24, 24)))
    values[2, :, :12], values[2, :, 12:] = 3 * values[0, :, :12], -values[1, :, 12:]
    right = total = 0
    for p, found in zip(phases_of((24, 24))[1:], expected_of(values, [], slice(2, 3))[1:], strict=True):
        truth = values[2:3][p.target].ravel()
        far = np.abs(truth) > 2
        classes = np.searchsorted(CLASS_LIMITS, np.abs(truth), side="right")
        negative, told = found.codes & 1, found.codes >> 1
        right += int(
            ((negative == (truth < 0)) & (np.abs(told - classes) <= 1) & (np.abs(found.values - truth) < 3))[far].sum()
        )
        total += int(far.sum())
    assert right > 0.8 * total


@pytest.mark.parametrize("with_kernel", [False, True])
def test_what_is_small_is_not_taken_off(with_kernel: bool, compiled: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Class, sign and the nearest integer say the same; classes below 1 (that of the limit 64 / 64) have none."""
    monkeypatch.setattr(module, "_related", compiled if with_kernel else None)
    rng = np.random.default_rng(7)
    values = np.rint(rng.normal(0, 1, (4, 24, 24)) * 10.0 ** rng.integers(0, 6, (1, 24, 24)))
    seen = set()
    for found in expected_of(values, [], slice(2, 4)):
        size, classes = np.abs(found.values.astype(int)), found.codes >> 1
        assert ((size > 0) == (classes >= 8)).all()
        assert ((found.values < 0) == ((found.codes & 1 > 0) & (size > 0))).all()
        low = np.concatenate([[0], CLASS_LIMITS])[classes]
        assert (size[size > 0] >= np.rint(low)[size > 0]).all()
        seen |= set(size.tolist())
    assert {0, 1, 2, 32767} <= seen
    whole = expected_of(values, [], slice(2, 4), rests=False)
    for found, same in zip(whole, expected_of(values, [], slice(2, 4)), strict=True):
        assert np.array_equal(found.codes, same.codes)
        assert not found.values.any()


def test_weights_that_overflow_count_as_none() -> None:
    a = np.full((3, 3, 2), np.float32(3e38))
    with np.errstate(all="ignore"):
        w = solve(a, np.full((3, 2), np.float32(3e38)))
    assert np.isfinite(w).all()


def test_rests_give_values_back(compiled: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.array([5, -7, 0, (1 << 61) - 1, 1 - (1 << 61), 3])
    expected = Expected(np.array([1, 17, 1, 31, 20, 0], np.uint8), np.array([0, -6, 0, -32767, 4, 0], np.int16))
    for kernel in (compiled, None):
        monkeypatch.setattr(module, "_related", kernel)
        rest = split_expected(values.copy(), expected)
        assert rest.tolist() == [-5, 1, 0, -(1 << 61) - 32766, -3 - (1 << 61), 3]
        assert np.array_equal(join_expected(rest, expected), values)


def test_what_does_not_fit_is_refused(compiled: Any) -> None:
    own = np.zeros((5, 6, 4), np.int16)
    places = ((1, 0), (0, 1), (0, -8), (1, 7))
    both = (own, own.copy())
    good = [both, both, (3, 4), (0, 1), places, 2, 2, CLASS_LIMITS, 1.0]
    good += [np.zeros((2, 2, 2), np.uint8), np.zeros((2, 2, 2), np.int16)]
    _refuses(compiled.expect, good, (
        (0, ()),
        (0, both[:1]),
        (0, (own, own[:4].copy())),
        (0, (own[:4].copy(), own[:4].copy())),
        (0, (own, None)),
        (0, [own, own]),
        (0, (own,) * 26),
        (0, (own[..., :1].copy(),) * 2),
        (1, ()),
        (1, both[:1]),
        (1, (own, own[:4].copy())),
        (1, (own[..., :3].copy(),) * 2),
        (2, (3, 5)),
        (2, (4,)),
        (2, (1 << 62, 4)),
        (2, (0, 4)),
        (2, (-1, 4)),
        (2, ()),
        (3, (0, 2)),
        (3, (-1, 0)),
        (3, (0,)),
        (4, ()),
        (4, ((2, 0),)),
        (4, ((-1, 0),)),
        (4, ((0, 8),)),
        (4, ((0, -9),)),
        (4, ((0, 1 << 62),)),
        (4, ((0,),)),
        (4, (0,)),
        (4, ((0, 1),) * 25),
        (5, 0),
        (5, 5),
        (5, 16),
        (6, 3),
        (6, -1),
        (7, CLASS_LIMITS[:-1].copy()),
        (9, np.zeros((2, 2, 3), np.uint8)),
        (9, np.zeros((5, 2, 2), np.uint8)),
        (10, np.zeros((2, 2, 1), np.int16)),
    ))  # fmt: skip
    for count in (12, 20, 7):
        with pytest.raises(ValueError, match="do not fit"):
            compiled.expect(*good[:9], np.zeros(count, np.uint8), np.zeros(count, np.int16))
    _refuses(compiled.note, [own, (3, 4), (0, 1), 2, np.zeros(8, np.int64), False], (
        (0, own[:4].copy()),
        (1, (3, 5)),
        (1, ()),
        (2, (0, 2)),
        (2, (0,)),
        (3, 3),
        (3, -1),
        (4, np.zeros(7, np.int64)),
        (5, True),
    ))  # fmt: skip
    there = np.zeros(24, np.int16)
    good = [there, 3, np.array([0, 1, -1]), (6, 2), (1, 2), (2, 3), (3, 4), np.zeros((5, 6, 3), np.int16)]
    _refuses(compiled.see, good, (
        (0, there[:22].copy()),
        (1, 5),
        (1, -1),
        (2, np.array([0, 3, 0])),
        (2, np.array([-2, 0, 0])),
        (2, np.array([0])),
        (2, np.zeros(0, np.int64)),
        (3, (0, 1)),
        (3, (1 << 61, 1)),
        (4, (0, 1)),
        (5, (4, 3)),
        (5, (-1, 1)),
        (6, (3, 5)),
        (6, (1 << 62, 4)),
        (6, (3,)),
        (7, np.zeros((5, 5, 3), np.int16)),
    ))  # fmt: skip
    for kernel in (compiled.join, compiled.split):
        _refuses(kernel, [np.zeros(3, np.int64), np.zeros(3, np.uint8), np.zeros(3, np.int16)], (
            (0, np.zeros(4, np.int64)),
            (0, np.zeros(13, np.uint8)),
            (1, np.zeros(2, np.uint8)),
            (2, np.zeros(2, np.int16)),
        ))  # fmt: skip


@pytest.mark.parametrize("ratios", [(1, 1), (2, 1), (2, 3)])
def test_views_are_those_of_numpy(ratios: tuple[int, int], compiled: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each point sees the same place of the other band, or its last one; beyond the border there is nothing."""
    rng = np.random.default_rng(8)
    there = np.rint(rng.standard_cauchy((17, 4, 3)) * 1e4)
    known = replace(band_of(there), rows=np.arange(1, 18))
    # Some are in the other block there, some nowhere.
    rows = np.array([0, *range(2, 17), 17, 18, 20])
    mine = Around.of(rows, (4 * ratios[0] + 1, 3 * ratios[1] + 1), [], range(0), rests=True)
    expected = np.zeros((4 * ratios[0] + 3, 3 * ratios[1] + 3, len(rows)), np.int16)
    for r, i, j in np.ndindex(len(rows), expected.shape[0] - 2, expected.shape[1] - 2):
        if 1 <= rows[r] < 18:
            seen = there[rows[r] - 1, min(i // ratios[0], 3), min(j // ratios[1], 2)]
            expected[i + 1, j + 1, r] = seen.clip(1 - 2**15, 2**15 - 1)
    for kernel in (compiled, None):
        monkeypatch.setattr(module, "_related", kernel)
        assert np.array_equal(joined(View(known, ratios).seen(mine), len(rows)), expected)
        assert not joined(View(None, ratios).seen(mine), len(rows)).any()
        same = View(known, ratios).seen(
            replace(mine, rows=known.rows, blocks=tuple(b[..., :2] if i else b for i, b in enumerate(mine.blocks)))
        )
        assert np.array_equal(joined(same, 17)[..., 1:16], expected[..., 1:16])


def test_narrow_integers_are_noted_alike(compiled: Any) -> None:
    values = np.arange(-60, 60).reshape(2, 4, 15) * 500
    wide, narrow = band_of(values), Around.of(np.arange(2), (4, 15), [], range(0), rests=True)
    for p in phases_of((4, 15)):
        narrow.note(p, slice(0, 2), values[p.target].ravel().astype(np.int16))
    assert np.array_equal(wide.blocks[0], narrow.blocks[0])
    assert narrow.blocks[0].any()


def test_a_band_of_the_same_places_is_seen_as_it_is() -> None:
    known = band_of(np.ones((2, 4, 3)))
    assert View(known, (1, 1)).seen(known) is known.blocks
    other = replace(known, rows=np.array([0, 2]))
    assert View(known, (1, 1)).seen(other)[0][2, 2].tolist() == [1, 0]


def _refuses(kernel: Any, good: list[Any], bad: tuple[tuple[int, Any], ...]) -> None:
    kernel(*good)
    for place, value in bad:
        with pytest.raises((ValueError, OverflowError, TypeError)):
            kernel(*good[:place], value, *good[place + 1 :])
