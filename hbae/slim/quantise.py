# SPDX-License-Identifier: MIT
"""Weights as codes: linear steps or a k-means codebook, both with an exact zero."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hbae.arrays import Array
from hbae.codecs import encode_ints, split_book
from hbae.errors import ConfigError
from hbae.slim.trial import Rule

BITS = (16, 8, 6, 4, 3, 2)
_TURNS = 30
_GRID = 32767


@dataclass(frozen=True, eq=False)
class Quantised:
    """Weights as integers of at most 15 bits and a sign: ``weights = unit * integers``."""

    integers: Array
    unit: float

    @property
    def values(self) -> Array:
        """The weights, float64."""
        out: Array = self.integers * self.unit
        return out

    @property
    def density(self) -> float:
        """Share of weights that are not zero."""
        return float(np.count_nonzero(self.integers) / max(1, self.integers.size))

    def encode(self) -> tuple[bytes, bytes]:
        """Give the coded integers, or codes and book where those are smaller; the book is empty in the first case."""
        return encode_layer(self.integers)


def encode_layer(integers: Array) -> tuple[bytes, bytes]:
    """Encode integers as they are (empty second part) or as codes and book, whichever takes fewer bytes."""
    plain = encode_ints(integers.reshape(1, -1))
    parts = split_book(integers.reshape(1, -1))
    if parts is None:
        return plain, b""
    codes, book = encode_ints(parts[0]), encode_ints(parts[1].reshape(1, -1))
    return (codes, book) if len(codes) + len(book) < len(plain) else (plain, b"")


def layer_bytes(integers: Array) -> int:
    """Count the bytes of a layer's integers, book included."""
    return sum(map(len, encode_layer(integers)))


def rule_for(weights: Array, mask: Array, kind: str, bits: int, *, unit: float = 0.0) -> tuple[Rule, float]:
    """Give the rule that quantises a layer to at most ``2**bits`` levels, and the unit of its integers.

    ``kind``: ``linear`` (equal steps, symmetric, the largest weight is met) or ``kmeans`` (levels are the centres of
    clusters of the weights under the mask). Levels are whole multiples of ``unit``; where it is 0, linear levels of
    their own step, centres of the largest magnitude over 32767.

    Raises
    ------
    ConfigError
        For an unknown kind or number of bits.
    """
    if kind not in ("linear", "kmeans") or not 2 <= bits <= 16:
        raise ConfigError(f"slim: cannot quantise by {kind!r} with {bits} bits")
    kept = weights[mask & (weights != 0)]
    top = float(np.abs(kept).max(initial=0.0))
    if top == 0:
        return Rule(mask, np.zeros(1)), unit or 1.0
    half = (1 << (bits - 1)) - 1
    if kind == "linear":
        step = max(round(top / half / unit), 1) * unit if unit else top / half
        reach = min(half, round(top / step))
        return Rule(mask, np.arange(-reach, reach + 1) * step), unit or step
    unit = unit or top / _GRID
    return Rule(mask, np.union1d(np.rint(_centres(kept, (1 << bits) - 1) / unit), [0.0]) * unit), unit


def _centres(values: Array, count: int) -> Array:
    """Lloyd's k-means on a line, from equal quantiles: the same values give the same centres."""
    x = np.sort(values)
    sums = np.concatenate([[0.0], np.cumsum(x)])
    centres = np.unique(np.quantile(x, (np.arange(count) + 0.5) / count))
    for _ in range(_TURNS):
        edges = np.concatenate([[0], np.searchsorted(x, (centres[1:] + centres[:-1]) / 2), [len(x)]])
        filled = np.diff(edges) > 0
        lo, hi = edges[:-1][filled], edges[1:][filled]
        moved = (sums[hi] - sums[lo]) / (hi - lo)
        if len(moved) == len(centres) and np.allclose(moved, centres, rtol=0, atol=1e-12 * abs(float(x[-1] - x[0]))):
            break
        centres = moved
    return np.unique(centres)


def quantise(weights: Array, rule: Rule, unit: float) -> Quantised:
    """Give the nearest weights that keep the rule, as integers in units of ``unit``.

    Raises
    ------
    ConfigError
        When they leave 15 bits.
    """
    integers = np.rint(rule.apply(weights) / unit).astype(np.int64)
    if np.abs(integers).max(initial=0) > _GRID:
        raise ConfigError("slim: a weight has more than 15 bits")
    return Quantised(integers, unit)
