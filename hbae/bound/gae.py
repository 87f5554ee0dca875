# SPDX-License-Identifier: MIT
"""GAE: per block, the fewest quantised coefficients that bring the residual under its limit (hbae_paper.md 2.2).

Coefficients go by squared size until ``||r||_2 <= tau``; with bin ``2 tau / sqrt(P)`` a fully coded block always
passes for an orthonormal basis. All sums are float64 suffix sums; whether it held is judged later on decoded values.
"""

from __future__ import annotations

import numpy as np

from hbae.arrays import Array


def select_coefficients(c: Array, limits: Array) -> Array:
    """Give integers (B, M) with zeros wherever a coefficient is not needed.

    Parameters
    ----------
    c : (B, M) float64 array
        Coefficients in bins.
    limits : (B,) float64 array
        Largest squared error of each block, in squared bins; blocks with infinite limits get zeros.
    """
    q = np.rint(c)
    order = np.argsort(-np.abs(c), axis=1, kind="stable")
    sorted_c = np.take_along_axis(c, order, axis=1)
    sorted_q = np.take_along_axis(q, order, axis=1)
    left = sorted_c * sorted_c
    rest = np.cumsum(left[:, ::-1], axis=1)[:, ::-1]
    coded = np.cumsum((sorted_c - sorted_q) ** 2, axis=1)
    # Error with the first k kept, k = 0 .. M: coded[k-1] + rest[k].
    error = np.concatenate([rest, np.zeros((len(c), 1))], axis=1)
    error[:, 1:] += coded
    enough = error <= limits[:, None] * (1 - 1e-6)
    keep = np.where(enough.any(1), enough.argmax(1), c.shape[1])
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.arange(c.shape[1])[None, :].repeat(len(c), 0), axis=1)
    return np.where(ranks < keep[:, None], q, 0.0)
