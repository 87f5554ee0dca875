# SPDX-License-Identifier: MIT
"""Integers to bytes and back, bit for bit: entropy-coded arrays, masks, lossless arrays."""

from hbae.codecs.books import join_book, split_book
from hbae.codecs.bytes_ import MAX_JSON_MARKS, ByteReader, ByteWriter, count_marks, pack, unpack, unpack_json
from hbae.codecs.coefficients import decode_coefficients, encode_coefficients
from hbae.codecs.ints import decode_ints, encode_ints
from hbae.codecs.lossless import decode_lossless, encode_lossless, estimate_lossless
from hbae.codecs.masks import decode_mask, encode_mask
from hbae.codecs.predict import difference, integrate

__all__ = [
    "MAX_JSON_MARKS",
    "ByteReader",
    "ByteWriter",
    "count_marks",
    "decode_coefficients",
    "decode_ints",
    "decode_lossless",
    "decode_mask",
    "difference",
    "encode_coefficients",
    "encode_ints",
    "encode_lossless",
    "encode_mask",
    "estimate_lossless",
    "integrate",
    "join_book",
    "pack",
    "split_book",
    "unpack",
    "unpack_json",
]
