# SPDX-License-Identifier: MIT
"""Transforms against whole numbers of any size: the basis, the inverse and the proof that nothing overflows."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal, getcontext

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hbae.arrays import Array
from hbae.errors import FormatError
from hbae.exact import AxisBasis, Transform, dct_basis

getcontext().prec = 60


def pi() -> Decimal:
    """Pi by Gauss and Legendre."""
    a, b, t, p = Decimal(1), 1 / Decimal(2).sqrt(), Decimal("0.25"), Decimal(1)
    for _ in range(8):
        a, b, t, p = (a + b) / 2, (a * b).sqrt(), t - p * ((a - b) / 2) ** 2, 2 * p
    return (a + b) ** 2 / (4 * t)


def cosine(x: Decimal) -> Decimal:
    x %= 2 * pi()
    total, term, k = Decimal(1), Decimal(1), 0
    while abs(term) > Decimal("1e-55"):
        k += 2
        term *= -x * x / (k * (k - 1))
        total += term
    return total


@pytest.mark.parametrize("n", range(1, 17))
def test_dct_is_correctly_rounded(n: int) -> None:
    got = dct_basis(n)
    for k in range(n):
        norm = (Decimal(1 if k == 0 else 2) / n).sqrt()
        for i in range(n):
            exact = norm * cosine(pi() * (2 * i + 1) * k / (2 * n)) * 2**15
            nearest = int(exact.to_integral_value(ROUND_HALF_UP))
            # A zero of the cosine is computed as a tiny number of either sign.
            assert got[i, k] == nearest, (n, i, k, exact)


def big_inverse(q: Array, axes: list[Array | None], fraction: int) -> Array:
    """The documented inverse with Python's integers: exact products, halves to even; last axis first."""
    v = q.astype(object) * 2**fraction
    for i, m in reversed(list(enumerate(axes))):
        axis = i + 1 if i else 0
        if m is None:
            continue
        moved = np.moveaxis(v, axis, -1)
        out = np.empty((*moved.shape[:-1], m.shape[0]), object)
        for index in np.ndindex(*moved.shape[:-1]):
            for j in range(m.shape[0]):
                total = sum(int(m[j, c]) * int(moved[index][c]) for c in range(m.shape[1]))
                low, rest = divmod(total, 2**15)
                out[(*index, j)] = low + (rest > 2**14 or (rest == 2**14 and low % 2 == 1))
        v = np.moveaxis(out, -1, axis)
    return v


@settings(max_examples=60)
@given(
    shape=st.lists(st.integers(1, 6), min_size=1, max_size=3),
    kinds=st.lists(st.sampled_from(["none", "dct", "klt"]), min_size=3, max_size=3),
    scale=st.integers(0, 34),
    seed=st.integers(0, 999),
)
def test_inverse_equals_whole_numbers(shape: list[int], kinds: list[str], scale: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    axes, matrices = [], []
    for n, kind in zip(shape, kinds, strict=False):
        m = None
        if kind == "dct":
            m = dct_basis(n)
        elif kind == "klt":
            m = rng.integers(-(2**15), 2**15, (n, int(rng.integers(1, n + 1))))
        kept = n if m is None else m.shape[1]
        axes.append(AxisBasis(kind, n, m, np.zeros(kept, np.int64)))
        matrices.append(m)
    t = Transform(tuple(axes))
    q = rng.integers(-(2**scale), 2**scale, (t.kept[0], 3, *t.kept[1:]), endpoint=True)
    if seed % 2:
        q *= np.indices(q.shape).sum(0) < seed % 7
    fraction = t.fraction_for(float(np.abs(q).max(initial=0)))
    got = t.inverse(q, fraction)
    want = big_inverse(q, matrices, fraction)
    assert [int(x) for x in got.ravel()] == [int(x) for x in want.ravel()]


def test_too_large_coefficients_are_refused() -> None:
    t = Transform((AxisBasis("dct", 8, dct_basis(8), np.zeros(8, np.int64)),))
    q = np.full((8, 1), 2**40)
    with pytest.raises(FormatError, match="too large"):
        t.fraction_for(2.0**40)
    with pytest.raises(FormatError, match="too large"):
        t.inverse(q, 0)
    with pytest.raises(FormatError, match="too large"):
        t.inverse(q // 2**20, 9)


@pytest.mark.parametrize("n", [2, 16, 500])
def test_no_sum_of_the_inverse_can_pass_what_is_exact(n: int) -> None:
    """The fraction that is allowed, against Python's integers: the largest sum over coefficients at the limit."""
    none = AxisBasis("none", 1, None, np.zeros(1, np.int64))
    t = Transform((none, AxisBasis("dct", n, dct_basis(n), np.zeros(n, np.int64))))
    rows = [sum(abs(int(m)) for m in row) for row in dct_basis(n)]
    for qmax in (1, 1000, 1 << 20, 1 << 26, 1 << 31, 1 << 34):
        try:
            f = t.fraction_for(qmax)
        except FormatError:
            assert qmax * max(rows) >= 1 << 52
            continue
        assert (qmax << f) * max(rows) < 1 << 53


@pytest.mark.parametrize("power", range(20, 36, 3))
@pytest.mark.parametrize("sizes", [(6,), (1, 6, 5), (4, 6, 5), (4, 1, 5), (3, 2, 6, 5)])
def test_no_partial_sum_leaves_the_exact_range(sizes: tuple[int, ...], power: int) -> None:
    """Axis by axis from the last one, by whole numbers: with the fraction bits that were chosen, and with no more."""
    rng = np.random.default_rng(power)
    matrices = [None if n == 1 else rng.integers(-(2**15), 2**15, (n, n)) for n in sizes]
    axes = [
        AxisBasis("none" if m is None else "klt", n, m, np.zeros(n, np.int64))
        for n, m in zip(sizes, matrices, strict=True)
    ]
    qmax = 2**power - 1
    rows = [max(sum(abs(int(x)) for x in row) for row in m) for m in reversed(matrices) if m is not None]

    def largest(fraction: int) -> int:
        largest, most = qmax << fraction, qmax << fraction
        for r in rows:
            most = max(most, largest * r)
            largest = -(-largest * r // 2**15) + 1
        return most

    try:
        fraction = Transform(tuple(axes)).fraction_for(float(qmax))
    except FormatError:
        assert largest(0) >= 0.999999 * 2**53
        return
    assert largest(fraction) < 2**53
    assert fraction == 8 or largest(fraction + 1) >= 0.999999 * 2**53
