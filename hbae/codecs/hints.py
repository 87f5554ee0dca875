# SPDX-License-Identifier: MIT
"""What is told of the sizes of a wavelet band: by the bands before it at the same places, and by the variables before.

NumPy is the reference; where ``_hints.c`` is built, it does the same faster.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from hbae.arrays import Array
from hbae.codecs.neighbours import GUIDE_BITS, GUIDE_CLASS, next_guide

try:
    from hbae.codecs import _hints
except ImportError:
    _hints = None  # type: ignore[assignment]

# Weights of what is known elsewhere: parent (a quarter of its size), siblings, cousin; the guide.
_BAND, _GUIDE = 2, 1
_NOTHING = np.zeros(0, np.uint16)
# The number of another band, ratios and factor as of :class:`Seen`.
Told = tuple[int, tuple[int, ...], int]
# Sizes of a band and where each variable is in them (-1: nowhere), their shape, ratios, factor.
View = tuple[Array, Array, tuple[int, ...], tuple[int, ...], int]


class Sizes(NamedTuple):
    """Sizes (uint16) of a band's variables ``rows`` (R of them, ascending), (R, *shape)."""

    rows: Array
    values: Array


class Seen(NamedTuple):
    """Another band as it is seen from a band: at each point the same place there, or its last one.

    ``band``: None where no variable has anything there. ``ratios``: by axis, how many of the band's indices see one of
    the other's. ``factor``: of its sizes, in 16ths; 0 for siblings, whose mean counts.
    """

    band: Sizes | None
    ratios: tuple[int, ...]
    factor: int


@dataclass(frozen=True, eq=False)
class Hints:
    """What bands before tell of a band's variables ``rows``; ``seen``: these bands, the siblings last."""

    rows: Array
    shape: tuple[int, ...]
    seen: Sequence[Seen]

    def of(self, part: slice, guide: Array | None) -> Array | None:
        """Give the weighted mean (16ths) of what bands and the guide tell some variables, and the guide's class.

        uint16 (V, *shape) as :meth:`Phase.contexts` wants it; None where nothing is known.
        """
        if guide is None and not self.seen:
            return None
        if _hints is not None:
            out = np.empty((part.stop - part.start, *self.shape), np.uint16)
            near = _NOTHING if guide is None else guide
            _hints.join(*self.views, self.shape, part.start, near, GUIDE_CLASS, out)
            return out
        total, weight = self._total(part)
        if guide is None:
            return (total // weight).astype(np.uint16) << GUIDE_BITS
        mean = ((total + guide) // (weight + _GUIDE)).astype(np.uint16)
        hints: Array = (mean << GUIDE_BITS) + GUIDE_CLASS[guide]
        return hints

    @cached_property
    def views(self) -> tuple[tuple[View, ...], int]:
        """What kernels want of the bands that are seen, and how many of these are siblings."""
        out = []
        for s in self.seen:
            sizes = np.zeros((0, *self.shape), np.uint16) if s.band is None else s.band.values
            out.append((sizes, self._there(s), sizes.shape[1:], s.ratios, s.factor))
        return tuple(out), sum(not s.factor for s in self.seen)

    def _there(self, seen: Seen) -> Array:
        if seen.band is None:
            return np.full(len(self.rows), -1)
        if seen.band.rows is self.rows:
            return np.arange(len(self.rows))
        index = np.minimum(np.searchsorted(seen.band.rows, self.rows), len(seen.band.rows) - 1)
        there: Array = np.where(seen.band.rows[index] == self.rows, index, -1)
        return there

    def _total(self, part: slice) -> tuple[Array, int]:
        """Weighted sum of what bands tell, uint32 (V, *shape), and the weights."""
        total = np.zeros((part.stop - part.start, *self.shape), np.uint32)
        near, weight = total.copy(), 0
        views, siblings = self.views
        for sizes, there, shape, ratios, factor in views:
            live = np.flatnonzero(there[part] >= 0)
            seen = sizes[there[part][live]]
            for axis, (n, ratio, length) in enumerate(zip(self.shape, ratios, shape, strict=True), 1):
                seen = np.take(seen, np.minimum(np.arange(n) // ratio, length - 1), axis=axis)
            (total if factor else near)[live] += seen * np.uint32(_BAND * factor if factor else 1)
            weight += _BAND if factor else 0
        if siblings:
            total += _BAND * (16 * near // siblings)
            weight += _BAND
        return total, weight


def settle(known: Array, guide: Array | None, sizes: Array) -> Array:
    """Write a set's sizes (V, *shape) from ``known`` (V, *shape + 2), with a border; give the guide after it."""
    if _hints is not None:
        out = np.empty(sizes.shape[1:], np.uint16)
        _hints.settle(known, sizes.shape[1:], _NOTHING if guide is None else guide, sizes, out)
        return out
    sizes[...] = known[(slice(None), *(slice(1, -1),) * (known.ndim - 1))]
    return next_guide(guide, sizes).astype(np.uint16)
