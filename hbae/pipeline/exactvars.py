# SPDX-License-Identifier: MIT
"""Variables that are kept without loss: small ones together in one section, large ones in chunks, strings as text."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np

from hbae.arrays import Array, Box, Variable, box_shape, boxes_of
from hbae.codecs import ByteReader, ByteWriter, decode_lossless, encode_lossless, pack, unpack
from hbae.errors import FieldError, FormatError
from hbae.pipeline.chunk import LOSSLESS, check_digest, encode_lossless_chunk, open_chunk

SMALL = 1 << 16
CHUNK_BYTES = 8 << 20
MAX_TEXT = 1 << 30


def is_small(v: Variable) -> bool:
    """Tell whether a variable goes into the common section."""
    return v.dtype.hasobject or v.nbytes <= SMALL


def chunk_step(v: Variable) -> tuple[int, ...]:
    """Box shape of the chunks of a large lossless variable: whole trailing axes, about 8 MiB."""
    room = max(1, CHUNK_BYTES // v.dtype.itemsize)
    step = []
    for n in reversed(v.shape):
        k = max(1, min(n, room))
        step.append(k)
        room = max(1, room // k)
    return tuple(reversed(step))


def chunk_boxes(v: Variable, step: tuple[int, ...]) -> Iterator[Box]:
    """Boxes of the chunks of a large lossless variable."""
    return boxes_of(v.shape, step)


def encode_small(variables: list[Variable]) -> bytes:
    """Encode whole variables one after the other, each behind its length."""
    w = ByteWriter()
    for v in variables:
        a = v.source.read(tuple(slice(0, n) for n in v.shape))
        w.part(_encode_text(v, a) if v.dtype.hasobject else encode_lossless(np.asarray(a, v.dtype), 19))
    return w.getvalue()


def decode_small(data: bytes, variables: list[Variable]) -> dict[str, Array]:
    """Undo :func:`encode_small`.

    Raises
    ------
    FormatError
        When the section is damaged.
    """
    r = ByteReader(data)
    out: dict[str, Array] = {}
    for v in variables:
        part = ByteReader(r.part())
        if v.dtype.hasobject:
            out[v.path] = _decode_text(part, v)
        else:
            if v.nbytes > SMALL:
                raise FormatError(f"variable {v.path}: too large for its section")
            out[v.path] = decode_lossless(part, v.shape, v.dtype)
        part.end()
    r.end()
    return out


def encode_exact_chunk(v: Variable, box: Box) -> bytes:
    """Encode one box of a large lossless variable as a chunk."""
    return encode_lossless_chunk(np.asarray(v.source.read(box), v.dtype))


def decode_exact_chunk(payload: bytes, v: Variable, box: Box, what: str) -> Array:
    """Undo :func:`encode_exact_chunk`.

    Raises
    ------
    FormatError
        When the chunk is damaged.
    """
    r, kind, sha = open_chunk(payload, box_shape(box), v.dtype, what)
    if kind != LOSSLESS:
        raise FormatError(f"{what}: unexpected kind")
    out = decode_lossless(r, box_shape(box), v.dtype)
    r.end()
    check_digest(out, sha, what)
    return out


def _encode_text(v: Variable, a: Array) -> bytes:
    flat = [x if isinstance(x, str) else None for x in np.asarray(a, object).ravel()]
    if any(not isinstance(x, str) for x in np.asarray(a, object).ravel()):
        raise FieldError(f"variable {v.path}: an object array may hold strings only")
    return pack(json.dumps(flat, ensure_ascii=True, separators=(",", ":")).encode(), 19)


def _decode_text(r: ByteReader, v: Variable) -> Array:
    n = int(np.prod(v.shape, dtype=object))
    try:
        flat = json.loads(unpack(r, MAX_TEXT))
    except (ValueError, RecursionError) as e:
        raise FormatError(f"variable {v.path}: its text is malformed") from e
    if not isinstance(flat, list) or len(flat) != n or not all(isinstance(x, str) for x in flat):
        raise FormatError(f"variable {v.path}: its text does not fit its shape")
    out = np.empty(n, object)
    out[:] = flat
    return out.reshape(v.shape)
