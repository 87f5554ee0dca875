# SPDX-License-Identifier: MIT
"""Shared sections as bytes: decoders (models) and transforms (bases)."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from hbae.arrays import Array
from hbae.codecs import ByteReader, ByteWriter, decode_ints, encode_ints, pack, unpack
from hbae.errors import FormatError
from hbae.exact import MAX_DCT, AxisBasis, BlockDecoder, Transform, dct_basis

MAX_WEIGHTS = 1 << 28


def encode_arrays(doc: dict[str, Any], arrays: dict[str, Array]) -> bytes:
    """Encode a JSON document and named integer arrays (entropy coded, one after the other)."""
    listing = [[name, list(a.shape)] for name, a in arrays.items()]
    w = ByteWriter()
    w.raw(pack(json.dumps({"doc": doc, "arrays": listing}, separators=(",", ":")).encode(), 19))
    for a in arrays.values():
        w.raw(encode_ints(a.reshape(1, -1)))
    return w.getvalue()


def decode_arrays(data: bytes, most: int = MAX_WEIGHTS) -> tuple[dict[str, Any], dict[str, Array]]:
    """Undo :func:`encode_arrays`; at most ``most`` numbers.

    Raises
    ------
    FormatError
        When the bytes are damaged or too much is declared.
    """
    r = ByteReader(data)
    try:
        head = json.loads(unpack(r, 16 << 20))
        doc, listing = dict(head["doc"]), [(str(n), tuple(int(d) for d in s)) for n, s in head["arrays"]]
    except FormatError:
        raise
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError) as e:
        raise FormatError(f"section is malformed: {e!r}") from e
    if any(d < 0 for _, s in listing for d in s) or sum(int(np.prod(s, dtype=object)) for _, s in listing) > most:
        raise FormatError("section declares too many numbers")
    arrays = {}
    for name, shape in listing:
        n = int(np.prod(shape, dtype=np.int64))
        arrays[name] = decode_ints(r, (1, n)).reshape(shape)
    r.end()
    return doc, arrays


def encode_decoder(decoder: BlockDecoder) -> bytes:
    """Encode a decoder as it is embedded in archives and MODEL files; its SHA-256 names the model."""
    return encode_arrays(*decoder.to_parts())


def decode_decoder(data: bytes) -> BlockDecoder:
    """Undo :func:`encode_decoder`; the overflow proof and the test vectors are run.

    Raises
    ------
    FormatError
        When the bytes are damaged or hostile.
    """
    return BlockDecoder.from_parts(*decode_arrays(data))


def encode_transform(transform: Transform) -> bytes:
    """Encode the bases of a transform; a DCT is stored by its name only."""
    doc = {"axes": [[a.kind, a.size, a.kept] for a in transform.axes]}
    arrays: dict[str, Array] = {}
    for i, a in enumerate(transform.axes):
        if a.kind == "klt" and a.matrix is not None:
            arrays[f"{i}.matrix"] = a.matrix
        arrays[f"{i}.logs"] = a.logs
    return encode_arrays(doc, arrays)


def decode_transform(data: bytes) -> Transform:
    """Undo :func:`encode_transform`.

    Raises
    ------
    FormatError
        When the bytes are damaged or hostile.
    """
    doc, arrays = decode_arrays(data, 1 << 24)
    try:
        axes = []
        for i, (kind, size, kept) in enumerate(doc["axes"]):
            matrix = None
            if kind == "klt":
                matrix = arrays[f"{i}.matrix"]
                if np.abs(matrix).max(initial=0) > 1 << 20:
                    raise FormatError("axis basis: entries are too large")
            elif kind == "dct":
                if not 1 <= size <= MAX_DCT or not 0 <= kept <= size:
                    raise FormatError("axis basis: DCT of an unsupported length")
                matrix = dct_basis(int(size))[:, : int(kept)]
            axes.append(AxisBasis(str(kind), int(size), matrix, arrays[f"{i}.logs"]))
    except (KeyError, TypeError, ValueError, OverflowError) as e:
        if isinstance(e, FormatError):
            raise
        raise FormatError(f"transform is malformed: {e!r}") from e
    return Transform(tuple(axes))
