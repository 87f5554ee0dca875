# SPDX-License-Identifier: MIT
"""Entropy coding of transform coefficients: only where a slab has any.

An array (S, B, R1, ..., Rm) holds, for each of B tiles, coefficients whose magnitude is expected to fall along S and
along every R axis. For each slab and each place (R1, ..., Rm-1) a run tells how many places along Rm can be other than
zero in any tile; the rest is zero and costs nothing, neither bytes nor time. A slab is coded in phases
(:mod:`hbae.codecs.neighbours`): the context of a value joins the mean size of known neighbours in its tile with a
guide, the decaying mean of sizes in the slabs before. Where nothing is known it is the expected magnitude, from log
scales of the axes.

NumPy is the reference; where ``_slabs.c`` is built, it goes through all slabs in one call.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from hbae.arrays import Array
from hbae.codecs.bytes_ import ByteReader, ByteWriter
from hbae.codecs.contexts import SymbolReader, SymbolWriter, check_fault
from hbae.codecs.ints import decode_ints, encode_ints
from hbae.codecs.neighbours import (
    GUIDE_CLASS,
    MOST_LONG_AXES,
    PHASE_CONTEXTS,
    FixedPhase,
    Phase,
    classes_of,
    fixed_phases,
    hints_around,
    phases_of,
    sizes_of,
)
from hbae.errors import FormatError

try:
    from hbae.codecs import _slabs
except ImportError:
    _slabs = None  # type: ignore[assignment]

BUCKETS = 40
# The kernel is told of all slabs at once: more of them would need more room than they hold.
_MOST_SLABS = 1 << 14
# The last one of phases, for values of which nothing is known, is the first of the buckets.
CONTEXTS = PHASE_CONTEXTS - 1 + BUCKETS

_Slab = tuple[tuple[int, ...], tuple[FixedPhase, ...]]


@dataclass(frozen=True)
class _Places:
    """Where a slab has values: the box (B, R1', ..., Rm') that holds them, which are under runs, their buckets."""

    box: tuple[slice, ...]
    under: Array
    buckets: Array

    def squeezed(self, axes: tuple[int, ...]) -> _Places:
        """Leave out axes (of the box) of length 1."""
        rest = tuple(a - 1 for a in axes)
        box = tuple(k for a, k in enumerate(self.box) if a not in axes)
        return _Places(box, np.squeeze(self.under, rest), np.squeeze(self.buckets, rest))


@dataclass(frozen=True)
class _Step:
    """Values of a phase that are under runs: flat places in the phase of each tile (None: all), and their contexts."""

    phase: Phase
    flat: Array | None
    contexts: Array

    def pick(self, box: Array) -> Array:
        """Give the step's values of a box (B, ...)."""
        values = box[self.phase.target].reshape(len(box), -1)
        return (values if self.flat is None else np.take(values, self.flat, axis=1)).ravel()

    def put(self, box: Array, values: Array) -> None:
        """Put the step's values into a box (B, ...)."""
        target = box[self.phase.target]
        if self.flat is None:
            target[...] = values.reshape(target.shape)
            return
        every = np.zeros((len(box), target[0].size), box.dtype)
        every[:, self.flat] = values.reshape(len(box), -1)
        target[...] = every.reshape(target.shape)


def encode_coefficients(q: Array, logs: list[Array]) -> bytes:
    """Encode (S, B, R1, ..., Rm) integers below 2**61; ``logs``: log scales of the axes S, R1, ..., Rm (m >= 1).

    A log scale of 0 is the largest magnitude of its axis, each step is half a factor of two less.
    """
    runs = _runs(q)
    symbols = SymbolWriter(CONTEXTS)
    q = np.asarray(q, np.int64)
    if _slabs is not None and len(q) <= _MOST_SLABS and q.size:
        _list_slabs(q, runs, logs, symbols)
    else:
        for inside, step in _walk(q, runs, logs):
            symbols.add(step.pick(inside), step.contexts)
    w = ByteWriter()
    w.raw(encode_ints(_tabled(runs)))
    if runs.any():
        w.raw(symbols.getvalue())
    return w.getvalue()


def decode_coefficients(reader: ByteReader, tiles: int, logs: list[Array]) -> Array:
    """Undo :func:`encode_coefficients`, giving int64 (S, B, R1, ..., Rm).

    Raises
    ------
    FormatError
        When the bytes are damaged.
    """
    slabs, *rest = (len(log) for log in logs)
    if sum(n > 1 for n in rest) > MOST_LONG_AXES:
        raise FormatError(f"coefficients of more than {MOST_LONG_AXES} axes")
    runs = decode_ints(reader, (slabs, *rest[:-1]) if len(rest) > 1 else (1, slabs)).reshape(slabs, *rest[:-1])
    if runs.min(initial=0) < 0 or runs.max(initial=0) > rest[-1]:
        raise FormatError("a run of coefficients leaves its axis")
    q = np.zeros((slabs, tiles, *rest), np.int64)
    if not runs.any():
        return q
    symbols = SymbolReader(reader, CONTEXTS)
    if _slabs is not None and symbols.buffers is not None and slabs <= _MOST_SLABS and q.size:
        check_fault(_slabs.read(*_fixed(q, runs, logs), symbols.buffers))
    else:
        for inside, step in _walk(q, runs, logs):
            step.put(inside, symbols.take(step.contexts))
    symbols.end()
    return q


def _runs(q: Array) -> Array:
    """For every slab and place (R1, ..., Rm-1): one more than the last place along Rm that is not zero in all tiles."""
    live = (q != 0).any(axis=1)
    last = live.shape[-1] - live[..., ::-1].argmax(axis=-1)
    out: Array = np.where(live.any(axis=-1), last, 0).astype(np.int64)
    return out


def _tabled(runs: Array) -> Array:
    return runs if runs.ndim > 1 else runs[None]


def _walk(q: Array, runs: Array, logs: list[Array]) -> Iterator[tuple[Array, _Step]]:
    """Give, slab by slab and phase by phase, the box that holds a slab's values (a view of q), and what to code in it.

    After each one its values must be in the box.
    """
    flat_axes = _flat_axes(q)
    shape = tuple(n for a, n in enumerate(q.shape[2:], 1) if a not in flat_axes)
    bordered = np.zeros((q.shape[1], *(n + 2 for n in shape)), np.uint16)
    guide = bordered[(slice(None), *(slice(1, -1),) * len(shape))]
    for s, slab in enumerate(q):
        places = _places(runs[s], logs, s)
        known = None
        if places is not None:
            inside = np.squeeze(slab[places.box], flat_axes)
            places = places.squeezed(flat_axes)
            known = np.zeros((len(inside), *(n + 2 for n in inside.shape[1:])), np.uint16)
            mine = known[(slice(None), *(slice(1, -1),) * (known.ndim - 1))]
            hints = hints_around(bordered, shape, inside.shape[1:]) if s else None
            for p in phases_of(inside.shape[1:]):
                under = places.under[p.target[1:]].ravel()
                flat = None if under.all() else np.flatnonzero(under)
                if flat is None or flat.size:
                    yield inside, _Step(p, flat, _contexts(p, flat, known, hints, places))
                    mine[p.target] = sizes_of(inside[p.target])
        # The mean of the slab's sizes, in 16ths, and of what was known.
        bordered >>= 1 if s else 0
        if known is not None and places is not None:
            guide[places.box] += mine * np.uint16(8 if s else 16)


def _flat_axes(q: Array) -> tuple[int, ...]:
    """Axes of a slab's box (B, ...) of length 1, not all: they have no neighbours, and borders would treble them."""
    return tuple(a for a in range(1, q.ndim - 1) if q.shape[a + 1] == 1)[: q.ndim - 3]


def _list_slabs(q: Array, runs: Array, logs: list[Array], symbols: SymbolWriter) -> None:
    """Do what :func:`_walk` does for a writer."""
    fixed = _fixed(np.ascontiguousarray(q), runs, logs)
    total, steps = int(np.count_nonzero(fixed[2])) * q.shape[1], sum(len(s[1]) for s in fixed[4] if s is not None)
    values, contexts, ends = np.empty(total, np.int64), np.empty(total, np.uint16), np.empty(steps, np.int64)
    begin = 0
    for end in ends[: _slabs.list(*fixed, values, contexts, ends)].tolist():
        symbols.add(values[begin:end], contexts[begin:end])
        begin = end


def _fixed(
    q: Array, runs: Array, logs: list[Array]
) -> tuple[Array, tuple[int, ...], Array, Array, tuple[_Slab | None, ...], Array, Array]:
    """Give what the kernel needs: q, its shape and all that :func:`_places` tells of every slab, without flat axes."""
    flat = tuple(a + 1 for a in _flat_axes(q))
    kept = [a for a in range(2, q.ndim) if a not in flat]
    shape = (*q.shape[:2], *(q.shape[a] for a in kept))
    under: Array = (np.arange(q.shape[-1]) < runs[..., None]).reshape(shape[0], *shape[2:])
    total = np.zeros((1,) * len(logs), np.int64)
    for axis, log in enumerate(logs):
        total = total + log.reshape([-1 if k == axis else 1 for k in range(len(logs))])
    buckets = np.clip(total, 0, BUCKETS - 1).astype(np.uint16).reshape(under.shape)
    boxes = []
    for axis in range(1, under.ndim):
        live = np.asarray(under.any(axis=_others(under, axis)[1:]))
        last = live.shape[1] - live[:, ::-1].argmax(axis=1)
        # Both parities of an axis are in the box.
        boxes.append(np.where(live.any(axis=1), np.maximum(last, min(live.shape[1], 2)), 0).tolist())
    slabs = tuple(
        (box, fixed_phases(box, s > 0, 0)) if box[0] else None for s, box in enumerate(zip(*boxes, strict=True))
    )
    return q, shape, under, buckets, slabs, classes_of(0), GUIDE_CLASS


def _contexts(p: Phase, flat: Array | None, known: Array, hints: Array | None, places: _Places) -> Array:
    found = p.contexts(known, hints).reshape(len(known), -1)
    if hints is None and p.kind == 0:
        found = found + places.buckets[p.target[1:]].ravel()
    return (found if flat is None else np.take(found, flat, axis=1)).ravel()


def _places(runs: Array, logs: list[Array], s: int) -> _Places | None:
    if not runs.any():
        return None
    seen = runs > 0
    box = [int(np.flatnonzero(seen.any(axis=_others(seen, i)))[-1]) + 1 for i in range(seen.ndim)]
    box.append(int(runs.max()))
    # Both parities of an axis are in the box.
    box = [max(n, min(len(log), 2)) for n, log in zip(box, logs[1:], strict=True)]
    under = np.arange(box[-1]) < runs[tuple(slice(0, n) for n in box[:-1])][..., None]
    total = np.full(box, int(logs[0][s]), np.int64)
    for i, n in enumerate(box):
        total += logs[i + 1][:n].reshape([-1 if k == i else 1 for k in range(len(box))])
    buckets = np.clip(total, 0, BUCKETS - 1).astype(np.uint16)
    return _Places((slice(None), *(slice(0, n) for n in box)), under, buckets)


def _others(a: Array, axis: int) -> tuple[int, ...]:
    return tuple(k for k in range(a.ndim) if k != axis)
