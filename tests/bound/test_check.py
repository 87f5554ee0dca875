# SPDX-License-Identifier: MIT
"""The judge of decoded values: each limit is met or missed exactly where it should be."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hbae.bound import (
    Target,
    Totals,
    VariableErrors,
    check_chunk,
    fit_transform,
    klt_basis,
    resolve_target,
    select_coefficients,
)
from hbae.config import ErrorBound
from hbae.container import decode_transform, encode_transform
from hbae.exact import Transform

ONE = np.ones((1, 4, 6), bool)


def holds(error: np.ndarray, target: Target, valid: np.ndarray = ONE, x: float = 10.0, **kw: bool) -> bool:
    """Judge a chunk of constant values with that error."""
    original = np.full(error.shape, x)
    return check_chunk(original, original + error, valid, [target], (2, 3), margin=False, **kw).hold


def at(place: tuple[int, ...], value: float) -> np.ndarray:
    """An error at one point."""
    e = np.zeros((1, 4, 6))
    e[place] = value
    return e


@pytest.mark.parametrize("place", [(0, 0, 0), (0, 3, 5), (0, 1, 2)])
def test_a_single_point_counts(place: tuple[int, ...]) -> None:
    over = 0.5 * (1 + 2**-40)
    for target, good in (
        (Target(point=0.5), 0.5),
        (Target(block_l2=0.5), 0.5),
        (Target(block_rmse=0.5 / math.sqrt(6.0)), 0.5 * (1 - 2**-40)),
        (Target(pw_rel=0.05), 0.5),
    ):
        assert holds(at(place, good), target)
        assert holds(at(place, -good), target)
        assert not holds(at(place, over), target)
        assert not holds(at(place, -over), target)
        assert not holds(at(place, math.nan), target)
        assert not holds(at(place, math.inf), target)
        invalid = ONE.copy()
        invalid[place] = False
        assert holds(at(place, over), target, invalid)


def test_blocks_start_at_the_origin_and_count_valid_points_only() -> None:
    e = at((0, 1, 2), 1.0) + at((0, 2, 3), 1.0)
    assert holds(e, Target(block_l2=1.0)), "two blocks, one error each"
    e = at((0, 0, 0), 1.0) + at((0, 1, 2), 1.0)
    assert not holds(e, Target(block_l2=1.0)), "one block, two errors"
    few = np.zeros((1, 4, 6), bool)
    few[0, 0, :2] = True
    assert not holds(at((0, 0, 0), 1.0), Target(block_rmse=0.5), few), "mean over two points, not six"
    assert holds(at((0, 0, 0), 1.0), Target(block_rmse=0.71), few)


def test_all_limits_hold_together() -> None:
    both = Target(point=1.0, block_l2=1.2)
    assert holds(at((0, 0, 0), 1.0), both)
    assert not holds(at((0, 0, 0), 1.1), both)
    assert not holds(at((0, 0, 0), 1.0) + at((0, 0, 1), 1.0), both)


def test_relative_limits_at_zero_allow_no_error() -> None:
    assert holds(np.zeros((1, 4, 6)), Target(pw_rel=0.1), x=0.0)
    assert not holds(at((0, 0, 0), 5e-324), Target(pw_rel=0.1), x=0.0)


def test_targets() -> None:
    bounds = [ErrorBound("abs", 0.5), ErrorBound("rel_range", 0.01), ErrorBound("psnr", 40), ErrorBound("l2", 3)]
    t = resolve_target(bounds, 20.0)
    assert t.point == 0.2
    assert t.rmse == pytest.approx(0.2)
    assert (t.block_l2, t.block_rmse, t.pw_rel, t.span) == (3, math.inf, math.inf, 20.0)
    t = resolve_target([ErrorBound("nrmse", 1e-3), ErrorBound("psnr", 80), ErrorBound("block_nrmse", 0.1)], 10.0)
    assert t.rmse == pytest.approx(1e-3)
    assert t.block_rmse == 1.0


def test_totals_do_not_depend_on_the_order_of_chunks() -> None:
    rng = np.random.default_rng(0)
    parts = [VariableErrors.of(rng.normal(size=50) * 10.0 ** rng.integers(-9, 9), np.ones(50, bool)) for _ in range(40)]
    results = {Totals.of(rng.permutation(np.array(parts, object)), 3.0).sse.hex() for _ in range(20)}
    assert len(results) == 1
    t = Totals.of([VariableErrors(4.0, 4, 2.0), VariableErrors(), VariableErrors(0.0, 12, 0.0)], 2.0)
    assert (t.rmse, t.nrmse, t.max_error, t.count) == (0.5, 0.25, 2.0, 16)
    assert t.psnr == pytest.approx(12.0412, abs=1e-4)


@settings(max_examples=80)
@given(seed=st.integers(0, 999), blocks=st.integers(1, 6), size=st.integers(1, 20), limit=st.floats(1e-3, 1e3))
def test_chosen_coefficients_meet_the_limit_and_are_the_fewest(seed: int, blocks: int, size: int, limit: float) -> None:
    """With an orthonormal basis and bins of 2 tau / sqrt(P), a squared limit of P / 4 bins can always be met."""
    c = np.random.default_rng(seed).normal(0, 5, (blocks, size))
    limits = np.full(blocks, max(limit, size / 4 * 1.01))
    q = select_coefficients(c, limits)
    for row, chosen, most in zip(c, q, limits, strict=True):
        assert ((row - chosen) ** 2).sum() <= most
        kept = np.flatnonzero(chosen)
        rest = np.setdiff1d(np.arange(size), kept)
        assert np.array_equal(chosen[kept], np.rint(row[kept]))
        if kept.size:
            assert np.abs(row[kept]).min() >= np.abs(row[rest][np.abs(row[rest]) > 0.5]).max(initial=0)
            weakest = kept[np.abs(row[kept]).argmin()]
            fewer = chosen.copy()
            fewer[weakest] = 0
            assert ((row - fewer) ** 2).sum() > most * (1 - 1e-5)
    assert not select_coefficients(c, np.full(blocks, np.inf)).any()


@pytest.mark.parametrize("kinds", [("none", "dct"), ("klt", "klt"), ("klt", "none"), ("none", "none")])
def test_bases_are_nearly_orthonormal(kinds: tuple[str, ...]) -> None:
    x = np.random.default_rng(0).normal(size=(5, 30, 8)) * np.arange(1, 9)
    t = fit_transform(x, kinds, room=1e-6)
    c = t.forward(x)
    assert np.abs((c * c).sum((0, 2)) / (x * x).sum((0, 2)) - 1).max() < 1e-3
    q = np.rint(c * 64).astype(np.int64)
    f = t.fraction_for(float(np.abs(q).max()))
    assert np.abs(t.inverse(q, f) * 2.0**-f / 64 - x).max() < 0.1
    if kinds[1] == "klt":
        energy = (c * c).sum((0, 1))
        assert (np.diff(energy) <= 1e-6 * energy[0]).all(), "strongest first"


@pytest.mark.parametrize("room", [1e-8, 1e-4, 1.0])
def test_columns_are_as_precise_as_they_need_to_be(room: float) -> None:
    """What is rounded off the columns takes a small part of the room; with more room they are coarser."""
    rng = np.random.default_rng(1)
    x = np.einsum(
        "ij,vbj->vbi",
        np.linalg.qr(rng.normal(size=(24, 24)))[0],
        rng.normal(size=(2, 400, 24)) * 0.7 ** np.arange(24) * 30,
    )
    axis = fit_transform(x, ("none", "klt"), room).axes[1]
    assert axis.matrix is not None
    assert axis.shifts is not None
    assert (axis.matrix % (1 << axis.shifts) == 0).all()
    assert (np.diff(axis.shifts) >= -1).all()
    exact = klt_basis(x, 2) / 2.0**15
    off = (x @ exact) @ (axis.matrix / 2.0**15 - exact).T
    assert (off * off).mean() <= 0.02 * room + 1e-7
    finer = fit_transform(x, ("none", "klt"), room / 64).axes[1]
    assert finer.shifts is not None
    assert (finer.shifts <= axis.shifts).all()
    assert len(encode_transform(Transform((axis,)))) <= len(encode_transform(Transform((finer,))))
    assert np.array_equal(decode_transform(encode_transform(Transform((axis,)))).axes[0].matrix, axis.matrix)
