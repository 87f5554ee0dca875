# SPDX-License-Identifier: MIT
"""Rotates a basis over the variables until coefficients take few bits.

PCA makes coefficients uncorrelated over all places together, and looks at the large ones most. What is paid for are
bits, which grow by the logarithm: directions in which few coefficients are large at a time are worth more (independent
components, with the cost of coding as their contrast).
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from hbae.arrays import Array
from hbae.bound.fit import log_scales, rounded_to
from hbae.exact import BASIS_BITS, AxisBasis, Transform

# Angles that are tried for each pair of directions; turns over all pairs.
_ANGLES = np.outer([-1, 1], [0.012, 0.03, 0.07, 0.15, 0.3, 0.6]).ravel()
SWEEPS = 4
# What a squared step counts in the bits of a coefficient, log2(1 + weight y^2) / 2.
_WEIGHT = 4.0
# Directions along which no coefficient is larger, in steps, cost nothing and stay.
_STILL = 0.5
# Bits, doubled, for which no pair is turned. Factors that are multiplied before their logarithm is taken, and the
# largest coefficient that their product holds.
_IDLE, _FACTORS, _MOST = 1.0, 8, 1e6


def rotated(mix: Transform, c: Array, *, sweeps: int = SWEEPS) -> Transform:
    """Give a basis over the variables, of nothing else, in which values c (V, n), in steps, take few bits."""
    (axis,) = mix.axes
    if axis.matrix is None:
        return mix
    m = rotate_to_few_bits(_floats(axis.matrix), c, sweeps=sweeps)
    logs = log_scales((np.clip(m.T @ c, -_MOST, _MOST) ** 2).mean(axis=1)) if c.size else axis.logs
    return Transform((rounded_to(replace(axis, logs=logs, shifts=None), m),))


def carried(axis: AxisBasis, factor: Array) -> AxisBasis:
    """Give a basis over the variables for their steps times ``factor`` (V,).

    What its first columns span is what they spanned, so that dependences between variables are kept.
    """
    if axis.matrix is None:
        return axis
    q, r = np.linalg.qr(_floats(axis.matrix) / factor[:, None])
    if axis.shifts is not None:
        # Finer steps see more of what is rounded: as many bits more as they do in the mean square. Bits for the finest
        # step alone would be paid for by all.
        finer = round(math.log2(max(1.0, float(np.sqrt((1 / np.maximum(factor, 2.0**-BASIS_BITS) ** 2).mean())))))
        axis = replace(axis, shifts=np.maximum(axis.shifts - finer, 0))
    return rounded_to(axis, q * np.where(np.diagonal(r) < 0, -1.0, 1.0))


def _floats(matrix: Array) -> Array:
    return np.ldexp(matrix.astype(np.float64), -BASIS_BITS)


def rotate_to_few_bits(basis: Array, c: Array, *, sweeps: int = SWEEPS) -> Array:
    """Give an orthonormal basis (V, V) near another one in which values c (V, n), in steps, take fewer bits.

    Pairs of directions are turned by the best of some angles, one pair after the other (Jacobi). Those that take most
    bits come first, each with its largest part positive.
    """
    m, y = basis.copy(), np.clip(basis.T @ c, -_MOST, _MOST)
    # Whole products of factors.
    y = np.pad(y, ((0, 0), (0, -y.shape[1] % _FACTORS)))
    for _ in range(sweeps):
        live = np.flatnonzero((np.abs(y) > _STILL).any(axis=1)).tolist()
        turned = [_turn(m, y, i, j) for k, i in enumerate(live) for j in live[k + 1 :]]
        if not any(turned):
            break
    m = m[:, np.argsort(-_bits(1 + _WEIGHT * y * y), kind="stable")]
    signs: Array = np.where(m[np.abs(m).argmax(axis=0), np.arange(len(m))] < 0, -1.0, 1.0)
    return m * signs


def _turn(m: Array, y: Array, i: int, j: int) -> bool:
    """Turn two columns of the basis, and their coefficients, by the best angle; tell whether any is worth it."""
    x = _WEIGHT * y[[i, j]] ** 2
    p, both = x[0] * x[1], x.sum(axis=0)
    # (1 + w a^2) (1 + w b^2) after a turn: what stays, and what the angle weighs.
    parts = np.stack([1 + both, both * both - 2 * p, p, (x[1] - x[0]) * (2 * _WEIGHT * y[i] * y[j])])
    bits = _bits(_TURNS @ parts)
    best = int(bits[1:].argmin())
    if not bits[1 + best] < bits[0] - _IDLE:
        return False
    c, s = np.cos(_ANGLES[best]), np.sin(_ANGLES[best])
    turn = np.array([[c, s], [-s, c]])
    y[[i, j]] = turn @ y[[i, j]]
    m[:, [i, j]] = m[:, [i, j]] @ turn.T
    return True


def _turns(angles: Array) -> Array:
    """Weights of the parts of a product of two factors, by angle."""
    c, s = np.cos(angles), np.sin(angles)
    return np.column_stack([np.ones(len(c)), (c * s) ** 2, c**4 + s**4 - 4 * (c * s) ** 2, c * s * (c * c - s * s)])


_TURNS = _turns(np.concatenate([[0.0], _ANGLES]))


def _bits(factors: Array) -> Array:
    """Sum of the logarithms of each row, to base 2."""
    rows = factors.reshape(len(factors), _FACTORS, -1).prod(axis=1)
    return np.asarray(np.log2(np.maximum(rows, 1.0)).sum(axis=1))
