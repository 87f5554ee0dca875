# SPDX-License-Identifier: MIT
"""Separable transform with integer bases and its exact inverse.

Tiles (V, B, t1, ..., tr) are transformed along V and along each tile axis by an integer basis of 15 fractional bits
(PCA basis, DCT by formula, or none). The inverse works on integers held in float64: ``v = q * 2**F``, then, from the
last axis to the first, ``v = rint((v @ M.T) * 2**-15)``; every sum stays below 2**53, which is proved from max|q|
before anything is computed. What is zero in q is left out: exact sums do not notice.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import isqrt

import numpy as np

from hbae.arrays import Array
from hbae.errors import FormatError
from hbae.exact.backend import F64_LIMIT

BASIS_BITS = 15
MAX_FRACTION = 8
MAX_DCT = 512
_FIX = 96
# Values that are multiplied together fit the cache, but for many variables: some columns at least.
_VALUES, _COLUMNS = 1 << 15, 4096


@dataclass(frozen=True)
class AxisBasis:
    """Basis of one axis: ``none``, ``dct`` (by formula) or ``klt`` (stored).

    ``matrix``: (n, m) integers, columns are basis vectors times 2**15; None for kind ``none``. ``logs``: (m,)
    expected magnitude of each coefficient, in steps of half a factor of two below the largest (0 = largest); they
    choose contexts of the entropy coder only. ``shifts``: (m,) for ``klt``, or None: entries of a column are multiples
    of two to that power, which takes fewer bytes.
    """

    kind: str
    size: int
    matrix: Array | None
    logs: Array
    shifts: Array | None = None

    def __post_init__(self) -> None:
        if self.kind not in ("none", "dct", "klt") or (self.matrix is None) != (self.kind == "none"):
            raise FormatError(f"axis basis: unknown kind {self.kind!r}")
        m = self.matrix
        if self.size < 1 or (m is not None and (m.ndim != 2 or m.shape[0] != self.size or m.shape[1] > self.size)):
            raise FormatError("axis basis: wrong shape")
        if self.logs.shape != (self.kept,) or self.logs.min(initial=0) < 0 or self.logs.max(initial=0) > 1 << 16:
            raise FormatError("axis basis: wrong number of log scales")
        if self.shifts is not None and (self.kind != "klt" or self.shifts.shape != (self.kept,)):
            raise FormatError("axis basis: shifts without columns")

    @property
    def kept(self) -> int:
        """M, how many coefficients the axis keeps."""
        return self.size if self.matrix is None else int(self.matrix.shape[1])


@dataclass(frozen=True)
class Transform:
    """Bases for the variable axis and for all axes of a tile."""

    axes: tuple[AxisBasis, ...]

    @property
    def tile(self) -> tuple[int, ...]:
        """Number of variables and shape of a tile of values."""
        return tuple(a.size for a in self.axes)

    @property
    def kept(self) -> tuple[int, ...]:
        """Number of mixed variables and shape of a tile of coefficients."""
        return tuple(a.kept for a in self.axes)

    def forward(self, x: Array) -> Array:
        """Give the coefficients of tiles (V, B, *tile) in the bases; float64, for the encoder only.

        Rounded columns are not quite orthonormal: the bases' duals are applied, so that large coefficients fit too.
        """
        scaled = self.duals()
        mixed = x if scaled[0] is None else _mixed(scaled[0].T, x)
        if all(m is None for m in scaled[1:]):
            return mixed
        out = np.empty((self.axes[0].kept, x.shape[1], *self.kept[1:]))
        for v, slab in enumerate(mixed):
            y = slab
            for i, m in enumerate(scaled[1:], 1):
                if m is not None:
                    y = _along(y, m, i)
            out[v] = y
        return out

    def duals(self) -> list[Array | None]:
        """Give, by axis, the matrix (n, m) that :meth:`forward` multiplies with, or None."""
        return [
            None if a.matrix is None else _dual(np.ldexp(a.matrix.astype(np.float64), -BASIS_BITS)) for a in self.axes
        ]

    def fraction_for(self, qmax: float) -> int:
        """Give the largest F (at most 8) whose inverse cannot overflow for |q| <= qmax.

        Raises
        ------
        FormatError
            When even F = 0 could overflow.
        """
        for fraction in range(MAX_FRACTION, -1, -1):
            if self._worst(qmax, fraction) < F64_LIMIT:
                return fraction
        raise FormatError("transform: coefficients are too large for exact arithmetic")

    def prove(self, fraction: int, largest: float) -> None:
        """Check that no sum of the inverse can leave the exact range.

        Raises
        ------
        FormatError
            When one could.
        """
        if not (0 <= fraction <= MAX_FRACTION and self._worst(largest, fraction) < F64_LIMIT):
            raise FormatError("transform: coefficients are too large for exact arithmetic")

    def _worst(self, qmax: float, fraction: int) -> float:
        amax, worst = qmax * 2.0**fraction, qmax * 2.0**fraction
        for axis in reversed(self.axes):
            if axis.matrix is None:
                continue
            total = amax * float(np.abs(axis.matrix).astype(np.float64).sum(1).max(initial=0))
            worst = max(worst, total)
            amax = total * 2.0**-BASIS_BITS + 1
        return worst * 1.0000001

    def inverse(self, q: Array, fraction: int) -> Array:
        """Give integers in units of 2**-fraction steps, shape (V, B, *tile), float64, exact on any machine.

        ``q``: integers (V', B, *kept).

        Raises
        ------
        FormatError
            When the overflow proof fails for these coefficients.
        """
        out = np.empty((self.tile[0], q.shape[1], *self.tile[1:]))
        for _ in self.inverse_by_columns(q, fraction, largest_of(q), out.reshape(len(out), -1)):
            pass
        return out

    def inverse_by_columns(
        self, q: Array, fraction: int, largest: float, out: Array | None = None
    ) -> Iterator[tuple[slice, Array]]:
        """Give the inverse some columns of (V, B * points of a tile) at a time, which fit the cache.

        Each lasts until the next one is asked for, or is in its place in ``out``. ``largest``: no magnitude in q is
        larger.

        Raises
        ------
        FormatError
            When the overflow proof fails for these coefficients.
        """
        self.prove(fraction, largest)
        # Powers of two go into a matrix: products and sums stay integers times a power of two, hence exact.
        first = self.axes[0].matrix
        plain = all(a.matrix is None for a in self.axes[1:])
        v, rows = _live_rows(q) if plain else self._inverse_of_grid(q, fraction)
        m: Array | None = None
        if first is not None:
            m = np.asarray(np.ldexp(first.astype(np.float64), fraction * plain - BASIS_BITS))[:, rows]
        count = math.prod((q.shape[1], *self.tile[1:]))
        flat = v.reshape(len(v), count)
        width = max(_VALUES // self.tile[0], _COLUMNS)
        room = np.empty(self.tile[0] * min(count, width) if out is None else 0)
        for k in range(0, count, width):
            here = slice(k, min(k + width, count))
            part = room[: self.tile[0] * (here.stop - k)].reshape(-1, here.stop - k) if out is None else out[:, here]
            if m is None:
                part[...] = 0
                part[rows] = flat[:, here] * 2.0 ** (fraction * plain)
            else:
                np.matmul(m, flat[:, here], out=part)
                np.rint(part, out=part)
            yield here, part

    def _inverse_of_grid(self, q: Array, fraction: int) -> tuple[Array, Array]:
        """Undo the bases of the tile's axes: integers of the variables that are not all zero, and which these are."""
        scaled = [None if a.matrix is None else np.ldexp(a.matrix.T.astype(np.float64), -BASIS_BITS) for a in self.axes]
        slabs = [(i, _trimmed(slab, scaled[1:])) for i, slab in enumerate(q)]
        live = [i for i, y in slabs if y is not None]
        v = np.empty((len(live), q.shape[1], *self.tile[1:]))
        for place, y in zip(v, (y for _, y in slabs if y is not None), strict=True):
            y = np.multiply(y, 2.0**fraction, out=place if y.shape == place.shape else None)
            for axis in range(len(scaled) - 1, 0, -1):
                m = scaled[axis]
                if m is not None:
                    y = _along(y, m[: y.shape[axis]], axis)
                    np.rint(y, out=y)
            if y is not place:
                place[...] = y
        return v, np.array(live, np.int64)


def largest_of(q: Array) -> float:
    """Give the largest magnitude of integers, one variable at a time (it fits the cache); 0 for none."""
    return max((float(max(int(row.max(initial=0)), -int(row.min(initial=0)))) for row in q), default=0.0)


def _live_rows(q: Array) -> tuple[Array, Array]:
    """Rows (V', ...) up to the last that is not all zero, as float64, and their numbers."""
    last = next((i for i in range(len(q) - 1, -1, -1) if q[i].any()), -1)
    return np.asarray(q[: last + 1], np.float64), np.arange(last + 1)


def _dual(m: Array) -> Array:
    """Give D with D.T @ m the identity, for columns m that are nearly orthonormal; nearly, for columns that are not."""
    try:
        out: Array = np.linalg.solve(m.T @ m, m.T).T
    except np.linalg.LinAlgError:
        out = 2 * m - m @ (m.T @ m)
    return out


def _trimmed(slab: Array, bases: list[Array | None]) -> Array | None:
    """Cut (B, *kept) behind the last places that are not zero, along axes with a basis; None where all is zero."""
    live = (slab != 0).any(axis=0)
    if not live.any():
        return None
    cut = [slice(None)]
    for i, m in enumerate(bases):
        seen = live.any(axis=tuple(k for k in range(live.ndim) if k != i))
        cut.append(slice(None) if m is None else slice(0, int(np.flatnonzero(seen)[-1]) + 1))
    return slab[tuple(cut)]


def _mixed(m: Array, x: Array) -> Array:
    """Multiply (n, V) with (V, ...), some columns at a time (they fit the cache)."""
    flat = x.reshape(len(x), -1)
    out = np.empty((len(m), flat.shape[1]))
    for k in range(0, flat.shape[1], _COLUMNS):
        np.matmul(m, flat[:, k : k + _COLUMNS], out=out[:, k : k + _COLUMNS])
    return out.reshape(len(m), *x.shape[1:])


def _along(x: Array, m: Array, axis: int) -> Array:
    """Multiply along one axis: out[..., j, ...] = sum_i x[..., i, ...] m[i, j]."""
    if axis == x.ndim - 1:
        out: Array = x.reshape(-1, x.shape[-1]) @ m
        return out.reshape(*x.shape[:-1], m.shape[1])
    head = int(np.prod(x.shape[:axis], dtype=np.int64))
    flat = np.ascontiguousarray(x).reshape(head, x.shape[axis], -1)
    res: Array = np.matmul(m.T, flat)
    return res.reshape(*x.shape[:axis], m.shape[1], *x.shape[axis + 1 :])


@lru_cache(maxsize=64)
def dct_basis(n: int) -> Array:
    """Orthonormal DCT-II basis (n, n) times 2**15, rounded to nearest: the same integers on every machine.

    Cosines come from an integer Taylor series of 96 fractional bits, so no library's cosine is involved.
    """
    one = 1 << _FIX
    pi = _pi_fixed()
    quarter = [_cos_fixed(pi * j // (2 * n), one) for j in range(n + 1)]
    root_1 = isqrt((one * one) // n)
    root_2 = isqrt((2 * one * one) // n)
    out = np.zeros((n, n), np.int64)
    for k in range(n):
        norm = root_1 if k == 0 else root_2
        for i in range(n):
            c = _cos_index((2 * i + 1) * k, n, quarter)
            scaled = (c * norm) >> _FIX
            out[i, k] = (scaled + (1 << (_FIX - BASIS_BITS - 1))) >> (_FIX - BASIS_BITS)
    out.setflags(write=False)
    return out


def _cos_index(j: int, n: int, quarter: list[int]) -> int:
    """cos(pi * j / (2 n)) from a table of the first quarter."""
    j %= 4 * n
    if j > 2 * n:
        j = 4 * n - j
    return quarter[j] if j <= n else -quarter[2 * n - j]


def _cos_fixed(x: int, one: int) -> int:
    total, term, k = one, one, 0
    while term:
        k += 2
        term = -(((term * x) >> _FIX) * x >> _FIX) // (k * (k - 1))
        total += term
        if -2 < term < 2:
            break
    return total


def _pi_fixed() -> int:
    """Pi with 96 fractional bits by Machin's formula."""

    def arctan_inverse(x: int) -> int:
        term = (1 << (_FIX + 16)) // x
        total, k, sign = 0, 1, 1
        while term:
            total += sign * (term // k)
            term //= x * x
            k, sign = k + 2, -sign
        return total

    return (4 * (4 * arctan_inverse(5) - arctan_inverse(239))) >> 16
