# SPDX-License-Identifier: MIT
"""CDF 9/7 wavelet by lifting, in place on a lattice, with one IEEE float64 operation at a time: the same bits anywhere.

Axes come in groups. A group is decomposed level by level, all its axes together; groups are independent of each other
(a tensor product). One group is the isotropic pyramid; (time), (space) is the packet scheme of SPERR. After level l the
low band of an axis lies at indices that are multiples of 2**l. Lengths are any; edges are mirrored.

NumPy is the reference; where ``_lifting.c`` is built, it does the same operations faster.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from hbae.arrays import Array
from hbae.errors import FormatError

try:
    from hbae.exact import _lifting
except ImportError:
    _lifting = None  # type: ignore[assignment]

ALPHA, BETA, GAMMA, DELTA = -1.586134342059924, -0.052980118572961, 0.882911075530934, 0.443506852043971
SCALE = 1.149604398860241
MOST_LEVELS = 6
MOST_AXES = 6
_SHORTEST = 9

Slices = tuple[slice, ...]
# Axis and strides (by axis) of the lattice that is lifted along it.
Pass = tuple[int, tuple[int, ...]]


@dataclass(frozen=True)
class Band:
    """A subband of a grid: where it lies, its ``shape``, and the numbers of bands before that tell of it (-1: none).

    ``parent``: the coarser one of the same kind. ``siblings``: those of the same steps in the last group, and the same
    band in all others. ``cousin``: the band before in the first group, the same in all others.
    """

    place: Slices
    parent: int
    siblings: tuple[int, ...]
    cousin: int
    shape: tuple[int, ...]

    @cached_property
    def others(self) -> tuple[int, ...]:
        """Numbers of the bands that tell of it: parent, cousin, siblings."""
        return tuple(i for i in (self.parent, self.cousin, *self.siblings) if i >= 0)

    @cached_property
    def steps(self) -> tuple[int, ...]:
        """From one of its points to the next, by axis of the grid."""
        return tuple(p.step for p in self.place)

    @cached_property
    def cells(self) -> int:
        """Points with a border of one along every axis."""
        return math.prod(n + 2 for n in self.shape)


@dataclass(frozen=True)
class Wavelet:
    """Groups of grid axes, each axis in one of them."""

    groups: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        axes = [a for g in self.groups for a in g]
        if sorted(axes) != list(range(len(axes))) or not all(self.groups) or not 1 <= len(axes) <= MOST_AXES:
            raise FormatError(f"wavelet: every axis must be in one group, and there are 1 to {MOST_AXES}")

    @property
    def rank(self) -> int:
        """Number of grid axes."""
        return sum(len(g) for g in self.groups)

    def forward(self, x: Array) -> None:
        """Transform a grid in place, float64."""
        _lift(x, self._passes(x.shape), inverse=False)

    def inverse(self, x: Array) -> None:
        """Undo :meth:`forward` in place, float64, the same bits on any machine."""
        _lift(x, self._passes(x.shape)[::-1], inverse=True)

    @lru_cache(maxsize=256)  # noqa: B019
    def _passes(self, shape: tuple[int, ...]) -> tuple[Pass, ...]:
        """Lifting passes in forward order."""
        found = []
        for group in self.groups:
            for level in range(max(num_levels(shape[a]) for a in group)):
                strides = {a: 1 << min(level, num_levels(shape[a])) for a in group}
                lattice = tuple(strides.get(a, 1) for a in range(len(shape)))
                found += [(a, lattice) for a in group if level < num_levels(shape[a])]
        return tuple(found)

    @lru_cache(maxsize=256)  # noqa: B019
    def bands(self, shape: tuple[int, ...]) -> tuple[Band, ...]:
        """List all bands, coarser before finer ones of the same kind; together they hold every point once."""
        own = [_group_bands(group, shape) for group in self.groups]
        last = own[-1]
        # Places in the list from one band of the first group to the next, for more than one group.
        stride = math.prod(len(o) for o in own[1:]) if len(own) > 1 else 0
        found = []
        for i, parts in enumerate(itertools.product(*own)):
            places = {a: s for p, _ in parts for a, s in p.items()}
            first = i - i % len(last)
            mine, parent = parts[-1]
            alike = [k for k in range(i % len(last)) if _steps(last[k][0]) == _steps(mine)]
            found.append(
                Band(
                    tuple(places[a] for a in range(self.rank)),
                    first + parent if parent >= 0 else -1,
                    tuple(first + k for k in alike),
                    i - stride if stride and i >= stride else -1,
                    tuple(len(range(*places[a].indices(n))) for a, n in enumerate(shape)),
                )
            )
        return tuple(found)


def scale_and_round(x: Array, factor: float) -> float:
    """Multiply float64 in place and round half to even; give the largest magnitude, infinite where one is no number."""
    if _lifting is not None and x.flags.c_contiguous:
        return float(_lifting.scale_and_round(x, factor))
    x *= factor
    np.rint(x, out=x)
    largest = float(max(x.max(), -x.min()))
    return math.inf if math.isnan(largest) else largest


def num_levels(n: int) -> int:
    """How often an axis of that length is halved."""
    levels = 0
    while n >= _SHORTEST and levels < MOST_LEVELS:
        n, levels = (n + 1) // 2, levels + 1
    return levels


def _group_bands(group: tuple[int, ...], shape: tuple[int, ...]) -> list[tuple[dict[int, slice], int]]:
    levels = {a: num_levels(shape[a]) for a in group}
    out = [({a: slice(0, None, 1 << levels[a]) for a in group}, -1)]
    kinds: dict[tuple[tuple[int, int], ...], int] = {}
    for level in range(max(levels.values()), 0, -1):
        active = [a for a in group if levels[a] >= level]
        for parity in itertools.product((0, 1), repeat=len(active)):
            if not any(parity):
                continue
            place = {a: slice(0, None, 1 << levels[a]) for a in group}
            for a, odd in zip(active, parity, strict=True):
                place[a] = slice(odd << (level - 1), None, 1 << level)
            kind = tuple((a, odd) for a, odd in zip(active, parity, strict=True) if odd)
            out.append((place, kinds.get(kind, -1)))
            kinds[kind] = len(out) - 1
    return out


def _steps(places: dict[int, slice]) -> list[int]:
    return [s.step for s in places.values()]


def _lift(x: Array, passes: tuple[Pass, ...], *, inverse: bool) -> None:
    """Make lifting passes, or undo them."""
    if _lifting is not None and x.flags.c_contiguous and x.dtype == np.float64:
        _lifting.lift(x, x.shape, passes, inverse)
        return
    for axis, strides in passes:
        view = np.moveaxis(x[tuple(slice(None, None, s) for s in strides)], axis, 0)
        (_lift_back if inverse else _lift_there)(view[0::2], view[1::2])


def _lift_there(even: Array, odd: Array) -> None:
    odd += ALPHA * _around_odd(even, len(odd))
    even += BETA * _around_even(odd, len(even))
    odd += GAMMA * _around_odd(even, len(odd))
    even += DELTA * _around_even(odd, len(even))
    even *= SCALE
    odd /= SCALE


def _lift_back(even: Array, odd: Array) -> None:
    even /= SCALE
    odd *= SCALE
    even -= DELTA * _around_even(odd, len(even))
    odd -= GAMMA * _around_odd(even, len(odd))
    even -= BETA * _around_even(odd, len(even))
    odd -= ALPHA * _around_odd(even, len(odd))


def _around_odd(even: Array, count: int) -> Array:
    """Sum of the even neighbours before and after each odd point; mirrored at the end."""
    total = even[:count].copy()
    both = min(count, len(even) - 1)
    total[:both] += even[1 : both + 1]
    total[both:] += even[both:count]
    return total


def _around_even(odd: Array, count: int) -> Array:
    """Sum of the odd neighbours before and after each even point; mirrored at both ends."""
    total = np.empty((count, *odd.shape[1:]), odd.dtype)
    total[0] = odd[0]
    total[1:] = odd[: count - 1]
    total[: len(odd)] += odd
    total[len(odd) :] += odd[len(odd) - 1 :]
    return total
