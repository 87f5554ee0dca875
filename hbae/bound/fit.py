# SPDX-License-Identifier: MIT
"""Fits integer bases to sample tiles: PCA along an axis where its bytes pay, DCT elsewhere.

A long axis whose slices are combinations of few (snapshots of a solver, members of an ensemble) takes the leading
columns of its PCA basis: a proper orthogonal decomposition.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hbae.arrays import Array
from hbae.exact import AxisBasis, Transform, dct_basis
from hbae.exact.transform import BASIS_BITS

_FLOOR = 2.0**-24
# Part of the squared tolerance that the columns left out may take.
_TAIL = 0.03


def klt_basis(x: Array, axis: int) -> Array:
    """Give the PCA basis of one axis of any array as (n, n) integers times 2**15, strongest first."""
    return _pca(x, axis)[0]


def leading_basis(x: Array, axis: int, tail: float) -> Array:
    """Give the first columns of :func:`klt_basis`, (n, m): without rounding the rest has a mean square of ``tail``."""
    basis, energy = _pca(x, axis)
    left = np.cumsum(energy[::-1])[::-1] / x.size
    return basis[:, : max(1, int((left > tail).sum()))]


def _pca(x: Array, axis: int) -> tuple[Array, Array]:
    """Integer basis and the energy of each column."""
    n = x.shape[axis]
    flat = np.moveaxis(x, axis, 0).reshape(n, -1)
    values, vectors = np.linalg.eigh(flat @ flat.T)
    order = np.argsort(-values, kind="stable")
    vectors = vectors[:, order]
    signs = np.where(vectors[np.abs(vectors).argmax(0), np.arange(n)] < 0, -1.0, 1.0)
    return np.rint(vectors * signs * 2.0**BASIS_BITS).astype(np.int64), np.maximum(values[order], 0)


def fit_transform(x: Array, kinds: tuple[str, ...]) -> Transform:
    """Fit a transform to tiles (V, B, *tile): a kind for V and for each tile axis.

    ``none``, ``dct``, ``klt``; ``pod``: the leading columns of ``klt``, x being in units of its tolerances.
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
    axes = []
    for place, a in zip(places, plain.axes, strict=True):
        others = tuple(k for k in range(energy.ndim) if k != place)
        axes.append(AxisBasis(a.kind, a.size, a.matrix, log_scales(energy.mean(axis=others))))
    return Transform(tuple(axes))


def refit_variables(transform: Transform, x: Array) -> Transform:
    """Give the transform with the PCA basis of the variables fitted to tiles (V, B, *tile); the rest stays."""
    first = transform.axes[0]
    return Transform((replace(first, matrix=klt_basis(x, 0)), *transform.axes[1:]))


def log_scales(energy: Array) -> Array:
    """Half-log2 steps of magnitude below the largest."""
    top = float(energy.max(initial=0))
    if not top > 0:
        return np.zeros(len(energy), np.int64)
    return np.rint(-np.log2(np.maximum(energy / top, _FLOOR))).astype(np.int64)
