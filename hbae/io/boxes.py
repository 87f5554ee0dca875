# SPDX-License-Identifier: MIT
"""Which boxes to read a variable in: bounded, in storage order, on storage chunks."""

from __future__ import annotations

from collections.abc import Iterator

from hbae.arrays import Box, Tiling, Variable, boxes_of

# Objects have no fixed size: a string counts as so many bytes.
_STRING_BYTES = 64


def reading_boxes(variable: Variable, max_bytes: int = 64 << 20) -> Iterator[Box]:
    """Walk over boxes that cover the variable once, each of at most ``max_bytes``.

    Boxes lie on whole storage chunks; one chunk is the smallest box, even where it is larger than ``max_bytes``.
    """
    item = _STRING_BYTES if variable.dtype.hasobject else variable.dtype.itemsize
    yield from boxes_of(variable.shape, box_step(variable.shape, variable.source.storage, max(1, max_bytes // item)))


def box_step(shape: tuple[int, ...], chunk: tuple[int, ...] | None, limit: int) -> tuple[int, ...]:
    """Give the box shape: whole chunks, grown from the last axis on, of at most ``limit`` elements."""
    unit = chunk or (1,) * len(shape)
    step = [min(max(c, 1), max(n, 1)) for c, n in zip(unit, shape, strict=True)]
    count = 1
    for s in step:
        count *= s
    for axis in reversed(range(len(shape))):
        n, s = max(shape[axis], 1), step[axis]
        grown = n if count // s * n <= limit else max(1, limit // count) * s
        count = count // s * min(grown, n)
        step[axis] = min(grown, n)
        if step[axis] < n:
            break
    return tuple(step)


def aligned(box: Box, shape: tuple[int, ...], chunk: tuple[int, ...] | None) -> bool:
    """Tell whether a box covers whole storage chunks only."""
    if chunk is None:
        return True
    return all(s.start % c == 0 and (s.stop % c == 0 or s.stop == n) for s, n, c in zip(box, shape, chunk, strict=True))


def whole(shape: tuple[int, ...]) -> Box:
    """Give the box of everything."""
    return tuple(slice(0, n) for n in shape)


def fits_storage(boxes: Tiling, window: Box, storage: tuple[int, ...]) -> bool:
    """Tell whether all boxes, cut to a window that is written as a whole, lie on whole storage chunks."""
    for cut, step, n in zip(window, boxes.step, storage, strict=True):
        edges = range((cut.start // step + 1) * step, cut.stop, step)
        if any((edge - cut.start) % n for edge in edges):
            return False
    return True
