# SPDX-License-Identifier: MIT
"""What a rival is: an array and a setting in its units go in, bytes come out, and back.

To add one, write a class with the members of :class:`Rival` and name it in :mod:`hbae.compare.rivals`.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from hbae.arrays import Array
from hbae.errors import FieldError, MissingExtraError

EXTRA = "compare"
METRICS = ("nrmse", "max")


@dataclass(frozen=True)
class Encoded:
    """What decoding needs, and ``nbytes``: the size that counts for the rival (without any container around it)."""

    payload: bytes
    nbytes: int


class Rival(Protocol):
    """A compressor; its setting is a positive number in the units of the array: larger is smaller and worse.

    Both ``encode`` and ``decode`` raise ``FieldError`` for arrays that it does not take, before it sees them.
    """

    @property
    def name(self) -> str:
        """Name in tables."""

    @property
    def label(self) -> str:
        """The way it is used, in words: algorithm, mode, order of axes."""

    @property
    def bounds(self) -> tuple[str, ...]:
        """Kinds of bound that it knows by itself, in hbae's names; none for a lossless one."""

    @property
    def steps(self) -> bool:
        """Tell whether the setting counts only to the power of two below it."""

    def require(self) -> None:
        """Raise ``MissingExtraError`` where the package behind it is not installed."""

    def variants(self, shape: tuple[int, ...], metric: str) -> Sequence[Rival]:
        """Give the ways to use it on an array of that shape; the smallest at equal error counts. The usual one first.

        ``metric`` is ``nrmse`` or ``max``.
        """

    def encode(self, array: Array, setting: float) -> Encoded:
        """Give the payload of an array at a setting."""

    def decode(self, encoded: Encoded, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Give the array back from its payload alone."""


@dataclass(frozen=True)
class Turned:
    """A rival that gets the axes of every array in another order, and gives them back in theirs."""

    rival: Rival
    order: tuple[int, ...]

    @property
    def name(self) -> str:
        """Name of the rival."""
        return self.rival.name

    @property
    def label(self) -> str:
        """Label of the rival and the order of axes, slowest first."""
        return f"{self.rival.label}, axes {' '.join(map(str, self.order))}"

    @property
    def bounds(self) -> tuple[str, ...]:
        """As the rival."""
        return self.rival.bounds

    @property
    def steps(self) -> bool:
        """As the rival."""
        return self.rival.steps

    def require(self) -> None:
        """As the rival."""
        self.rival.require()

    def variants(self, shape: tuple[int, ...], metric: str) -> Sequence[Rival]:
        """Give itself alone."""
        return (self,)

    def encode(self, array: Array, setting: float) -> Encoded:
        """Give the payload of the turned array."""
        return self.rival.encode(np.ascontiguousarray(array.transpose(self.order)), setting)

    def decode(self, encoded: Encoded, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Give the array back, turned back."""
        turned = self.rival.decode(encoded, tuple(shape[a] for a in self.order), dtype)
        return np.ascontiguousarray(turned.transpose(np.argsort(self.order)))


def turned(rival: Rival, shape: tuple[int, ...]) -> list[Rival]:
    """Give the rival as it is and with each other axis of more than one point as the fastest."""
    rank = len(shape)
    others = [a for a in range(rank - 1) if shape[a] > 1 and any(n > 1 for n in shape[a + 1 :])]
    return [rival, *(Turned(rival, (*(b for b in range(rank) if b != a), a)) for a in others)]


def plain(array: Array) -> Array:
    """Give a contiguous native-endian float32 or float64 array; the rivals turn anything else into garbage silently.

    Raises
    ------
    FieldError
        For other element types or values that are not finite.
    """
    if array.dtype.kind != "f" or array.dtype.itemsize not in (4, 8):
        raise FieldError(f"rivals take float32 and float64, not {array.dtype}")
    x = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))
    if x.size == 0 or not math.isfinite(float(x.min())) or not math.isfinite(float(x.max())):
        raise FieldError("rivals take arrays with points, all of them finite; fill invalid points first")
    return x


def layout(shape: tuple[int, ...], most: int, shortest: int = 1) -> tuple[int, ...]:
    """Give a shape of the same points in the same order: no axes of 1, at most ``most`` axes, short ones merged.

    An axis of fewer than ``shortest`` points is merged with the next slower one (the first: the next faster one).
    """
    axes = [n for n in shape if n != 1] or [1]
    while len(axes) > most:
        axes[:2] = [axes[0] * axes[1]]
    while len(axes) > 1 and min(axes) < shortest:
        a = max(axes.index(min(axes)), 1)
        axes[a - 1 : a + 1] = [axes[a - 1] * axes[a]]
    return tuple(axes)


def package(module: str) -> Any:
    """Import a package of the extra ``compare``.

    Raises
    ------
    MissingExtraError
        Where it is not installed; the message names the extra.
    """
    try:
        return importlib.import_module(module)
    except ImportError as e:
        raise MissingExtraError(module, EXTRA) from e
