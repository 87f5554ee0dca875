# SPDX-License-Identifier: MIT
"""Rotated bases: orthonormal, fewer bits, and dependences between variables are kept when steps move."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hbae.arrays import Array
from hbae.bound import carried, fit_transform, precise, rotated
from hbae.exact import BASIS_BITS, AxisBasis, Transform


def matrix_of(t: Transform | AxisBasis) -> Array:
    axis = t.axes[0] if isinstance(t, Transform) else t
    assert axis.matrix is not None
    return np.ldexp(axis.matrix.astype(np.float64), -BASIS_BITS)


def bits(y: Array) -> float:
    return float(np.log2(1 + 4 * y * y).sum() / 2)


def sparse(v: int, n: int, seed: int) -> tuple[Array, Array]:
    """Few causes are active at a time; each drives all variables: (V, n) and the causes' directions (V, V)."""
    rng = np.random.default_rng(seed)
    q = np.linalg.qr(rng.normal(size=(v, v)))[0]
    s = rng.normal(size=(v, n)) * (rng.random((v, n)) < 0.1) * np.geomspace(40, 5, v)[:, None]
    return q @ s, q


@pytest.mark.parametrize("v", [2, 5, 20])
def test_directions_of_single_causes_are_found(v: int) -> None:
    """PCA mixes causes of like energy; within 8 % of the bits of the causes themselves."""
    x, q = sparse(v, 4000, v)
    start = fit_transform(x, ("klt",))
    m = matrix_of(rotated(start, x))
    true = bits(q.T @ x)
    assert bits(m.T @ x) < 1.08 * true
    assert bits(matrix_of(start).T @ x) > (1.15 if v == 20 else 1.0) * true


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12), st.integers(1, 60), st.floats(-6, 12), st.integers(0, 99))
def test_it_stays_a_basis(v: int, n: int, power: float, seed: int) -> None:
    """Whatever the values are, the largest that floats hold squared among them."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(v, n)) * 10.0**power
    x[0, 0] = 1e150
    m = matrix_of(rotated(fit_transform(rng.normal(size=(v, 50)), ("klt",)), x)) if v > 1 else np.eye(1)
    assert np.abs(m.T @ m - np.eye(v)).max() < 1e-3


def test_what_takes_most_bits_comes_first() -> None:
    x, _ = sparse(8, 2000, 3)
    y = matrix_of(rotated(fit_transform(x, ("klt",)), x)).T @ x
    taken = [bits(row) for row in y]
    assert taken == sorted(taken, reverse=True)


def test_a_basis_of_nothing_stays() -> None:
    none = Transform((AxisBasis("none", 3, None, np.zeros(3, np.int64)),))
    assert rotated(none, np.ones((3, 5))) is none
    assert carried(none.axes[0], np.ones(3)) is none.axes[0]


def test_dependences_are_kept_when_steps_move() -> None:
    """Three variables of six follow from the others; components that are nothing stay nothing."""
    rng = np.random.default_rng(1)
    few = rng.normal(size=(3, 3000)) * np.array([300, 100, 50])[:, None]
    x = np.concatenate([few, rng.normal(size=(3, 3)) @ few])
    axis = fit_transform(x, ("klt",)).axes[0]
    factor = np.exp(rng.normal(size=6))
    moved = x / factor[:, None]
    old, new = matrix_of(axis), matrix_of(carried(axis, factor))
    assert np.abs(new.T @ new - np.eye(6)).max() < 1e-3
    assert np.abs(new.T @ moved)[3:].max() < 1e-3 * np.abs(moved).max()
    # The old basis does not know the dependences of the new units.
    assert np.abs(old.T @ moved)[3:].max() > 0.05 * np.abs(moved).max()


@pytest.mark.parametrize("factor", [2.0**-5, 0.25, 0.6, 1.0, 4.0])
def test_a_basis_is_as_precise_as_its_finer_steps_ask(factor: float) -> None:
    """Rounded columns cost errors of a part of a step: of steps that are eight times as fine, eight times as many."""
    rng = np.random.default_rng(4)
    x = rng.normal(size=(5, 5)) @ (rng.normal(size=(5, 4000)) * 3)
    axis = precise(fit_transform(x, ("klt",)), x).axes[0]
    assert axis.shifts is not None
    assert axis.shifts.min() > 0
    moved = carried(axis, np.full(5, factor))
    assert moved.shifts is not None
    assert moved.shifts.tolist() == [max(s - max(0, round(-np.log2(factor))), 0) for s in axis.shifts.tolist()]
    # What a reader gets back of values in the new steps, but for the rounding of coefficients.
    off = [
        np.abs((np.eye(5) - matrix_of(a) @ matrix_of(a).T) @ (x / f)).max() for a, f in ((axis, 1.0), (moved, factor))
    ]
    assert off[1] < 1.5 * off[0]
