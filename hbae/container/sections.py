# SPDX-License-Identifier: MIT
"""Shared sections as bytes: decoders (models) and transforms (bases)."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np

from hbae.arrays import Array
from hbae.codecs import ByteReader, ByteWriter, decode_ints, encode_ints, join_book, pack, split_book, unpack_json
from hbae.errors import FormatError
from hbae.exact import MAX_DCT, MAX_NUMBERS, AxisBasis, BlockDecoder, Transform, dct_basis

MAX_ARRAYS = 1 << 10
MAX_AXES = 33
_MAX_DOC = 16 << 20
_WEIGHT, _BOOK = ".weight", ".book"


def encode_arrays(doc: dict[str, Any], arrays: dict[str, Array]) -> bytes:
    """Encode a JSON document and named integer arrays (entropy coded, one after the other)."""
    listing = [[name, list(a.shape)] for name, a in arrays.items()]
    w = ByteWriter()
    w.raw(pack(json.dumps({"doc": doc, "arrays": listing}, separators=(",", ":")).encode(), 19))
    for a in arrays.values():
        w.raw(encode_ints(a.reshape(1, -1)))
    return w.getvalue()


def decode_arrays(data: bytes) -> tuple[dict[str, Any], dict[str, Array]]:
    """Undo :func:`encode_arrays`; at most 2**24 numbers in at most 1024 vectors and matrices.

    Raises
    ------
    FormatError
        When the bytes are damaged or too much is declared.
    """
    r = ByteReader(data)
    head = unpack_json(r, _MAX_DOC, "section")
    try:
        doc, listing = dict(head["doc"]), {str(n): tuple(int(d) for d in s) for n, s in head["arrays"]}
        given = len(head["arrays"])
    except (ValueError, KeyError, TypeError, OverflowError) as e:
        raise FormatError(f"section is malformed: {e!r}") from e
    flat = all(len(s) < 3 and min(s, default=0) >= 0 for s in listing.values())
    if len(listing) != given or given > MAX_ARRAYS or not flat:
        raise FormatError("section declares arrays that cannot be")
    if sum(math.prod(s) for s in listing.values()) > MAX_NUMBERS:
        raise FormatError("section declares too many numbers")
    arrays = {n: decode_ints(r, (1, math.prod(s))).reshape(s) for n, s in listing.items()}
    r.end()
    return doc, arrays


def check_all_used(arrays: dict[str, Array], used: set[str]) -> None:
    """Check that a section holds no array that nobody asks for.

    Raises
    ------
    FormatError
        When it does.
    """
    if set(arrays) != used:
        raise FormatError("section holds arrays that are not used")


def encode_decoder(decoder: BlockDecoder) -> bytes:
    """Encode a decoder as it is embedded in archives and MODEL files; its SHA-256 names the model.

    Weights that take few values are stored as codes with a book, where that takes fewer bytes.
    """
    doc, arrays = decoder.to_parts()
    return encode_arrays(doc, _with_books(arrays))


def decode_decoder(data: bytes) -> BlockDecoder:
    """Undo :func:`encode_decoder`; the overflow proof and the test vectors are run.

    Raises
    ------
    FormatError
        When the bytes are damaged or hostile.
    """
    doc, arrays = decode_arrays(data)
    arrays = _without_books(arrays)
    decoder = BlockDecoder.from_parts(doc, arrays)
    check_all_used(arrays, decoder.array_names())
    return decoder


def _with_books(arrays: dict[str, Array]) -> dict[str, Array]:
    out: dict[str, Array] = {}
    for name, a in arrays.items():
        out[name] = a
        parts = split_book(a) if name.endswith(_WEIGHT) else None
        if parts is not None:
            book = name.removesuffix(_WEIGHT) + _BOOK
            plain, coded = encode_arrays({}, {name: a}), encode_arrays({}, {name: parts[0], book: parts[1]})
            if len(coded) < len(plain):
                out |= {name: parts[0], book: parts[1]}
    return out


def _without_books(arrays: dict[str, Array]) -> dict[str, Array]:
    out = {n: a for n, a in arrays.items() if not n.endswith(_BOOK)}
    for name in arrays.keys() - out.keys():
        weight = name.removesuffix(_BOOK) + _WEIGHT
        if weight not in out:
            raise FormatError("section holds a codebook without codes")
        out[weight] = join_book(out[weight], arrays[name])
    return out


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
    doc, arrays = decode_arrays(data)
    try:
        axes = [(str(kind), int(size), int(kept)) for kind, size, kept in doc["axes"]]
        # Before any basis is made: a long one takes a second.
        if len(axes) > MAX_AXES or math.prod(size for _, size, _ in axes) > MAX_NUMBERS:
            raise FormatError("transform: its tile is too large")
        bases = tuple(_axis_basis(i, *axis, arrays) for i, axis in enumerate(axes))
    except FormatError:
        raise
    except (KeyError, TypeError, ValueError, OverflowError) as e:
        raise FormatError(f"transform is malformed: {e!r}") from e
    names = {f"{i}.logs" for i in range(len(axes))} | {f"{i}.matrix" for i, a in enumerate(bases) if a.kind == "klt"}
    check_all_used(arrays, names)
    return Transform(bases)


def _axis_basis(i: int, kind: str, size: int, kept: int, arrays: dict[str, Array]) -> AxisBasis:
    matrix = None
    if kind == "klt":
        matrix = arrays[f"{i}.matrix"]
        if np.abs(matrix).max(initial=0) > 1 << 20:
            raise FormatError("axis basis: entries are too large")
    elif kind == "dct":
        if not 1 <= size <= MAX_DCT or not 0 <= kept <= size:
            raise FormatError("axis basis: DCT of an unsupported length")
        matrix = dct_basis(size)[:, :kept]
    basis = AxisBasis(kind, size, matrix, arrays[f"{i}.logs"])
    if basis.kept != kept:
        raise FormatError("axis basis: it keeps another number of coefficients than declared")
    return basis
