# SPDX-License-Identifier: MIT
"""Fits integer bases to sample tiles: PCA along an axis where its bytes pay, DCT elsewhere.

A long axis whose slices are combinations of few (snapshots of a solver, members of an ensemble) takes the leading
columns of its PCA basis: a proper orthogonal decomposition.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from hbae.arrays import Array
from hbae.exact import AxisBasis, Transform, dct_basis
from hbae.exact.transform import BASIS_BITS

_FLOOR = 2.0**-24
# Part of the squared tolerance that the columns left out may take, and that rounding those in the basis may.
_TAIL, _ROUNDED = 0.03, 0.005
# The squared error that rounding to steps makes.
_STEP = 1 / 12
# Columns keep that many bits of entries of their usual size, sign aside, whatever they are for.
_LEAST_BITS = 3


def klt_basis(x: Array, axis: int) -> Array:
    """Give the PCA basis of one axis of any array as (n, n) integers times 2**15, strongest first."""
    return _pca(x, axis)[0]


def leading_basis(x: Array, axis: int, tail: float) -> Array:
    """Give the first columns of :func:`klt_basis`, (n, m): without rounding the rest has a mean square of ``tail``."""
    basis, energy = _pca(x, axis)
    left = np.cumsum(energy[::-1])[::-1] / x.size
    return basis[:, : max(1, int((left > tail).sum()))]


def with_precision(axis: AxisBasis, energy: Array, room: float) -> AxisBasis:
    """Round the columns of a PCA basis as far as their coefficients allow; others stay.

    ``energy``: mean square of each column's coefficients. ``room``: squared tolerance of a value, in the same units;
    rounding all columns takes a small part of it.
    """
    if axis.matrix is None or axis.kind != "klt":
        return axis
    allowed = _ROUNDED * room * 12 / (max(axis.kept, 1) * np.maximum(energy, 1e-300))
    most = BASIS_BITS - _LEAST_BITS - math.log2(axis.size) / 2
    shifts = np.clip(np.floor(BASIS_BITS + np.log2(allowed) / 2), 0, max(0, int(most))).astype(np.int64)
    return rounded_to(replace(axis, shifts=shifts), axis.matrix * 2.0**-BASIS_BITS)


def rounded_to(axis: AxisBasis, matrix: Array) -> AxisBasis:
    """Give the basis with these columns (n, m), rounded to what its shifts allow."""
    unit = np.exp2(np.zeros(axis.kept) if axis.shifts is None else axis.shifts)
    return replace(axis, matrix=(np.rint(matrix * 2.0**BASIS_BITS / unit) * unit).astype(np.int64))


def precise(mix: Transform, x: Array) -> Transform:
    """Round a basis over the variables, of nothing else, as far as values x (V, n), in steps, allow."""
    (axis,) = mix.axes
    if axis.matrix is None:
        return mix
    c = (axis.matrix.T * 2.0**-BASIS_BITS) @ x
    return Transform((with_precision(axis, _energy_at_work(c * c), _STEP),))


def _energy_at_work(energy: Array) -> Array:
    """Mean square of coefficients (m,), given (m, n), over places that count by their energy: bits are spent there."""
    weights = energy.sum(axis=0)
    return np.asarray(energy @ weights / max(float(weights.sum()), 1e-300))


def _pca(x: Array, axis: int) -> tuple[Array, Array]:
    """Integer basis and the energy of each column."""
    n = x.shape[axis]
    flat = np.moveaxis(x, axis, 0).reshape(n, -1)
    values, vectors = np.linalg.eigh(flat @ flat.T)
    order = np.argsort(-values, kind="stable")
    vectors = vectors[:, order]
    signs = np.where(vectors[np.abs(vectors).argmax(0), np.arange(n)] < 0, -1.0, 1.0)
    return np.rint(vectors * signs * 2.0**BASIS_BITS).astype(np.int64), np.maximum(values[order], 0)


def fit_transform(x: Array, kinds: tuple[str, ...], room: float = 1.0) -> Transform:
    """Fit a transform to tiles (V, B, *tile): a kind for V and for each tile axis.

    ``none``, ``dct``, ``klt``; ``pod``: the leading columns of ``klt``, x being in units of its tolerances. ``room``:
    the squared tolerance of a value, in units of x: with axes of tiles, columns are no more precise than they need be.
    """
    lengths = (len(x), *x.shape[2:])
    places = (0, *range(2, x.ndim))
    bases: list[tuple[str, Array | None]] = []
    for n, place, kind in zip(lengths, places, kinds, strict=True):
        if kind == "none" or n == 1:
            bases.append(("none", None))
        elif kind == "dct":
            bases.append(("dct", dct_basis(n)))
        else:
            bases.append(("klt", klt_basis(x, place) if kind == "klt" else leading_basis(x, place, _TAIL)))
    plain = Transform(
        tuple(
            AxisBasis(k, n, m, np.zeros(n if m is None else m.shape[1], np.int64))
            for n, (k, m) in zip(lengths, bases, strict=True)
        )
    )
    c = plain.forward(x)
    energy = c * c
    axes, with_tiles = [], any(a.kind != "none" for a in plain.axes[1:])
    for place, a in zip(places, plain.axes, strict=True):
        others = tuple(k for k in range(energy.ndim) if k != place)
        a = replace(a, logs=log_scales(energy.mean(axis=others)))
        if with_tiles:
            a = with_precision(a, _energy_at_work(np.moveaxis(energy, place, 0).reshape(a.kept, -1)), room)
        axes.append(a)
    return Transform(tuple(axes))


def refit_variables(transform: Transform, x: Array) -> Transform:
    """Give the transform with the PCA basis of the variables fitted to tiles (V, B, *tile); the rest stays."""
    first = replace(transform.axes[0], matrix=klt_basis(x, 0), shifts=None)
    return Transform((first, *transform.axes[1:]))


def log_scales(energy: Array) -> Array:
    """Half-log2 steps of magnitude below the largest."""
    top = float(energy.max(initial=0))
    if not top > 0:
        return np.zeros(len(energy), np.int64)
    return np.rint(-np.log2(np.maximum(energy / top, _FLOOR))).astype(np.int64)
