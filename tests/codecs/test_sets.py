# SPDX-License-Identifier: MIT
"""Sets of variables: the kernel reads what the steps read, from any stream; bad arguments are refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, get_args

import numpy as np
import pytest

import hbae.codecs.sets as module
from hbae.arrays import Array
from hbae.codecs.bytes_ import ByteReader
from hbae.codecs.contexts import SymbolReader, SymbolWriter
from hbae.codecs.hints import Hints, Seen, Sizes
from hbae.codecs.neighbours import PHASE_CONTEXTS, Spot, sets_of
from hbae.codecs.related import MOST_LEADERS, RELATED_CONTEXTS, Around, Relation, View
from hbae.codecs.sets import BandSet, BandSets
from hbae.errors import FormatError

SHAPES = [(1,), (9,), (1, 6), (4, 1, 9), (6, 7, 8), (2, 3, 2, 3, 2)]
COUNTS = [1, 2, 19]


@pytest.fixture
def compiled(kernel_of: Callable[[ModuleType, str], Any]) -> Any:
    return kernel_of(module, "_sets")


def sets_in(q: Array, hints: Array | None, related: Relation) -> list[BandSet]:
    """All variables as one band, every second place of the last axis left out."""
    spot = Spot(q, (*(slice(0, None, 1),) * (q.ndim - 2), slice(0, None, 2)), np.arange(len(q)))
    around = None
    if related:
        views = [View(None, (1,) * len(spot.shape)) for _ in range(2)]
        around = Around.of(spot.rows, spot.shape, views, range(1, 2), rests=related == "rests")
    known = np.zeros((len(q), *(n + 2 for n in spot.shape)), np.uint16)
    parts = sets_of(len(q), MOST_LEADERS if related else None)
    return [BandSet(spot.of(p), known[p], None if hints is None else hints[p], p, around) for p in parts]


def integers(shape: tuple[int, ...], count: int, size: float) -> Array:
    """Integers that go together, most of them zero, with some beyond 16 bits; zeros where the band is not."""
    rng = np.random.default_rng(3)
    q = np.rint(size * rng.standard_cauchy((1, *shape)) * rng.standard_normal((count, *(1 for _ in shape))))
    q = np.clip(q, -(2.0**60), 2.0**60) * (rng.random((count, *shape)) < 0.4) + 0.0
    q[..., 1::2] = 0
    return q


def coded(q: Array, hints: Array | None, related: Relation) -> bytes:
    symbols = SymbolWriter(RELATED_CONTEXTS if related else PHASE_CONTEXTS)
    for some in sets_in(q, hints, related):
        some.encode(symbols)
    return symbols.getvalue()


def decoded(data: bytes, like: Array, hints: Array | None, related: Relation) -> tuple[bytes, ...]:
    q = np.zeros_like(like)
    symbols = SymbolReader(ByteReader(data), RELATED_CONTEXTS if related else PHASE_CONTEXTS)
    sets = sets_in(q, hints, related)
    for some in sets:
        some.decode(symbols)
    symbols.end()
    blocks = sets[0].around.blocks if sets[0].around is not None else ()
    return q.tobytes(), *(s.known.tobytes() for s in sets), *(b.tobytes() for b in blocks)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("related", get_args(Relation))
def test_a_set_is_read_as_by_steps(
    shape: tuple[int, ...], count: int, related: Relation, compiled: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(4)
    for size in (0.5, 30, 1e4, 2.0**50):
        q = integers((*shape[:-1], 2 * shape[-1]), count, size)
        for hints in (None, rng.integers(0, 4000, (count, *shape)).astype(np.uint16)):
            data = coded(q, hints, related)
            found = []
            for kernel in (compiled, None):
                monkeypatch.setattr(module, "_sets", kernel)
                found.append(decoded(data, q, hints, related))
            assert found[0] == found[1]
            assert found[0][0] == q.tobytes()


def test_the_kernel_is_used(compiled: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    class Counted:
        @staticmethod
        def read(*args: Any) -> int:
            calls.append(args)
            return int(compiled.read(*args))

    q = integers((5, 8), 3, 30)
    monkeypatch.setattr(module, "_sets", Counted)
    assert decoded(coded(q, None, "rests"), q, None, "rests")[0] == q.tobytes()
    assert len(calls) == 2


@pytest.mark.parametrize("related", get_args(Relation))
def test_damage_is_told_as_by_steps(related: Relation, compiled: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte of a stream turned: both ways give the same integers, or refuse the stream alike."""
    q = integers((4, 10), 5, 300)
    data = coded(q, None, related)
    refused = 0
    for at in range(len(data)):
        bad = data[:at] + bytes([data[at] ^ (1 << at % 8)]) + data[at + 1 :]
        found: list[Any] = []
        for kernel in (compiled, None):
            monkeypatch.setattr(module, "_sets", kernel)
            try:
                found.append(decoded(bad, q, None, related))
            except FormatError as e:
                found.append(str(e))
        assert found[0] == found[1], at
        refused += isinstance(found[0], str)
    assert refused > len(data) / 2


def bands_in(q: Array, others: Sequence[int], related: Relation = "") -> BandSets:
    """All variables as one band, every second place of the last axis left out, and what others tell of their sizes.

    ``others``: ratio of each band that is seen, 1 for siblings; it has every second variable, and values in a corner.
    """
    spot = Spot(q, (*(slice(0, None, 1),) * (q.ndim - 2), slice(0, None, 2)), np.arange(len(q)))
    rng, rows, seen = np.random.default_rng(6), np.arange(0, len(q), 2), []
    for ratio in others:
        values = rng.integers(0, 90, (len(rows), *(-(-n // ratio) for n in spot.shape))).astype(np.uint16)
        values[:, 1:] = 0
        seen.append(Seen(Sizes(rows, values), (ratio,) * len(spot.shape), 0 if ratio == 1 else 4))
    around = Around.of(spot.rows, spot.shape, [], range(0), rests=related == "rests") if related else None
    return BandSets(spot, Hints(spot.rows, spot.shape, seen), np.zeros((len(q), *spot.shape), np.uint16), around)


def in_rows(shape: tuple[int, ...], count: int) -> Array:
    """Integers in one corner and in one row far from it, and nothing in all other rows."""
    q = integers(shape, count, 30)
    kept = np.zeros(q.shape, bool)
    kept[(slice(None), *(slice(0, 2),) * (len(shape) - 1))] = True
    kept[(slice(count // 2, None), *(slice(-1, None),) * (len(shape) - 1))] = True
    return np.where(kept, q, 0.0)


@pytest.mark.parametrize("shape", [*SHAPES, (5, 40), (9, 7, 12)])
@pytest.mark.parametrize("count", [*COUNTS, 40])
@pytest.mark.parametrize("others", [(), (1,), (2,), (2, 1, 1)])
def test_sets_of_a_band_are_read_as_by_steps(
    shape: tuple[int, ...], count: int, others: tuple[int, ...], compiled: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = (*shape[:-1], 2 * shape[-1])
    for q in (
        in_rows(whole, count),
        integers(whole, count, 0.5),
        integers(whole, count, 1e4),
        np.zeros((count, *whole)),
    ):
        symbols = SymbolWriter(PHASE_CONTEXTS)
        bands_in(q, others).encode(symbols)
        data, found = symbols.getvalue(), []
        for kernel in (compiled, None):
            monkeypatch.setattr(module, "_sets", kernel)
            band, reader = bands_in(np.zeros_like(q), others), SymbolReader(ByteReader(data), PHASE_CONTEXTS)
            band.decode(reader)
            reader.end()
            assert band.spot.grid.tobytes() == q.tobytes()
            found.append(band.sizes.tobytes())
        assert found[0] == found[1]
        monkeypatch.setattr(module, "_sets", compiled)


def copied(args: Sequence[Any]) -> list[Any]:
    """Copy arrays, also those in tuples, so that a call leaves the others alone."""
    if isinstance(args, tuple):
        return [
            tuple(copied(a)) if isinstance(a, tuple) else a.copy() if isinstance(a, np.ndarray) else a for a in args
        ]
    return copied(tuple(args))


def test_what_does_not_fit_is_refused(compiled: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[Any]] = []

    class Noted:
        @staticmethod
        def read(*args: Any) -> int:
            calls.append(copied(args))
            return int(compiled.read(*args))

    q = integers((4, 10), 5, 30)
    monkeypatch.setattr(module, "_sets", Noted)
    decoded(coded(q, np.zeros((5, 4, 5), np.uint16), "rests"), q, np.zeros((5, 4, 5), np.uint16), "rests")
    good = calls[-1]
    compiled.read(*copied(good))
    sizes, _, hints, classes, phases, spot, related, around, near, stream = good
    grid, firsts, steps = spot
    own, leads, told, leaders, _, limits, _ = around
    starts, places, table, parts, base = phases[1]
    labels, constant, token_at, left, words, bits, state, used = stream
    assert related
    assert leaders > 0
    bad = [
        (0, None, sizes[1:].copy()),
        (0, None, sizes[:, 1:].copy()),
        (1, None, (4,)),
        (1, None, (4, 6)),
        (1, None, (4, 1 << 61)),
        (1, None, (-4, 5)),
        (2, None, hints[1:].copy()),
        (3, None, classes[1:].copy()),
        (4, None, ()),
        (4, None, None),
        (4, None, (None,)),
        (4, None, phases * 64),
        (4, None, ((starts[:1], *phases[1][1:]),)),
        (4, None, (((2, 0), *phases[1][1:]),)),
        (4, None, ((starts, (1 << 40,), table, parts, base),)),
        (4, None, ((starts, (-100,), table, parts, base),)),
        (4, None, ((starts, places, table[1:2], parts, base),)),
        (4, None, ((starts, places, table, 17, base),)),
        (5, 0, grid[1:].copy()),
        (5, 1, firsts[:0]),
        (5, 1, firsts[:1].copy()),
        (5, 1, firsts - 1000),
        (5, 1, firsts + 10),
        (5, 2, steps[:1]),
        (5, 2, (steps[0], 0)),
        (5, 2, (steps[0], 1 << 61)),
        (6, None, False),
        (7, 0, own[1:].copy()),
        (7, 0, own[..., 1:].copy()),
        (7, 1, ()),
        (7, 1, leads[:1]),
        (7, 1, (leads[0][1:].copy(), *leads[1:])),
        (7, 1, (None, *leads[1:])),
        (7, 2, told[:1]),
        (7, 3, -1),
        (7, 3, 16),
        (7, 3, len(q) + 1),
        (7, 4, -1),
        (7, 4, len(q)),
        (7, 5, limits[1:].copy()),
        (8, None, near[1:]),
        (8, None, (((9, 0),), *near[1:])),
        (8, None, (((0, 1 << 40),), *near[1:])),
        (8, None, (((0,),), *near[1:])),
        (8, None, (None, *near[1:])),
        (8, None, None),
        (9, 0, labels[1:].copy()),
        (9, 1, constant[1:].copy()),
        (9, 1, np.full_like(constant, 146)),
        (9, 2, token_at[1:].copy()),
        (9, 2, np.full_like(token_at, 146)),
        (9, 3, left[1:].copy()),
        (9, 4, words[:0]),
        (9, 5, b""),
        (9, 6, state[:2].copy()),
        (9, 7, used[1:].copy()),
    ]
    state[...] = [1 << 40, len(words), 4 * len(bits)]
    for place, inner, value in bad:
        args = copied(good)
        if inner is None:
            args[place] = value
        else:
            args[place] = (*args[place][:inner], value, *args[place][inner + 1 :])
        with pytest.raises((ValueError, OverflowError, TypeError)):
            compiled.read(*args)
