# SPDX-License-Identifier: MIT
"""Bit masks: packed, differenced along the first axis when that is smaller, zstd."""

from __future__ import annotations

import itertools
import math
from functools import lru_cache

import numpy as np

from hbae.arrays import Array
from hbae.codecs.bytes_ import ByteReader, pack, unpack
from hbae.errors import FormatError

# Bytes of masks whose codes are kept for the next plan.
_KEPT = 1 << 17


def read_bits(reader: ByteReader, n: int) -> Array:
    """Read n bits (uint8 0/1) from a packed part.

    Raises
    ------
    FormatError
        When the part has another size, or bits set behind the last one.
    """
    data = unpack(reader, (n + 7) // 8)
    if len(data) != (n + 7) // 8:
        raise FormatError("bits of a wrong size")
    bits = np.unpackbits(np.frombuffer(data, np.uint8))
    if bits[n:].any():
        raise FormatError("bits are set behind the last one")
    return bits[:n]


def encode_mask(mask: Array) -> bytes:
    """Encode a boolean array; :func:`decode_mask` gives the same one.

    First byte: 0 for none set, 1 for all set, 2 for packed bits, 3 for bits that differ from those one step before on
    the first axis. Bits are in C order, highest first.
    """
    if not mask.any():
        return b"\0"
    if mask.all():
        return b"\1"
    bits = np.packbits(mask.ravel()).tobytes()
    return (_coded if len(bits) <= _KEPT else _coded.__wrapped__)(bits, mask.shape)


@lru_cache(maxsize=32)
def _coded(bits: bytes, shape: tuple[int, ...]) -> bytes:
    """Every plan that is weighed on a box asks for the same."""
    plain = pack(bits, 19)
    if len(shape) > 1 and shape[0] > 1:
        mask = np.unpackbits(np.frombuffer(bits, np.uint8), count=math.prod(shape)).reshape(shape)
        mask[1:] ^= mask[:-1].copy()
        delta = pack(np.packbits(mask.ravel()).tobytes(), 19)
        if len(delta) < len(plain):
            return b"\3" + delta
    return b"\2" + plain


def decode_mask(reader: ByteReader, shape: tuple[int, ...]) -> Array:
    """Undo :func:`encode_mask`.

    Raises
    ------
    FormatError
        When the bytes are damaged.
    """
    mode = reader.raw(1)[0]
    if mode in (0, 1):
        return np.full(shape, bool(mode))
    if mode not in (2, 3):
        raise FormatError(f"unknown mask mode {mode}")
    mask = read_bits(reader, int(np.prod(shape, dtype=np.int64))).view(bool).reshape(shape)
    if mode == 3 and len(mask) ** 2 <= mask.size:
        # NumPy's own sums go down each column, a hundred times slower where rows are long.
        for before, row in itertools.pairwise(mask):
            row ^= before
        return mask
    return np.logical_xor.accumulate(mask, axis=0) if mode == 3 else mask
