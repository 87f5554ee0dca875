# SPDX-License-Identifier: MIT
"""Separable transform with integer bases and its exact inverse.

A tile of shape (V, t1, ..., tr) is transformed along each axis by an integer basis of 15 fractional bits (PCA basis,
DCT by formula, or none). The inverse works on integers held in float64: ``v = q * 2**F``, then for every axis ``v =
rint((v @ M.T) * 2**-15)``; every sum stays below 2**53, which is proved from max|q| before anything is computed.
"""

from __future__ import annotations

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


@dataclass(frozen=True)
class AxisBasis:
    """Basis of one axis: ``none``, ``dct`` (by formula) or ``klt`` (stored).

    ``matrix``: (n, m) integers, columns are basis vectors times 2**15; None for kind ``none``. ``logs``: (m,)
    expected magnitude of each coefficient, in steps of half a factor of two below the largest (0 = largest); they
    choose contexts of the entropy coder only.
    """

    kind: str
    size: int
    matrix: Array | None
    logs: Array

    def __post_init__(self) -> None:
        if self.kind not in ("none", "dct", "klt") or (self.matrix is None) != (self.kind == "none"):
            raise FormatError(f"axis basis: unknown kind {self.kind!r}")
        m = self.matrix
        if self.size < 1 or (m is not None and (m.ndim != 2 or m.shape[0] != self.size or m.shape[1] > self.size)):
            raise FormatError("axis basis: wrong shape")
        if self.logs.shape != (self.kept,) or self.logs.min(initial=0) < 0 or self.logs.max(initial=0) > 1 << 16:
            raise FormatError("axis basis: wrong number of log scales")

    @property
    def kept(self) -> int:
        """M, how many coefficients the axis keeps."""
        return self.size if self.matrix is None else int(self.matrix.shape[1])


@dataclass(frozen=True)
class Transform:
    """Bases for all axes of a tile."""

    axes: tuple[AxisBasis, ...]

    @property
    def tile(self) -> tuple[int, ...]:
        """Shape of a tile of values."""
        return tuple(a.size for a in self.axes)

    @property
    def kept(self) -> tuple[int, ...]:
        """Shape of a tile of coefficients."""
        return tuple(a.kept for a in self.axes)

    def forward(self, x: Array) -> Array:
        """Project tiles (B, *tile) on the bases; float64, for the encoder only."""
        for i, axis in enumerate(self.axes):
            if axis.matrix is not None:
                x = _along(x, np.ldexp(axis.matrix.astype(np.float64), -BASIS_BITS), i + 1)
        return x

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

    def _worst(self, qmax: float, fraction: int) -> float:
        amax, worst = qmax * 2.0**fraction, qmax * 2.0**fraction
        for axis in self.axes:
            if axis.matrix is None:
                continue
            total = amax * float(np.abs(axis.matrix).astype(np.float64).sum(1).max(initial=0))
            worst = max(worst, total)
            amax = total * 2.0**-BASIS_BITS + 1
        return worst * 1.0000001

    def inverse(self, q: Array, fraction: int) -> Array:
        """Give tiles of integers in units of 2**-fraction steps, shape (B, *tile), float64, exact on any machine.

        Raises
        ------
        FormatError
            When the overflow proof fails for these coefficients.
        """
        qmax = float(max(abs(int(q.max(initial=0))), abs(int(q.min(initial=0)))))
        if not (0 <= fraction <= MAX_FRACTION and self._worst(qmax, fraction) < F64_LIMIT):
            raise FormatError("transform: coefficients are too large for exact arithmetic")
        v = q.astype(np.float64)
        v *= 2.0**fraction
        for i, axis in enumerate(self.axes):
            if axis.matrix is not None:
                v = _along(v, axis.matrix.T.astype(np.float64), i + 1)
                v *= 2.0**-BASIS_BITS
                np.rint(v, out=v)
        return v


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
