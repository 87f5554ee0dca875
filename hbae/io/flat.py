# SPDX-License-Identifier: MIT
"""Arrays that lie flat in a file: boxes are read and written by plain positioned I/O.

Memory maps are avoided: their pages count as resident memory of the process.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hbae.arrays import Array, Box, Variable, box_shape
from hbae.errors import FieldError

# A span with holes is read at once when it is small or mostly wanted: one call beats many.
_SPAN = 256 << 10
_SPAN_MAX = 64 << 20


def c_strides(shape: Sequence[int], itemsize: int) -> tuple[int, ...]:
    """Give the byte strides of a C-ordered array."""
    strides, step = [], itemsize
    for n in reversed(shape):
        strides.append(step)
        step *= max(n, 1)
    return tuple(reversed(strides))


def _span(shape: Sequence[int], strides: Sequence[int], itemsize: int) -> int:
    return sum((n - 1) * s for n, s in zip(shape, strides, strict=True)) + itemsize


def _starts(shape: Sequence[int], strides: Sequence[int]) -> Array:
    """Give the byte offsets of all outer indices, in C order."""
    out = np.zeros(1, np.int64)
    for n, s in zip(shape, strides, strict=True):
        out = (out[:, None] + np.arange(n, dtype=np.int64) * s).ravel()
    return out


def _descending(strides: Sequence[int]) -> tuple[int, ...]:
    return tuple(sorted(range(len(strides)), key=lambda i: -strides[i]))


@dataclass(frozen=True)
class Layout:
    """Where the elements of an array lie in a file: offset, shape, type and byte strides."""

    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    strides: tuple[int, ...]

    def read(self, fd: int, box: Box) -> Array:
        """Read one box.

        Raises
        ------
        FieldError
            When the file ends early.
        """
        size = box_shape(box)
        if 0 in size:
            return np.empty(size, self.dtype)
        order = _descending(self.strides)
        shape = tuple(size[i] for i in order)
        strides = tuple(self.strides[i] for i in order)
        first = self.offset + sum(s.start * st for s, st in zip(box, self.strides, strict=True))
        item = self.dtype.itemsize
        axis = next(j for j in range(len(shape) + 1) if self._cheap(shape[j:], strides[j:]))
        inner, steps = shape[axis:], strides[axis:]
        span = _span(inner, steps, item)
        starts = _starts(shape[:axis], strides[:axis])
        out = np.empty((len(starts), *inner), self.dtype)
        for k, start in enumerate(starts.tolist()):
            raw = pread_all(fd, span, first + start)
            out[k] = np.ndarray(inner, self.dtype, raw, strides=steps)
        back = tuple(order.index(i) for i in range(len(order)))
        return np.asarray(out.reshape(shape).transpose(back), order="C")

    def _cheap(self, shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
        item = self.dtype.itemsize
        span, useful = _span(shape, strides, item), int(np.prod(shape, dtype=np.int64)) * item
        return span == useful or (span <= _SPAN_MAX and span <= max(_SPAN, 4 * useful))

    def write(self, fd: int, box: Box, array: Array) -> None:
        """Write one box, run by run."""
        size = box_shape(box)
        if 0 in size:
            return
        order = _descending(self.strides)
        shape = tuple(size[i] for i in order)
        strides = tuple(self.strides[i] for i in order)
        data = np.asarray(np.asarray(array, self.dtype).reshape(size).transpose(order), order="C")
        first = self.offset + sum(s.start * st for s, st in zip(box, self.strides, strict=True))
        item = self.dtype.itemsize

        def solid(j: int) -> bool:
            return _span(shape[j:], strides[j:], item) == int(np.prod(shape[j:], dtype=np.int64)) * item

        axis = next(j for j in range(len(shape) + 1) if solid(j))
        starts = _starts(shape[:axis], strides[:axis])
        rows = data.reshape(len(starts), -1).view(np.uint8)
        for row, start in zip(rows, starts.tolist(), strict=True):
            pwrite_all(fd, row.data, first + start)


def pread_all(fd: int, count: int, offset: int) -> bytes | bytearray:
    """Read exactly so many bytes.

    Raises
    ------
    FieldError
        When the file ends early.
    """
    raw = os.pread(fd, count, offset)
    if len(raw) == count:
        return raw
    parts = bytearray(raw)
    while len(parts) < count:
        more = os.pread(fd, count - len(parts), offset + len(parts))
        if not more:
            raise FieldError(f"the file ends early: {count} bytes wanted at offset {offset}")
        parts += more
    return parts


def pwrite_all(fd: int, data: memoryview, offset: int) -> None:
    """Write all bytes."""
    done = os.pwrite(fd, data, offset)
    while done < len(data):
        done += os.pwrite(fd, data[done:], offset + done)


@dataclass(frozen=True)
class FlatSource:
    """A lazy array in a file; opens the file for each box, so it pickles and leaks nothing."""

    path: Path
    layout: Layout
    dtype: np.dtype[Any]
    storage: tuple[int, ...] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.layout.shape

    def read(self, box: Box) -> Array:
        """Read one box.

        Raises
        ------
        FieldError
            When the file ends early.
        """
        fd = os.open(self.path, os.O_RDONLY)
        try:
            values = self.layout.read(fd, box)
        finally:
            os.close(fd)
        return swap_to(values, self.dtype)


class FlatTarget:
    """Writes boxes straight to their places in a file; ``attach``: in one that another rank has made."""

    def __init__(self, path: Path, layouts: Mapping[str, Layout], size: int, head: bytes, *, attach: bool) -> None:
        self._layouts = layouts
        if attach:
            self._fd = os.open(path, os.O_RDWR)
            return
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            os.ftruncate(self._fd, size)
            pwrite_all(self._fd, memoryview(head), 0)
        except OSError:
            self.discard()
            raise

    def chunk(self, variable: Variable) -> tuple[int, ...] | None:
        """Any box may be written."""
        return None

    def write(self, variable: Variable, box: Box, array: Array) -> None:
        """Put one box."""
        layout = self._layouts[variable.path]
        layout.write(self._fd, box, self.stored(array, layout.dtype))

    def stored(self, array: Array, dtype: np.dtype[Any]) -> Array:
        """Give values as the file holds them."""
        return array

    def finish(self) -> None:
        """Close the file, all bytes on disk."""
        os.fsync(self._fd)
        self.discard()

    leave = finish

    def discard(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)


def swap_to(values: Array, dtype: np.dtype[Any]) -> Array:
    """Give the same values in a type that differs by byte order at most; all bits stay."""
    if values.dtype == dtype:
        return values
    if values.dtype.newbyteorder("=") != dtype.newbyteorder("="):
        raise FieldError(f"values of type {values.dtype} where {dtype} was promised")
    return values.byteswap().view(dtype)
