# SPDX-License-Identifier: MIT
"""Lossless rivals: zstd (with and without a byte shuffle) and pcodec; their setting has no meaning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hbae.arrays import Array
from hbae.compare.interface import Encoded, Rival, package, plain

LEVEL = 9


class Zstd:
    """Zstandard at level 9 on the values, or on their first bytes, then their second bytes, and so on."""

    name = "zstd"
    bounds: tuple[str, ...] = ()
    steps = False

    def __init__(self, *, shuffle: bool = True) -> None:
        self.shuffle = shuffle

    @property
    def label(self) -> str:
        """Give level and order of bytes."""
        return f"level {LEVEL}{', bytes shuffled' if self.shuffle else ''}"

    def require(self) -> None:
        """Nothing: zstandard is a dependency of hbae."""

    def variants(self, shape: tuple[int, ...], metric: str) -> Sequence[Rival]:
        """Give both orders of bytes."""
        return (Zstd(shuffle=True), Zstd(shuffle=False))

    def encode(self, array: Array, setting: float) -> Encoded:
        """Give one frame."""
        import zstandard

        x = plain(array)
        raw = x.view(np.uint8).reshape(-1, x.dtype.itemsize).T.tobytes() if self.shuffle else x.tobytes()
        payload = zstandard.ZstdCompressor(level=LEVEL).compress(raw)
        return Encoded(payload, len(payload))

    def decode(self, encoded: Encoded, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Give the array back."""
        import zstandard

        native = dtype.newbyteorder("=")
        raw = zstandard.ZstdDecompressor().decompress(encoded.payload)
        if self.shuffle:
            raw = np.frombuffer(raw, np.uint8).reshape(native.itemsize, -1).T.tobytes()
        return np.frombuffer(raw, native).reshape(shape)


class Pcodec:
    """Pcodec at its default level."""

    name = "pcodec"
    label = "default level"
    bounds: tuple[str, ...] = ()
    steps = False

    def require(self) -> None:
        """Raise ``MissingExtraError`` without pcodec."""
        package("pcodec")

    def variants(self, shape: tuple[int, ...], metric: str) -> Sequence[Rival]:
        """Give itself alone."""
        return (self,)

    def encode(self, array: Array, setting: float) -> Encoded:
        """Give pcodec's standalone format."""
        pcodec = package("pcodec")
        payload = bytes(pcodec.standalone.simple_compress(plain(array).ravel(), pcodec.ChunkConfig()))
        return Encoded(payload, len(payload))

    def decode(self, encoded: Encoded, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Give the array back."""
        return np.asarray(package("pcodec").standalone.simple_decompress(encoded.payload)).reshape(shape)
