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
# Of a basis: entries without their last bits, a column as a row; how many bits each column is without. Before there
# were columns, bases were stored as a matrix.
_COLUMNS, _SHIFTS, _MATRIX = ".columns", ".shifts", ".matrix"
_MOST_SHIFT, _MOST_ENTRY = 20, 1 << 20


def encode_arrays(doc: dict[str, Any], arrays: dict[str, Array]) -> bytes:
    """Encode a JSON document and named integer arrays (entropy coded, one after the other).

    Rows of columns are coded one after the other, as sizes go on from row to row; all other arrays as one row.
    """
    listing = [[name, list(a.shape)] for name, a in arrays.items()]
    w = ByteWriter()
    w.raw(pack(json.dumps({"doc": doc, "arrays": listing}, separators=(",", ":")).encode(), 19))
    for name, a in arrays.items():
        w.raw(encode_ints(a.reshape(_rows(name, a.shape))))
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
    arrays = {n: decode_ints(r, _rows(n, s)).reshape(s) for n, s in listing.items()}
    r.end()
    return doc, arrays


def _rows(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Give the shape in which an array is coded."""
    return shape if name.endswith(_COLUMNS) and len(shape) == 2 and min(shape) > 0 else (1, math.prod(shape))


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
            shifts = np.zeros(a.kept, np.int64) if a.shifts is None else a.shifts
            arrays[f"{i}{_COLUMNS}"], arrays[f"{i}{_SHIFTS}"] = np.ascontiguousarray((a.matrix >> shifts).T), shifts
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
    names = {f"{i}.logs" for i in range(len(axes))}
    for i in (i for i, a in enumerate(bases) if a.kind == "klt"):
        names |= {f"{i}{_MATRIX}"} if f"{i}{_MATRIX}" in arrays else {f"{i}{_COLUMNS}", f"{i}{_SHIFTS}"}
    check_all_used(arrays, names)
    return Transform(bases)


def _axis_basis(i: int, kind: str, size: int, kept: int, arrays: dict[str, Array]) -> AxisBasis:
    matrix = shifts = None
    if kind == "klt":
        if f"{i}{_MATRIX}" in arrays:
            matrix = arrays[f"{i}{_MATRIX}"]
        else:
            columns, shifts = arrays[f"{i}{_COLUMNS}"], arrays[f"{i}{_SHIFTS}"]
            if shifts.shape != columns.shape[:1] or shifts.min(initial=0) < 0 or shifts.max(initial=0) > _MOST_SHIFT:
                raise FormatError("axis basis: impossible shifts")
            if np.abs(columns).max(initial=0) > _MOST_ENTRY:
                raise FormatError("axis basis: entries are too large")
            matrix = columns.T << shifts
        if np.abs(matrix).max(initial=0) > _MOST_ENTRY:
            raise FormatError("axis basis: entries are too large")
    elif kind == "dct":
        if not 1 <= size <= MAX_DCT or not 0 <= kept <= size:
            raise FormatError("axis basis: DCT of an unsupported length")
        matrix = dct_basis(size)[:, :kept]
    basis = AxisBasis(kind, size, matrix, arrays[f"{i}.logs"], shifts)
    if basis.kept != kept:
        raise FormatError("axis basis: it keeps another number of coefficients than declared")
    return basis
