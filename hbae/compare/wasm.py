# SPDX-License-Identifier: MIT
"""TTHRESH and EBCC through their numcodecs wheels, which run WebAssembly: sizes count, speeds say little."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np

from hbae.arrays import Array
from hbae.compare.interface import Encoded, Rival, layout, package, plain
from hbae.errors import FieldError


class Tthresh:
    """TTHRESH at an RMSE, rank 3 or more, at least 8 points along each axis; axes of one point are dropped.

    The codec takes the fastest axis first: given the shape as it is, it made 27 times more bytes of a smooth field.
    """

    name = "TTHRESH"
    label = "rmse mode, WebAssembly"
    bounds = ("nrmse", "psnr")
    steps = False

    def require(self) -> None:
        """Raise ``MissingExtraError`` without numcodecs-wasm-tthresh."""
        _codec("numcodecs_wasm_tthresh", "Tthresh")

    def variants(self, shape: tuple[int, ...], metric: str) -> Sequence[Rival]:
        """Give itself alone: it treats all axes alike."""
        return (self,)

    def encode(self, array: Array, setting: float) -> Encoded:
        """Give TTHRESH's stream."""
        shape = layout(array.shape, 8, 8)
        if len(shape) < 3 or min(shape) < 8:
            raise FieldError(f"TTHRESH does not apply: it takes 3 axes of at least 8 points, not shape {array.shape}")
        codec = _codec("numcodecs_wasm_tthresh", "Tthresh")(eb_mode="rmse", eb_rmse=setting)
        return _encode(codec, plain(array).reshape(shape[::-1]))

    def decode(self, encoded: Encoded, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Give the array back."""
        codec = _codec("numcodecs_wasm_tthresh", "Tthresh")(eb_mode="rmse", eb_rmse=1.0)
        return _decode(codec, encoded, shape)


class Ebcc:
    """EBCC at an absolute bound on maps of at least 32 x 32 float32 values; ``base`` is the ratio of its JPEG 2000."""

    name = "EBCC"
    bounds = ("abs", "rel_range")
    steps = False

    def __init__(self, base: float = 10.0) -> None:
        self.base = base

    @property
    def label(self) -> str:
        """Give the base ratio."""
        return f"base ratio {self.base:g}, WebAssembly"

    def require(self) -> None:
        """Raise ``MissingExtraError`` without numcodecs-wasm-ebcc."""
        _codec("numcodecs_wasm_ebcc", "Ebcc")

    def variants(self, shape: tuple[int, ...], metric: str) -> Sequence[Rival]:
        """Give three base ratios."""
        return (Ebcc(10.0), Ebcc(30.0), Ebcc(100.0))

    def encode(self, array: Array, setting: float) -> Encoded:
        """Give EBCC's stream."""
        if array.dtype.itemsize != 4 or array.ndim < 2 or min(array.shape[-2:]) < 32:
            raise FieldError(
                f"EBCC does not apply: it takes float32 maps of at least 32 x 32, not {array.dtype} {array.shape}"
            )
        codec = _codec("numcodecs_wasm_ebcc", "Ebcc")(residual="absolute", error=setting, base_cr=self.base)
        return _encode(codec, plain(array))

    def decode(self, encoded: Encoded, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Give the array back."""
        codec = _codec("numcodecs_wasm_ebcc", "Ebcc")(residual="absolute", error=1.0, base_cr=self.base)
        return _decode(codec, encoded, shape)


@cache
def _codec(module: str, name: str) -> Any:
    """Give a codec class; its WebAssembly is translated on first use, which takes seconds."""
    return getattr(package(module), name)


def _encode(codec: Any, x: Array) -> Encoded:
    try:
        with _silent():
            payload = np.asarray(codec.encode(x)).tobytes()
    except RuntimeError as e:
        raise FieldError(f"{type(codec).__name__} failed: {e}") from e
    return Encoded(payload, len(payload))


def _decode(codec: Any, encoded: Encoded, shape: tuple[int, ...]) -> Array:
    try:
        with _silent():
            return np.asarray(codec.decode(np.frombuffer(encoded.payload, np.uint8))).reshape(shape)
    except RuntimeError as e:
        raise FieldError(f"{type(codec).__name__} failed: {e}") from e


@contextmanager
def _silent() -> Iterator[None]:
    """Drop what native code prints: stdout belongs to results, and EBCC warns of every map that it codes plainly."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept, nowhere = (os.dup(1), os.dup(2)), os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    try:
        yield
    finally:
        for stream, old in zip((1, 2), kept, strict=True):
            os.dup2(old, stream)
            os.close(old)
        os.close(nowhere)
