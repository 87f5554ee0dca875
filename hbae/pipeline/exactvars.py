# SPDX-License-Identifier: MIT
"""Variables that are kept without loss: small ones together in one section, large ones in chunks, strings as text."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator

import numpy as np

from hbae.arrays import Array, Box, Tiling, Variable, box_shape
from hbae.codecs import ByteReader, ByteWriter, decode_lossless, encode_lossless, pack, unpack_json
from hbae.errors import BoundViolationError, FieldError, FormatError
from hbae.pipeline.chunk import LOSSLESS, check_digest, encode_lossless_chunk, open_chunk
from hbae.pipeline.touchup import Spool
from hbae.ranks import Team, share_of

SMALL = 1 << 16
CHUNK_BYTES = 8 << 20
MAX_TEXT = 64 << 20


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


def num_chunks(v: Variable) -> int:
    """How many chunks a large lossless variable has."""
    return len(Tiling(v.shape, chunk_step(v)))


def encode_small(variables: list[Variable]) -> bytes:
    """Encode whole variables one after the other, each behind its length and decoded again.

    Raises
    ------
    FieldError
        When a text is too large.
    BoundViolationError
        When a variable would come back different: a bug in hbae.
    """
    w = ByteWriter()
    for v in variables:
        a = v.source.read(tuple(slice(0, n) for n in v.shape))
        w.part(_encode_text(v, a) if v.dtype.hasobject else _encode_number(v, np.asarray(a, v.dtype)))
    return w.getvalue()


def _encode_number(v: Variable, a: Array) -> bytes:
    part = encode_lossless(a, search=True)
    _check_same(a, decode_small(part, v), v)
    return part


def _check_same(a: Array, back: Array, v: Variable) -> None:
    if back.tobytes() != a.tobytes():
        raise BoundViolationError(f"variable {v.path}: it would not come back bit for bit")


def split_small(data: bytes, variables: list[Variable]) -> dict[str, bytes]:
    """Give the part of each variable of the common section, not yet decoded.

    Raises
    ------
    FormatError
        When the section is damaged.
    """
    r = ByteReader(data)
    parts = {v.path: r.part() for v in variables}
    r.end()
    return parts


def decode_small(part: bytes, v: Variable) -> Array:
    """Give a variable from its part of the common section.

    Raises
    ------
    FormatError
        When the part is damaged or too large.
    """
    r = ByteReader(part)
    if not is_small(v):
        raise FormatError(f"variable {v.path}: too large for its section")
    out = _decode_text(r, v) if v.dtype.hasobject else decode_lossless(r, v.shape, v.dtype)
    r.end()
    return out


def encode_exact_chunk(v: Variable, box: Box) -> bytes:
    """Encode one box of a large lossless variable as a chunk and decode it again.

    Raises
    ------
    BoundViolationError
        When it would come back different: a bug in hbae.
    """
    a = np.asarray(v.source.read(box), v.dtype)
    payload = encode_lossless_chunk(a, search=v.nbytes <= CHUNK_BYTES)
    _check_same(a, decode_exact_chunk(payload, v, box, "chunk"), v)
    return payload


def encode_exact_chunks(v: Variable, numbers: range) -> Iterator[bytes]:
    """Encode chunks of a large lossless variable, those of the numbers in order."""
    boxes = Tiling(v.shape, chunk_step(v))
    for i in numbers:
        yield encode_exact_chunk(v, boxes[i])


class KeptChunks:
    """Keeps this rank's coded chunks of lossless variables aside, for a file that is written several times."""

    def __init__(self, variables: Iterable[Variable], team: Team) -> None:
        self._first: dict[str, tuple[int, range]] = {}
        self.nbytes = self._count = 0
        self._spool = Spool(self._encode(variables, team))

    def _encode(self, variables: Iterable[Variable], team: Team) -> Iterator[bytes]:
        for v in variables:
            mine = share_of(team, num_chunks(v))
            self._first[v.path] = self._count, mine
            for payload in encode_exact_chunks(v, mine):
                self._count += 1
                self.nbytes += len(payload)
                yield payload

    def of(self, v: Variable, numbers: range) -> Iterator[bytes]:
        """Give the chunks of a variable of those numbers; what was not kept is encoded now."""
        first, mine = self._first.get(v.path, (0, None))
        if mine != numbers:
            return encode_exact_chunks(v, numbers)
        return (self._spool.take(first + i) for i in range(len(numbers)))

    def __enter__(self) -> KeptChunks:
        return self

    def __exit__(self, *failure: object) -> None:
        self._spool.close()


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
    part = pack(json.dumps(flat, ensure_ascii=True, separators=(",", ":")).encode(), 19)
    try:
        back = decode_small(part, v)
    except FormatError as e:
        raise FieldError(f"variable {v.path}: more text than an archive holds: {e}") from e
    if list(back.ravel()) != flat:
        raise BoundViolationError(f"variable {v.path}: its text would not come back")
    return part


def _decode_text(r: ByteReader, v: Variable) -> Array:
    n = math.prod(v.shape)
    flat = unpack_json(r, MAX_TEXT, f"variable {v.path}: its text")
    if not isinstance(flat, list) or len(flat) != n or not all(isinstance(x, str) for x in flat):
        raise FormatError(f"variable {v.path}: its text does not fit its shape")
    out = np.empty(n, object)
    out[:] = flat
    return out.reshape(v.shape)
