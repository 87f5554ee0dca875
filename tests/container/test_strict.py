# SPDX-License-Identifier: MIT
"""Bytes that nobody reads are refused: behind a part, in padding, in streams, in arrays and flags."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import hbae
from hbae.arrays import plain_dtype
from hbae.codecs import (
    ByteReader,
    ByteWriter,
    contexts,
    decode_ints,
    decode_lossless,
    decode_mask,
    encode_ints,
    encode_lossless,
    encode_mask,
    pack,
    unpack,
)
from hbae.codecs.ints import LEVELS
from hbae.codecs.tables import read_runs, write_runs
from hbae.container import decode_decoder, decode_transform, encode_decoder, encode_transform
from hbae.container.sections import decode_arrays, encode_arrays
from hbae.errors import FormatError
from hbae.exact import AxisBasis, Transform

from .hostile_files import Parts, as_json

SHAPE = (5, 18, 8)


def some_ints() -> bytes:
    """Small and large integers; the last slab is zero."""
    q = np.rint(np.random.default_rng(1).normal(0, 20, SHAPE)).astype(np.int64)
    # Two kinds of places, for two tables.
    q[:, :9] = 0
    q[2, 3, 4], q[4] = 2**51, 0
    return encode_ints(q)


def pieces(data: bytes) -> list[bytes]:
    """Bitmap, tables, raw bits and words of an integer array."""
    r = ByteReader(data)
    return [unpack(r, 1 << 20), unpack(r, 1 << 20), r.part(), r.part()]


def joined(bitmap: bytes, tables: bytes, raw: bytes, words: bytes) -> bytes:
    w = ByteWriter()
    w.raw(pack(bitmap))
    w.raw(pack(tables))
    w.part(raw)
    w.part(words)
    return w.getvalue()


def label_of_unused_context(tables: bytes, *, beyond: bool = False) -> bytes:
    """Give the last context, which does not occur, another table, or the first one, which does, one ``beyond`` all."""
    r = ByteReader(tables)
    n = r.varint()
    for _ in range(n):
        r.varint()
    begin = len(tables) - len(r.rest())
    r = ByteReader(tables[begin:])
    labels = read_runs(r, LEVELS)
    if beyond:
        labels[0] = n
    else:
        labels[-1] = (labels[-1] + 1) % n
    w = ByteWriter()
    w.raw(tables[:begin])
    write_runs(w, labels)
    w.raw(r.rest())
    return w.getvalue()


LEFT_OVER: dict[str, Callable[[bytes, bytes, bytes, bytes], tuple[bytes, bytes, bytes, bytes]]] = {
    "bits behind the bitmap": lambda b, t, r, w: (bytes([b[0] | 1]), t, r, w),
    "a label": lambda b, t, r, w: (b, label_of_unused_context(t), r, w),
    "a label of no table": lambda b, t, r, w: (b, label_of_unused_context(t, beyond=True), r, w),
    "behind the tables": lambda b, t, r, w: (b, t + b"\0", r, w),
    "a raw byte": lambda b, t, r, w: (b, t, r + b"\0", w),
    "raw padding": lambda b, t, r, w: (b, t, r[:-1] + bytes([r[-1] | 1]), w),
    "a word": lambda b, t, r, w: (b, t, r, b"\1\0\0\0" + w),
    "zero words": lambda b, t, r, w: (b, t, r, bytes(8) + w),
    "half a word": lambda b, t, r, w: (b, t, r, w + b"\0\0"),
    "a lost word": lambda b, t, r, w: (b, t, r, w[4:]),
}


@pytest.mark.parametrize("name", sorted(LEFT_OVER))
@pytest.mark.parametrize("compiled", [True, False])
def test_left_over_symbols(name: str, compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not compiled:
        monkeypatch.setattr(contexts, "_symbols", None)
    good = pieces(some_ints())
    assert decode_ints(ByteReader(joined(*good)), SHAPE)[2, 3, 4] == 2**51
    with pytest.raises(FormatError):
        decode_ints(ByteReader(joined(*LEFT_OVER[name](*good))), SHAPE)


def test_a_table_that_no_context_uses() -> None:
    bitmap, tables, raw, words = pieces(some_ints())
    r = ByteReader(tables)
    n = r.varint()
    w = ByteWriter()
    w.varint(n + 1)
    for _ in range(n):
        w.varint(r.varint())
    w.varint(1)
    w.raw(r.rest())
    with pytest.raises(FormatError, match="table"):
        decode_ints(ByteReader(joined(bitmap, w.getvalue(), raw, words)), SHAPE)


def test_an_integer_has_one_form() -> None:
    assert ByteReader(b"\0").varint() == 0
    assert ByteReader(b"\x80\x01").varint() == 128
    assert ByteReader(b"\xff" * 8 + b"\x7f").varint() == (1 << 63) - 1
    with pytest.raises(FormatError, match="end inside"):
        ByteReader(b"\xff" * 9 + b"\x01").varint()
    for data in (b"\x80\x00", b"\x81\x80\x00", b"\xff" * 8 + b"\x00"):
        with pytest.raises(FormatError, match="longer"):
            ByteReader(data).varint()


def part_with(frame: bytes, size: int) -> bytes:
    w = ByteWriter()
    w.varint(size * 2 + 1)
    w.part(frame)
    return w.getvalue()


def test_nothing_follows_a_zstd_frame() -> None:
    r = ByteReader(pack(bytes(500)))
    r.varint()
    frame = r.part()
    assert unpack(ByteReader(part_with(frame, 500)), 500) == bytes(500)
    for more in (b"x", frame):
        with pytest.raises(FormatError, match="zstd"):
            unpack(ByteReader(part_with(frame + more, 500)), 500)
    with pytest.raises(FormatError, match="zstd"):
        unpack(ByteReader(part_with(frame, 0)), 500)


def test_padding_of_masks() -> None:
    mask = np.arange(13) % 3 == 0
    data = encode_mask(mask)
    assert data[0] == 2
    assert np.array_equal(decode_mask(ByteReader(data), (13,)), mask)
    with pytest.raises(FormatError, match="behind"):
        decode_mask(ByteReader(data[:-1] + bytes([data[-1] | 1])), (13,))


def test_heads_of_lossless_arrays() -> None:
    words, letters = np.arange(40, dtype="<i4"), np.arange(9, dtype="u1")
    for a in (words, letters):
        data = b"\0\0\0" + pack(a.tobytes())
        assert decode_lossless(ByteReader(data), a.shape, a.dtype).tobytes() == a.tobytes()
        with pytest.raises(FormatError, match="mode"):
            decode_lossless(ByteReader(b"\0\1\0" + data[3:]), a.shape, a.dtype)
    with pytest.raises(FormatError, match="mode"):
        decode_lossless(ByteReader(b"\0\0\1" + encode_lossless(letters)[3:]), letters.shape, letters.dtype)


def test_heads_of_predicted_arrays() -> None:
    a = np.arange(12, dtype="<i2").reshape(4, 3)
    rests = b"\0" + pack(a.tobytes())
    whole, planes = b"\3\0\0\0\0", b"\3\0\3" + b"\0\0\0" + b"\2\1\1\0" + b"\1\3\2\0"
    for head in (whole, planes):
        decode_lossless(ByteReader(head + rests), a.shape, a.dtype)
    for head, text in {
        b"\3\x10\0\0\0": "zero bits",
        b"\3\x40\0\0\0": "zero bits",
        b"\3\0\2" + b"\0\0\0" + b"\1\0\0": "number of planes",
        b"\3\0\0\4\0": "prediction",
        planes[:4] + b"\1" + planes[5:]: "not known",
        planes[:6] + b"\3" + planes[7:]: "not known",
        planes[:6] + b"\0" + planes[7:]: "not known",
        planes[:8] + b"\3" + planes[9:]: "prediction",
        planes[:7] + b"\2" + planes[8:]: "not known",
    }.items():
        with pytest.raises(FormatError, match=text):
            decode_lossless(ByteReader(head + rests), a.shape, a.dtype)
    for shape, head, text in (
        ((12,), b"\3\0\x0c" + b"\0" * 12 * 2, "number of planes"),
        ((12, 1), b"\3\0\1" + b"\0\0\0", "number of planes"),
        ((1, 33), b"\3\0\x21" + b"\0" * 33 * 3, "number of planes"),
        ((2, 2, 2, 2), b"\3\0\2" + b"\0" * 5 + b"\1\1" + b"\2" * 3 + b"\0" * 3, "prediction"),
        ((2,) * 5, b"\3\0\0" + b"\3" * 5, "prediction"),
    ):
        a = np.zeros(shape, "<i2")
        with pytest.raises(FormatError, match=text):
            decode_lossless(ByteReader(head + b"\0" + pack(a.tobytes())), a.shape, a.dtype)
    a = np.arange(12, dtype="<i2").reshape(4, 3)
    for kind in (b"\3", b"\xff"):
        with pytest.raises(FormatError, match="kind of residuals"):
            decode_lossless(ByteReader(whole + kind + rests[1:]), a.shape, a.dtype)
    with pytest.raises(FormatError, match="too many"):
        decode_lossless(ByteReader(whole + b"\2" + encode_ints(np.zeros((64, 1), int))), (1 << 12, 4097), a.dtype)
    with pytest.raises(FormatError, match="size"):
        decode_lossless(ByteReader(whole + b"\0" + pack(a.tobytes()[1:])), a.shape, a.dtype)
    with pytest.raises(FormatError, match="kind of residuals"):
        decode_lossless(ByteReader(b"\3\0\0\0\1" + pack(bytes(9))), (9,), np.dtype("u1"))
    with pytest.raises(FormatError, match="zero bits"):
        decode_lossless(ByteReader(b"\3\x4a\0\0\0" + b"\0" + pack(bytes(24))), (4, 3), np.dtype("<f2"))
    for shape, dtype in (((), "<f4"), ((0, 2), "<f4"), ((2,), "S4"), ((2,), "<U1")):
        with pytest.raises(FormatError, match="cannot be predicted"):
            decode_lossless(ByteReader(b"\3\0\0\0" + rests), shape, np.dtype(dtype))


def test_arrays_that_are_not_used() -> None:
    basis = AxisBasis("klt", 2, np.array([[3, 1], [1, 3]]), np.zeros(2, np.int64))
    doc, arrays = decode_arrays(encode_transform(Transform((basis,))))
    assert decode_transform(encode_arrays(doc, arrays)).tile == (2,)
    for bad_doc, more in (
        (doc, {"1.logs": np.zeros(3, np.int64)}),
        ({"axes": [["klt", 2, 1]]}, {}),
        ({"axes": [["none", 2, 2]]}, {}),
    ):
        with pytest.raises(FormatError):
            decode_transform(encode_arrays(bad_doc, {**arrays, **more}))
    path = Path(__file__).parent.parent / "golden" / "model.hbae"
    body = next(b for n, b in Parts(path).sections if n.startswith("model "))
    doc, arrays = decode_arrays(body)
    assert decode_decoder(encode_arrays(doc, arrays)).num_variables == 2
    with pytest.raises(FormatError, match="not used"):
        decode_decoder(encode_arrays(doc, {**arrays, "hyper.9.bias": np.zeros(1, np.int64)}))


def test_codebooks_of_models_are_checked() -> None:
    path = Path(__file__).parent.parent / "golden" / "model_codebook.hbae"
    body = next(b for n, b in Parts(path).sections if n.startswith("model "))
    doc, arrays = decode_arrays(body)
    name = next(n for n in arrays if n.endswith(".book"))
    weight, book = name.replace(".book", ".weight"), arrays[name]
    assert encode_decoder(decode_decoder(body)) == body
    spoiled = {
        "another value": ({name: book + (book == book[-1])}, "test vector"),
        "two zeros": ({name: np.zeros_like(book)}, "codebook"),
        "no order": ({name: book[::-1].copy()}, "codebook"),
        "a matrix": ({name: book[None]}, "codebook"),
        "nothing": ({name: book[:0]}, "codebook"),
        "a code too many": ({weight: arrays[weight] + len(book)}, "codebook"),
        "16 bits": ({name: book * 1000}, "16-bit"),
        "of no layer": ({"hyper.9.book": book}, "without codes"),
        "of a bias": ({"hyper.9.book": book, "hyper.9.weight": arrays[weight]}, "not used"),
    }
    for change, message in spoiled.values():
        with pytest.raises(FormatError, match=message):
            decode_decoder(encode_arrays(doc, {**arrays, **change}))


def flagged(flag: int) -> Callable[[bytes], bytes]:
    return lambda c: c[:33] + bytes([c[33] | flag]) + c[34:]


def exact_points(index: list[int], values: Any) -> bytes:
    """The part of exact points, with indices in any order."""
    w = ByteWriter()
    w.varint(len(index))
    w.raw(pack(np.diff(np.array(index), prepend=0).astype("<u4").tobytes()))
    w.raw(encode_lossless(np.asarray(values, "<f4")))
    return w.getvalue()


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c[:33] + bytes([c[33] | 128, 0]) + c[34:],
        flagged(4),
        lambda c: c + b"\0",
        lambda c: flagged(64)(c) + exact_points([], []),
        lambda c: flagged(64)(c) + exact_points([5, 5], [1, 2]),
        lambda c: flagged(64)(c) + exact_points([5, 400], [1, 2]),
    ],
)
def test_chunks(change: Callable[[bytes], bytes], tiny: Path, tmp_path: Path) -> None:
    parts = Parts(tiny)
    assert parts.chunks[0][33] == 32
    parts.chunks[0] = change(parts.chunks[0])
    parts.build(tmp_path / "bad.hbae")
    with pytest.raises(FormatError, match="chunk 0") as caught:
        hbae.decompress(tmp_path / "bad.hbae")
    assert "differ" not in str(caught.value), "refused before the hash is looked at"


def test_the_log_domain_has_its_own_parts(tmp_path: Path) -> None:
    x = np.exp(np.sin(np.arange(400).reshape(20, 20) / 9)).astype("f4")
    hbae.compress(xr.Dataset({"x": (("a", "b"), x)}), tmp_path / "a.hbae", "pw_rel=1e-2", method="linear")
    parts = Parts(tmp_path / "a.hbae")
    for flags in (parts.chunks[0][33] | 8, parts.chunks[0][33] | 128, 0):
        parts.chunks[0] = parts.chunks[0][:33] + bytes([flags]) + parts.chunks[0][34:]
        parts.build(tmp_path / "bad.hbae")
        with pytest.raises(FormatError, match="log domain"):
            hbae.decompress(tmp_path / "bad.hbae")


@pytest.mark.parametrize("place", ["header", "index", "values", "group 0"])
def test_nothing_follows_a_section(place: str, tiny: Path, tmp_path: Path) -> None:
    parts = Parts(tiny)
    header = as_json(parts.header) + b"\0" if place == "header" else None
    parts.sections = [(n, b + b"\0" if n == place else b) for n, b in parts.sections]
    parts.build(tmp_path / "bad.hbae", header, lambda t: as_json(t) + b"\0" if place == "index" else t)
    with pytest.raises(FormatError, match="unexpected bytes"):
        hbae.decompress(tmp_path / "bad.hbae")


def doubled(doc: Any) -> Any:
    group = doc["field"]["groups"][0]
    return {**doc, "field": {**doc["field"], "groups": [{**group, "vars": group["vars"] + group["vars"][:1]}]}}


@pytest.mark.parametrize(
    "change",
    [
        doubled,
        lambda d: {**d, "exact": [["x", d["groups"][0]["chunk"]]], "groups": d["groups"]},
        lambda d: {**d, "groups": [{**d["groups"][0], "chunk": [n + 1 for n in d["groups"][0]["chunk"]]}]},
    ],
)
def test_headers_that_say_things_twice(change: Callable[[Any], Any], tmp_path: Path) -> None:
    x = np.sin(np.arange(400).reshape(20, 20) / 30).astype("f4")
    hbae.compress(xr.Dataset({"x": (("a", "b"), x)}), tmp_path / "a.hbae", "abs=1e-2", method="linear")
    parts = Parts(tmp_path / "a.hbae")
    parts.header = change(json.loads(json.dumps(parts.header)))
    if parts.header["exact"]:
        parts.chunks *= 2
    parts.build(tmp_path / "bad.hbae")
    with pytest.raises(FormatError):
        hbae.decompress(tmp_path / "bad.hbae")


@pytest.mark.parametrize(
    "text", [",", "(1,)f4", "f4,", "i4,i4", "f 4", "<V3", "<M8[s]", "", "<f3", "<U999999999", 4, None, []]
)
def test_types_that_are_not_plain_are_refused(text: Any) -> None:
    """NumPy reads some as Python, and fails as that does."""
    with pytest.raises(FormatError, match="element type"):
        plain_dtype(text)


@pytest.mark.parametrize("text", ["<f4", ">f8", "|b1", "<i2", "|u1", "<c16", "|S5", "<U7", "|O"])
def test_plain_types_are_read(text: str) -> None:
    assert plain_dtype(text).str == text
