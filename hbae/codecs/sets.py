# SPDX-License-Identifier: MIT
"""The variables of a wavelet band, set by set, coded phase by phase with contexts from all that is known of them.

NumPy and the kernels of single steps are the reference; where ``_sets.c`` is built, it reads a whole set at once, and
all bands where variables are not related.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from hbae.arrays import Array
from hbae.codecs.contexts import Buffers, SymbolReader, SymbolWriter, check_fault
from hbae.codecs.hints import Hints, Told, settle
from hbae.codecs.neighbours import (
    GUIDE_CLASS,
    FixedPhase,
    Phase,
    Spot,
    classes_of,
    fixed_phases,
    lattice_of,
    phases_of,
    sets_of,
)
from hbae.codecs.related import (
    CLASS_LIMITS,
    CLASSES,
    MOST_LEADERS,
    Around,
    Expected,
    Fixed,
    join_expected,
    split_expected,
)

try:
    from hbae.codecs import _sets
except ImportError:
    _sets = None  # type: ignore[assignment]

_NOTHING, _NO_BLOCK = np.zeros(0, np.uint16), np.zeros(0, np.int16)
_NO_AROUND: Fixed = (_NO_BLOCK, (), (), 0, 0, CLASS_LIMITS, 0.0)


class FixedBand(NamedTuple):
    """What the kernel needs of a band.

    ``first``: its first place in a variable's flat grid. ``shape``, ``steps``: as of a :class:`Spot`. ``bare``,
    ``hinted``: its phases where nothing is told of a set, and where something is. ``told``: by which bands, their
    ratios and factors as of :class:`~hbae.codecs.hints.Seen`, siblings last.
    """

    first: int
    shape: tuple[int, ...]
    steps: tuple[int, ...]
    bare: tuple[FixedPhase, ...]
    hinted: tuple[FixedPhase, ...]
    told: tuple[Told, ...]

    @classmethod
    def of(cls, grid: tuple[int, ...], place: tuple[slice, ...], told: tuple[Told, ...]) -> FixedBand:
        """Describe the band of a variable's ``grid`` that lies at ``place``."""
        shape, steps, first = lattice_of(grid, place)
        bare, hinted = (fixed_phases(shape, hinted=h, classes=0) for h in (False, True))
        return cls(first, shape, steps, bare, hinted, told)


def read_bands(grid: Array, bands: tuple[FixedBand, ...], live: Array, symbols: SymbolReader) -> bool:
    """Read all bands (those ``live``, (bands, V)) into a grid (V, ...) of zeros; False where no kernel is built.

    Raises
    ------
    FormatError
        When the stream is damaged.
    """
    if _sets is None or symbols.buffers is None:
        return False
    check_fault(_sets.read_bands(bands, live.view(np.uint8), grid, classes_of(0), GUIDE_CLASS, symbols.buffers))
    return True


@dataclass(frozen=True, eq=False)
class BandSets:
    """All variables of a band that are not zero, V of them.

    ``spot``: where they lie. ``hints``: what other bands tell of their sizes. ``sizes``: theirs, uint16 (V, *shape),
    written. ``around``: what is around them where variables are related.
    """

    spot: Spot
    hints: Hints
    sizes: Array
    around: Around | None

    def encode(self, symbols: SymbolWriter) -> None:
        """Write the integers in their places."""
        for some in self._sets():
            some.encode(symbols)

    def decode(self, symbols: SymbolReader) -> None:
        """Read the integers into their places, which hold zeros.

        Raises
        ------
        FormatError
            When the stream is damaged.
        """
        for some in self._sets():
            some.decode(symbols)

    def _sets(self) -> Iterator[BandSet]:
        """Give set by set; each must be coded before the next one."""
        shape, guide = self.spot.shape, None
        for part in sets_of(len(self.sizes), MOST_LEADERS if self.around is not None else None):
            known = np.zeros((part.stop - part.start, *(n + 2 for n in shape)), np.uint16)
            yield BandSet(self.spot.of(part), known, self.hints.of(part, guide), part, self.around)
            guide = settle(known, guide, self.sizes[part])


@dataclass(frozen=True, eq=False)
class BandSet:
    """Variables ``part`` of those that a band has, V of them, to be coded together.

    ``spot``: where they lie. ``known``: their sizes, uint16 (V, *shape + 2), zeros before. ``hints``: what other bands
    and the guide tell, as :meth:`Phase.contexts` wants it. ``around``: what is around them where variables are related.
    """

    spot: Spot
    known: Array
    hints: Array | None
    part: slice
    around: Around | None

    def encode(self, symbols: SymbolWriter) -> None:
        """Write the integers in their places."""
        for phase, contexts, expected in self._steps():
            values = phase.load(self.spot, self.known, None if expected is None else expected.values)
            if self.around is not None:
                self.around.note(phase, self.part, values)
            symbols.add(values if expected is None else split_expected(values, expected), contexts)

    def decode(self, symbols: SymbolReader) -> None:
        """Read the integers into their places, which hold zeros.

        Raises
        ------
        FormatError
            When the stream is damaged.
        """
        if _sets is not None and symbols.buffers is not None:
            self._read(symbols.buffers)
            return
        for phase, contexts, expected in self._steps():
            values = symbols.take(contexts, narrow=True)
            if expected is not None:
                values = join_expected(values.astype(np.int64), expected)
            phase.store(self.spot, self.known, values, None if expected is None else expected.values)
            if self.around is not None:
                self.around.note(phase, self.part, values)

    @property
    def _classes(self) -> int:
        return 0 if self.around is None else CLASSES

    def _steps(self) -> Iterator[tuple[Phase, Array, Expected | None]]:
        """Give phases, contexts of their integers, and what those around tell of them (:meth:`Around.expect`)."""
        for p in phases_of(self.spot.shape):
            expected = self.around.expect(p, self.part) if self.around is not None and self.part.start else None
            told = None if expected is None else expected.codes
            yield p, p.contexts(self.known, self.hints, self._classes, told), expected

    def _read(self, stream: Buffers) -> None:
        near, hinted = self.around, self.hints is not None
        around = _NO_AROUND if near is None else near.fixed(self.part)
        phases = fixed_phases(self.spot.shape, hinted, self._classes)
        hints = _NOTHING if self.hints is None else self.hints
        of_sizes = (self.known, self.spot.shape, hints, classes_of(self._classes), phases)
        spot = (self.spot.grid, self.spot.firsts, self.spot.steps)
        places = () if near is None else near.all_places
        check_fault(_sets.read(*of_sizes, spot, near is not None, around, places, stream))
