# SPDX-License-Identifier: MIT
"""Chunks: integers to bytes, and bytes to values: the reader's side, which the writer runs on its own bytes too."""

from __future__ import annotations

import hashlib
import math
from functools import lru_cache
from typing import Any

import numpy as np

from hbae.arrays import Array
from hbae.blocks import MAX_VALUES, Geometry
from hbae.codecs import (
    ByteReader,
    ByteWriter,
    decode_coefficients,
    decode_ints,
    decode_lossless,
    decode_mask,
    difference,
    encode_coefficients,
    encode_ints,
    encode_lossless,
    encode_mask,
    integrate,
    pack,
    unpack,
)
from hbae.errors import ChecksumError, FormatError
from hbae.exact import Backend, Transform
from hbae.pipeline.levels import decode_levels
from hbae.pipeline.parts import Parts, values_of
from hbae.pipeline.plan import GroupPlan
from hbae.pipeline.waves import decode_waves

MASK, BASE, BLOCK_LATENTS, TRANSFORM, GAE, POINT, EXACT, FINE = 1, 2, 4, 8, 16, 32, 64, 128
LOSSLESS, CODED = 0, 1
_SEARCHED = 2 << 20
MAX_DECODED = 256 << 20


def encode_lossless_chunk(a: Array, *, search: bool = False) -> bytes:
    """Encode an array without loss as a chunk: kind byte, SHA-256 of the decoded bytes, the array."""
    return bytes([LOSSLESS]) + digest(a) + encode_lossless(a, search=search)


def encode_raw(a: Array, plan: GroupPlan) -> bytes:
    """Encode a chunk's values without loss; those of a small group of one chunk are worth a search."""
    if plan.geometry.num_chunks > 1 or a.nbytes > _SEARCHED:
        return encode_lossless_chunk(a)
    return _searched(a.tobytes(), a.dtype.str, a.shape)


@lru_cache(maxsize=4)
def _searched(data: bytes, dtype: str, shape: tuple[int, ...]) -> bytes:
    """Every plan that is weighed asks for the same."""
    return encode_lossless_chunk(np.frombuffer(data, dtype).reshape(shape), search=True)


def digest(a: Array) -> bytes:
    """SHA-256 of the bytes of an array in its own type, C order."""
    return hashlib.sha256(np.ascontiguousarray(a).view(np.uint8).data if a.size and a.ndim else a.tobytes()).digest()


def encode_parts(parts: Parts, plan: GroupPlan, grid: tuple[int, ...]) -> bytes:
    """Encode a chunk's integers: kind byte, SHA-256 (zeros for now), flags.

    Then the parts in the order of the flags.
    """
    w = ByteWriter()
    flags = FINE if parts.fine else 0
    geometry = plan.geometry
    if parts.fine:
        w.raw(bytes([parts.fine]))
    if parts.mask is not None and parts.filler is not None:
        flags |= MASK
        w.raw(encode_mask(parts.mask))
        _write_filler(w, parts.filler)
    if parts.z is not None:
        flags |= BASE
        _write_latents(w, parts.z[:, None, :], geometry, grid)
        if parts.zb is not None:
            flags |= BLOCK_LATENTS
            _write_latents(w, parts.zb, geometry, grid)
    for flag, q, basis in ((TRANSFORM, parts.coefs, plan.transform), (GAE, parts.gae, plan.gae)):
        if q is not None and basis is not None:
            flags |= flag
            w.raw(_encode_coefs(q, basis))
    if parts.point is not None or parts.coded_point:
        flags |= POINT
        if plan.predicts:
            w.raw(parts.coded_point)
        elif parts.point is not None:
            d = difference(parts.point.astype(np.int64), [a + 1 for a in plan.diff_axes])
            w.raw(encode_ints(np.moveaxis(d, _slab_axis(d.shape), 0), far=1))
        if parts.signs is not None:
            w.raw(encode_mask(parts.signs))
    if parts.exact is not None and len(parts.exact[0]):
        flags |= EXACT
        w.varint(len(parts.exact[0]))
        w.raw(pack(np.diff(parts.exact[0], prepend=0).astype("<u4").tobytes()))
        w.raw(encode_lossless(parts.exact[1]))
    return bytes([CODED]) + bytes(32) + bytes([flags]) + w.getvalue()


def decode_chunk(
    payload: bytes, plan: GroupPlan, grid: tuple[int, ...], backend: Backend, what: str = "chunk", *, check: bool = True
) -> Array:
    """Give the values (V, *grid) of a chunk, having checked their SHA-256.

    Raises
    ------
    FormatError
        When the bytes are damaged, hostile, or decode to other values than were written.
    """
    shape = (plan.num_variables, *grid)
    if plan.geometry.padded(grid) * plan.num_variables > MAX_VALUES:
        raise FormatError(f"{what}: holds more than {MAX_VALUES} values")
    r, kind, sha = open_chunk(payload, shape, plan.dtype, what)
    try:
        if kind == LOSSLESS:
            out = decode_lossless(r, shape, plan.dtype)
            r.end()
        else:
            parts = read_parts(r, plan, grid, backend)
            # Hostile numbers may overflow; the hash then tells.
            with np.errstate(all="ignore"):
                out = values_of(parts, plan, grid, backend)
    except (ValueError, IndexError, OverflowError) as e:
        if isinstance(e, FormatError):
            e.args = (f"{what}: {e}",)
            raise
        raise FormatError(f"{what}: malformed: {e}") from e
    if check:
        check_digest(out, sha, what)
    return out


def open_chunk(
    payload: bytes, shape: tuple[int, ...], dtype: np.dtype[Any], what: str
) -> tuple[ByteReader, int, bytes]:
    """Read kind and SHA-256 of a chunk after checking its decoded size.

    Raises
    ------
    FormatError
        When it would decode to more than the limit, or its kind is unknown.
    """
    if math.prod(shape) * dtype.itemsize > MAX_DECODED:
        raise FormatError(f"{what}: decodes to more than {MAX_DECODED >> 20} MiB")
    r = ByteReader(payload)
    kind, sha = r.raw(1)[0], r.raw(32)
    if kind not in (LOSSLESS, CODED):
        raise FormatError(f"{what}: unknown kind {kind}")
    return r, kind, sha


def check_digest(a: Array, sha: bytes, what: str) -> None:
    """Compare decoded bytes with the stored SHA-256.

    Raises
    ------
    ChecksumError
        When they differ.
    """
    if digest(a) != sha:
        raise ChecksumError(f"{what}: the decoded values differ from those that were written")


def read_parts(r: ByteReader, plan: GroupPlan, grid: tuple[int, ...], backend: Backend) -> Parts:
    """Read a chunk's integers, behind kind and SHA-256: the entropy decoding.

    Raises
    ------
    FormatError
        When the bytes are damaged or hostile.
    """
    shape = (plan.num_variables, *grid)
    flags = r.raw(1)[0]
    _check_flags(flags, plan)
    got: dict[str, Any] = {}
    if flags & FINE:
        got["fine"] = r.raw(1)[0]
        if not got["fine"]:
            raise FormatError("a fineness of nothing")
    if flags & MASK:
        got["mask"] = decode_mask(r, shape)
        got["filler"] = _read_filler(r, plan.dtype, int(got["mask"].sum()))
    if flags & BASE:
        if plan.decoder is None:
            raise FormatError("latents without a model")
        got["z"] = _read_latents(r, plan.geometry, grid, 1, plan.decoder.hyper.num_latents)[:, 0, :]
        if flags & BLOCK_LATENTS:
            if plan.decoder.block is None:
                raise FormatError("block latents without a block decoder")
            got["zb"] = _read_latents(r, plan.geometry, grid, plan.geometry.num_blocks, plan.decoder.block.num_latents)
    for flag, name, basis, cell in (
        (TRANSFORM, "coefs", plan.transform, plan.geometry.tile),
        (GAE, "gae", plan.gae, plan.geometry.block),
    ):
        if flags & flag:
            if basis is None:
                raise FormatError("coefficients without a basis")
            tiles = _count(grid, cell)
            got[name] = _decode_coefs(r, tiles, basis)
    if flags & POINT:
        mixed = shape if plan.mix is None else (plan.mix.kept[0], *grid)
        if plan.levels is not None:
            got["point"] = decode_levels(r, mixed, plan.levels)
        elif plan.wavelet is not None:
            got["waves"] = decode_waves(r, mixed, plan.wavelet, backend.zeros, related=plan.related)
        else:
            axis = _slab_axis(mixed)
            moved = (mixed[axis], *(n for i, n in enumerate(mixed) if i != axis))
            d = np.moveaxis(decode_ints(r, moved, far=1), 0, axis)
            got["point"] = integrate(d, [a + 1 for a in plan.diff_axes])
        if plan.domain == "log":
            got["signs"] = decode_mask(r, shape)
    if flags & EXACT:
        got["exact"] = _read_exact(r, math.prod(shape), plan.dtype)
    r.end()
    return Parts(**got)


def _check_flags(flags: int, plan: GroupPlan) -> None:
    if flags & BLOCK_LATENTS and not flags & BASE:
        raise FormatError("block latents without latents")
    if plan.domain == "log" and (not flags & POINT or flags & (BASE | TRANSFORM | GAE | FINE)):
        raise FormatError("parts that the log domain does not have")


def _read_exact(r: ByteReader, count: int, dtype: np.dtype[Any]) -> tuple[Array, Array]:
    """Read flat indices and values of the points that are kept as they are; the indices rise."""
    n = r.varint()
    if not 0 < n <= count:
        raise FormatError("no exact points, or more than points")
    steps = np.frombuffer(unpack(r, 4 * n), "<u4").astype(np.int64)
    index = np.cumsum(steps)
    if len(steps) != n or not steps[1:].all() or int(index[-1]) >= count:
        raise FormatError("exact points out of range")
    return index, decode_lossless(r, (n,), dtype)


def _count(grid: tuple[int, ...], cell: tuple[int, ...]) -> int:
    return int(np.prod([-(-n // c) for n, c in zip(grid, cell, strict=True)], dtype=object))


def _encode_coefs(q: Array, basis: Transform) -> bytes:
    """Encode (V', B, *kept): slabs along the first axis longer than 1, the others in order."""
    slab, logs = _slab_and_logs(basis)
    moved = q if slab == 0 else np.moveaxis(q, slab + 1, 0)
    return encode_coefficients(moved.reshape(len(logs[0]), q.shape[1], *(len(log) for log in logs[1:])), logs)


def _decode_coefs(r: ByteReader, tiles: int, basis: Transform) -> Array:
    slab, logs = _slab_and_logs(basis)
    q = decode_coefficients(r, tiles, logs)
    if slab:
        rest = [n for i, n in enumerate(basis.kept) if i not in (0, slab)]
        q = np.moveaxis(q.reshape(len(q), 1, tiles, *rest), 0, slab + 1)
    return q.reshape(basis.kept[0], tiles, *basis.kept[1:])


def _slab_and_logs(basis: Transform) -> tuple[int, list[Array]]:
    """Which axis of the basis slabs run along, and the log scales of slab axis and others (at least one)."""
    slab = _first_long(basis.kept)
    logs = [a.logs for i, a in enumerate(basis.axes) if i != slab and (i or basis.kept[0] > 1)]
    return slab, [basis.axes[slab].logs, *(logs or [np.zeros(1, np.int64)])]


def _slab_axis(shape: tuple[int, ...]) -> int:
    """Slabs of points (V, *grid) run along the first grid axis longer than 1."""
    return 1 + _first_long(shape[1:])


def _first_long(shape: tuple[int, ...]) -> int:
    return next((i for i, n in enumerate(shape) if n > 1), 0)


def _write_filler(w: ByteWriter, filler: Array) -> None:
    """One value when all are the same bits, else all of them."""
    raw = np.frombuffer(filler.tobytes(), np.uint8).reshape(len(filler), -1)
    same = bool((raw == raw[0]).all())
    w.raw(bytes([same]))
    w.raw(encode_lossless(filler[:1] if same else filler))


def _read_filler(r: ByteReader, dtype: np.dtype[Any], n: int) -> Array:
    same = r.raw(1)[0]
    if same > 1 or (same and not n):
        raise FormatError("unknown mode of masked values")
    values = decode_lossless(r, (1 if same else n,), dtype)
    return np.repeat(values, n) if same else values


def _latent_shape(geometry: Geometry, grid: tuple[int, ...], k: int, latents: int) -> tuple[int, ...]:
    counts = [-(-n // e) for n, e in zip(grid, geometry.extent, strict=True)]
    return (latents, *counts, k)


def _write_latents(w: ByteWriter, z: Array, geometry: Geometry, grid: tuple[int, ...]) -> None:
    """Latents (N, k, L) as (L, *hyper-block counts, k), differenced along the grid when that is smaller."""
    shape = _latent_shape(geometry, grid, z.shape[1], z.shape[2])
    q = np.ascontiguousarray(z.reshape(-1, z.shape[2]).T.astype(np.int64)).reshape(shape)
    axes = [i for i in range(1, len(shape)) if shape[i] > 1]
    options = [(0, encode_ints(q))]
    if axes:
        options.append((1, encode_ints(difference(q, axes))))
    mode, data = min(options, key=lambda o: len(o[1]))
    w.raw(bytes([mode]) + data)


def _read_latents(r: ByteReader, geometry: Geometry, grid: tuple[int, ...], k: int, latents: int) -> Array:
    shape = _latent_shape(geometry, grid, k, latents)
    if math.prod(shape) > MAX_VALUES:
        raise FormatError("too many latents")
    mode = r.raw(1)[0]
    q = decode_ints(r, shape)
    if mode == 1:
        q = integrate(q, [i for i in range(1, len(shape)) if shape[i] > 1])
    elif mode != 0:
        raise FormatError("unknown mode of latents")
    return np.ascontiguousarray(q.reshape(latents, -1, k).transpose(1, 2, 0))
