# SPDX-License-Identifier: MIT
"""Fits integer bases to sample tiles: PCA along an axis where its bytes pay, DCT elsewhere."""

from __future__ import annotations

import numpy as np

from hbae.arrays import Array
from hbae.exact import AxisBasis, Transform, dct_basis
from hbae.exact.transform import BASIS_BITS

_FLOOR = 2.0**-24


def klt_basis(x: Array, axis: int) -> Array:
    """Give the PCA basis of one axis of (B, t0, t1, ...) as (n, n) integers times 2**15, strongest first."""
    n = x.shape[axis]
    flat = np.moveaxis(x, axis, 0).reshape(n, -1)
    values, vectors = np.linalg.eigh(flat @ flat.T)
    vectors = vectors[:, np.argsort(-values, kind="stable")]
    signs = np.where(vectors[np.abs(vectors).argmax(0), np.arange(n)] < 0, -1.0, 1.0)
    return np.rint(vectors * signs * 2.0**BASIS_BITS).astype(np.int64)


def fit_transform(x: Array, kinds: tuple[str, ...]) -> Transform:
    """Fit a transform of the given kind per axis (``none``, ``dct``, ``klt``) to tiles (B, t0, t1, ...)."""
    bases: list[tuple[str, Array | None]] = []
    for i, kind in enumerate(kinds):
        n = x.shape[i + 1]
        if kind == "none" or n == 1:
            bases.append(("none", None))
        elif kind == "dct":
            bases.append(("dct", dct_basis(n)))
        else:
            bases.append(("klt", klt_basis(x, i + 1)))
    plain = Transform(
        tuple(AxisBasis(k, x.shape[i + 1], m, np.zeros(x.shape[i + 1], np.int64)) for i, (k, m) in enumerate(bases))
    )
    c = plain.forward(x)
    energy = c * c
    axes = []
    for i, a in enumerate(plain.axes):
        others = tuple(k for k in range(energy.ndim) if k != i + 1)
        axes.append(AxisBasis(a.kind, a.size, a.matrix, _logs(energy.mean(axis=others))))
    return Transform(tuple(axes))


def _logs(energy: Array) -> Array:
    """Half-log2 steps of magnitude below the largest."""
    top = float(energy.max(initial=0))
    if not top > 0:
        return np.zeros(len(energy), np.int64)
    return np.rint(-np.log2(np.maximum(energy / top, _FLOOR))).astype(np.int64)
