# SPDX-License-Identifier: MIT
"""Entropy coding of transform coefficients: only where a slab has any.

An array (S, B, R1, ..., Rm) holds, for each of B tiles, coefficients whose magnitude is expected to fall along S and
along every R axis. For each slab and each place (R1, ..., Rm-1) a run tells how many places along Rm can be other than
zero in any tile; the rest is zero and costs nothing, neither bytes nor time. The context of a value joins a bucket (the
expected magnitude, from log scales of the axes) with a level from the slab before (see :mod:`hbae.codecs.ints`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hbae.arrays import Array
from hbae.codecs.bytes_ import ByteReader, ByteWriter
from hbae.codecs.contexts import SymbolReader, SymbolWriter
from hbae.codecs.ints import LEVELS, KnownSizes, decode_ints, encode_ints
from hbae.errors import FormatError

BUCKETS = 40
CONTEXTS = BUCKETS * LEVELS


@dataclass(frozen=True)
class _Places:
    """Where a slab has values: the box (B, R1', ..., Rm') that holds them, flat places in it, their buckets."""

    box: tuple[slice, ...]
    flat: Array
    buckets: Array


def encode_coefficients(q: Array, logs: list[Array]) -> bytes:
    """Encode (S, B, R1, ..., Rm) integers below 2**61; ``logs``: log scales of the axes S, R1, ..., Rm (m >= 1).

    A log scale of 0 is the largest magnitude of its axis, each step is half a factor of two less.
    """
    runs = _runs(q)
    symbols = SymbolWriter(CONTEXTS)
    sizes = KnownSizes(q.shape)
    for s in range(len(q)):
        places = _places(runs[s], logs, s)
        if places is not None:
            inside = q[s][places.box]
            values = np.take(inside.reshape(len(inside), -1), places.flat, axis=1)
            symbols.add(values.astype(np.int64).ravel(), _contexts(sizes, s, places))
            sizes.put(s, inside, places.box)
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
    runs = decode_ints(reader, (slabs, *rest[:-1]) if len(rest) > 1 else (1, slabs)).reshape(slabs, *rest[:-1])
    if runs.min(initial=0) < 0 or runs.max(initial=0) > rest[-1]:
        raise FormatError("a run of coefficients leaves its axis")
    q = np.zeros((slabs, tiles, *rest), np.int64)
    if not runs.any():
        return q
    symbols = SymbolReader(reader, CONTEXTS)
    sizes = KnownSizes(q.shape)
    for s in range(slabs):
        places = _places(runs[s], logs, s)
        if places is not None:
            shape = q[s][places.box].shape
            got = np.zeros((tiles, int(np.prod(shape[1:]))), np.int64)
            got[:, places.flat] = symbols.take(_contexts(sizes, s, places)).reshape(tiles, -1)
            q[s][places.box] = got.reshape(shape)
            sizes.put(s, got.reshape(shape), places.box)
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


def _places(runs: Array, logs: list[Array], s: int) -> _Places | None:
    if not runs.any():
        return None
    seen = runs > 0
    box = [int(np.flatnonzero(seen.any(axis=_others(seen, i)))[-1]) + 1 for i in range(seen.ndim)]
    box.append(int(runs.max()))
    inside = runs[tuple(slice(0, n) for n in box[:-1])]
    flat = np.flatnonzero(np.arange(box[-1]) < inside[..., None])
    total = np.full(box, int(logs[0][s]), np.int64)
    for i, n in enumerate(box):
        total += logs[i + 1][:n].reshape([-1 if k == i else 1 for k in range(len(box))])
    buckets = np.clip(total.ravel()[flat], 0, BUCKETS - 1).astype(np.uint16)
    return _Places((slice(None), *(slice(0, n) for n in box)), flat, buckets)


def _others(a: Array, axis: int) -> tuple[int, ...]:
    return tuple(k for k in range(a.ndim) if k != axis)


def _contexts(sizes: KnownSizes, s: int, places: _Places) -> Array:
    """Contexts (B * places) of slab s; uses slabs before s only."""
    # One place more on each side, as neighbours outside the box count.
    wide = (places.box[0], *(slice(0, k.stop + 1) for k in places.box[1:]))
    level = sizes.levels(s, 1, wide)[tuple(slice(0, k.stop) for k in places.box)]
    out: Array = np.take(level.reshape(len(level), -1), places.flat, axis=1) * np.uint16(BUCKETS) + places.buckets
    return out.ravel()
