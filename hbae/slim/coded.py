# SPDX-License-Identifier: MIT
"""A network's weights as bytes: entropy-coded codes with their books, and all other tensors without loss."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

import numpy as np

from hbae.arrays import Array
from hbae.codecs import (
    ByteReader,
    ByteWriter,
    decode_ints,
    decode_lossless,
    encode_lossless,
    join_book,
    pack,
    unpack_json,
)
from hbae.errors import FormatError
from hbae.slim.quantise import Quantised, encode_layer

_MAX_DOC = 1 << 20
_MAX_NUMBERS = 1 << 26
_MAX_BOOK = 1 << 12


def encode_weights(layers: Mapping[str, Quantised], rest: Mapping[str, Array]) -> bytes:
    """Encode slimmed layers and the other tensors (floats and integers, kept bit for bit)."""
    coded = {n: encode_layer(q.integers) for n, q in layers.items()}
    books = {n: len(np.union1d(q.integers, [0])) if coded[n][1] else 0 for n, q in layers.items()}
    doc = {
        "layers": [[n, list(q.integers.shape), float(q.unit).hex(), books[n]] for n, q in layers.items()],
        "rest": [[n, list(a.shape), a.dtype.newbyteorder("<").str] for n, a in rest.items()],
    }
    w = ByteWriter()
    w.raw(pack(json.dumps(doc, separators=(",", ":")).encode(), 19))
    for codes, book in coded.values():
        w.raw(codes + book)
    for a in rest.values():
        w.raw(encode_lossless(np.asarray(a, a.dtype.newbyteorder("<"))))
    return w.getvalue()


def decode_weights(data: bytes) -> tuple[dict[str, Quantised], dict[str, Array]]:
    """Undo :func:`encode_weights`.

    Raises
    ------
    FormatError
        When the bytes are damaged or hostile.
    """
    r = ByteReader(data)
    doc = unpack_json(r, _MAX_DOC, "weights")
    try:
        layers = [(str(n), tuple(map(int, s)), float.fromhex(u), int(b)) for n, s, u, b in doc["layers"]]
        rest = [(str(n), tuple(map(int, s)), np.dtype(t)) for n, s, t in doc["rest"]]
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as e:
        raise FormatError(f"weights are malformed: {e!r}") from e
    shapes = [s for _, s, *_ in layers] + [s for _, s, _ in rest]
    if any(min(s, default=1) < 0 for s in shapes) or sum(math.prod(s) for s in shapes) > _MAX_NUMBERS:
        raise FormatError("weights: shapes that cannot be")
    if any(t.kind not in "fiub" for _, _, t in rest) or not all(
        math.isfinite(u) and 0 <= b <= _MAX_BOOK for *_, u, b in layers
    ):
        raise FormatError("weights: a type, unit or book that cannot be")
    out = {}
    for name, shape, unit, book in layers:
        codes = decode_ints(r, (1, math.prod(shape)))
        if book:
            codes = join_book(codes, decode_ints(r, (1, book)).ravel())
        out[name] = Quantised(codes.reshape(shape), unit)
    tensors = {n: decode_lossless(r, s, t) for n, s, t in rest}
    r.end()
    return out, tensors
