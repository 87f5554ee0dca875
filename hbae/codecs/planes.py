# SPDX-License-Identifier: MIT
"""Words of an array predicted by those before them: differences along axes, and planes of a short last axis by others.

Corners of cells and nodes of elements repeat what their neighbours have: entry k of the last axis is then a plane, and
it is predicted by another plane, moved by a step. All is exact, modulo the words' size.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np

from hbae.arrays import Array
from hbae.codecs.bytes_ import ByteReader, ByteWriter, pack, unpack
from hbae.codecs.ints import decode_ints, encode_ints
from hbae.codecs.predict import add_along
from hbae.errors import FormatError

# How residuals are stored.
BYTES, SHUFFLED, CODED = 0, 1, 2
MOST_PLANES = 32
_MOST_ORDER, _MOST_SUMS = 3, 12
# Axes that a plane has at most: more could be moved in too many ways.
_MOST_MOVED = 2
# A plane of fewer points is not worth its prediction; of so many, how planes predict each other is found out.
_LEAST_POINTS, _POINTS = 64, 4096
# Residuals that take more than that part of all bits are not worth coding.
_PAYS = 0.8
# Fewer slabs than that are merged with the next axis: the first one has no contexts.
_SLABS = 32
_LARGEST = 1 << 61
# Integers of an array that is coded: they take 8 bytes each on the way.
MOST_CODED = 1 << 24


@dataclass(frozen=True)
class Plane:
    """Entry ``number`` of the last axis, or all of an array that is not split (0).

    ``source``: the plane that predicts it, None for none; ``moves``: by how much (-1 to 1) that one is moved along each
    axis, around the ends. ``orders``: how often the residual is differenced along each axis.
    """

    number: int
    source: int | None
    moves: tuple[int, ...]
    orders: tuple[int, ...]


@dataclass(frozen=True)
class Prediction:
    """How integers predict each other: ``planes`` in coding order, of the last axis if ``split``."""

    split: bool
    planes: tuple[Plane, ...]

    def residuals(self, values: Array) -> Array:
        """Give what is left of signed integers; (P, grid)."""
        return np.stack([_residual(values, p, self.split) for p in self.planes])

    def encode(self, values: Array, kinds: tuple[int, ...], level: int) -> bytes | None:
        """Encode signed integers in the kind that is smallest; None where residuals are too large for it."""
        rests = self.residuals(values)
        if rests.size > MOST_CODED or (rests.itemsize == 8 and max(int(rests.max()), -int(rests.min())) >= _LARGEST):
            kinds = tuple(k for k in kinds if k != CODED)
        coded = min((_encode_residuals(rests, k, level) for k in kinds), key=len, default=None)
        return None if coded is None else self._head() + coded

    def _head(self) -> bytes:
        w = ByteWriter()
        w.raw(bytes([len(self.planes) * self.split]))
        for p in self.planes:
            if self.split:
                w.raw(bytes([p.number, 0 if p.source is None else p.source + 1]))
                if p.source is not None:
                    w.raw(bytes(m + 1 for m in p.moves))
            w.raw(bytes(p.orders))
        return w.getvalue()


def find_predictions(values: Array) -> list[Prediction]:
    """Find out how signed integers are predicted well: as a whole, and by planes where the last axis is short."""
    bits = _PAYS * 8 * values.nbytes
    cost, orders = _orders(values)
    found = [Prediction(False, (Plane(0, None, (), orders),))] if cost < bits else []
    points = values.size // max(values.shape[-1], 1)
    if 1 < values.ndim <= _MOST_MOVED + 1 and 1 < values.shape[-1] <= MOST_PLANES and points >= _LEAST_POINTS:
        cost, planes = _find_planes([np.ascontiguousarray(values[..., k]) for k in range(values.shape[-1])])
        found += [Prediction(True, planes)] if cost < bits else []
    return found


def decode_predicted(reader: ByteReader, shape: tuple[int, ...], size: int) -> Array:
    """Undo :meth:`Prediction.encode`, giving signed integers of ``size`` bytes.

    Raises
    ------
    FormatError
        When the bytes are damaged.
    """
    count = reader.raw(1)[0]
    if count and (len(shape) < 2 or count != shape[-1] or not 1 < count <= MOST_PLANES):
        raise FormatError("number of planes does not fit")
    grid = shape[:-1] if count else shape
    planes = _read_planes(reader, count, len(grid))
    rests = _decode_residuals(reader, (max(count, 1), *grid), size)
    values = np.empty_like(rests)
    for p, rest in zip(planes, rests, strict=True):
        for axis, order in enumerate(p.orders):
            for k in reversed(range(order)):
                add_along(rest, axis, k)
        values[p.number] = rest if p.source is None else rest + _moved(values[p.source], p.moves)
    return np.moveaxis(values, 0, -1) if count else values[0]


def _read_planes(reader: ByteReader, count: int, axes: int) -> list[Plane]:
    known: dict[int, Plane] = {}
    for _ in range(max(count, 1)):
        number, source = reader.raw(2) if count else (0, 0)
        if number in known or number >= max(count, 1) or (source and source - 1 not in known):
            raise FormatError("a plane is predicted by one that is not known")
        moves = tuple(m - 1 for m in reader.raw(axes * (source > 0)))
        orders = tuple(reader.raw(axes))
        many = len(moves) - moves.count(0) > _MOST_MOVED or sum(orders) > _MOST_SUMS
        if many or max(moves, default=0) > 1 or max(orders, default=0) > _MOST_ORDER:
            raise FormatError("unknown prediction of a plane")
        known[number] = Plane(number, source - 1 if source else None, moves, orders)
    return list(known.values())


def _encode_residuals(rests: Array, kind: int, level: int) -> bytes:
    if kind == CODED:
        return bytes([kind]) + encode_ints(_slabs(rests), far=1)
    data = np.ascontiguousarray(rests, rests.dtype.newbyteorder("<"))
    if kind == SHUFFLED:
        data = np.ascontiguousarray(data.view(np.uint8).reshape(-1, rests.itemsize).T)
    return bytes([kind]) + pack(data.tobytes(), level)


def _decode_residuals(reader: ByteReader, shape: tuple[int, ...], size: int) -> Array:
    kind = reader.raw(1)[0]
    if kind not in (BYTES, CODED) and not (kind == SHUFFLED and size > 1):
        raise FormatError("unknown kind of residuals")
    signed = np.dtype(f"i{size}")
    if kind == CODED:
        if math.prod(shape) > MOST_CODED:
            raise FormatError("too many integers in an array")
        first, *others = _merged(shape[1:])
        coded = decode_ints(reader, (first, shape[0], *others), far=1).astype(signed)
        return np.ascontiguousarray(np.moveaxis(coded, 1, 0)).reshape(shape)
    nbytes = math.prod(shape) * size
    data = unpack(reader, nbytes)
    if len(data) != nbytes:
        raise FormatError("residuals of a wrong size")
    raw = np.frombuffer(data, np.uint8)
    if kind == SHUFFLED:
        raw = raw.reshape(size, -1).T.ravel()
    return raw.view(signed.newbyteorder("<")).reshape(shape).astype(signed)


def _slabs(rests: Array) -> Array:
    """Residuals of planes (P, grid) as slabs (S, P, ...) of int64."""
    return np.ascontiguousarray(np.moveaxis(rests.reshape(len(rests), *_merged(rests.shape[1:])), 0, 1), np.int64)


def _merged(grid: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of a grid without axes of length 1, the first ones merged until there are many slabs."""
    lengths = [n for n in grid if n != 1] or [1]
    while len(lengths) > 1 and lengths[0] < _SLABS:
        lengths[:2] = [lengths[0] * lengths[1]]
    return tuple(lengths)


def _moved(plane: Array, moves: tuple[int, ...]) -> Array:
    for axis, m in enumerate(moves):
        if m:
            plane = np.roll(plane, m, axis)
    return plane


def _residual(values: Array, p: Plane, split: bool) -> Array:
    rest = values[..., p.number] if split else values
    if p.source is not None:
        rest = rest - _moved(values[..., p.source], p.moves)
    for axis, order in enumerate(p.orders):
        for k in range(order):
            rest = _difference(rest, axis, k)
    return rest


def _along(axis: int, start: int, stop: int | None = None) -> tuple[slice, ...]:
    return (*(slice(None),) * axis, slice(start, stop))


def _difference(a: Array, axis: int, done: int) -> Array:
    """Take differences once more, along an axis where that was done so often: its first entries stay as they are."""
    out = a.copy()
    out[_along(axis, done + 1)] -= a[_along(axis, done, -1)]
    return out


def _cost(a: Array) -> float:
    """About how many bits integers take: the logarithm, in straight lines between powers of two.

    That is what the bits of a float hold, so no machine's logarithm decides.
    """
    held = (2 * np.abs(a.astype(np.float32)) + 1).view(np.int32).sum(dtype=np.int64)
    return float(held) / 2**23 - 127 * a.size


def _orders(values: Array) -> tuple[float, tuple[int, ...]]:
    """Find out how often to take differences along each axis, one after the other; with the bits of the residual."""
    best, orders, rest = _cost(values), [0] * values.ndim, values
    while sum(orders) < _MOST_SUMS:
        found = None
        for axis, n in enumerate(values.shape):
            if n > 1 and orders[axis] < _MOST_ORDER:
                tried = _difference(rest, axis, orders[axis])
                cost = _cost(tried)
                if cost < best:
                    best, found = cost, (axis, tried)
        if found is None:
            break
        orders[found[0]] += 1
        rest = found[1]
    return best, tuple(orders)


def _find_planes(planes: list[Array]) -> tuple[float, tuple[Plane, ...]]:
    """Find planes in turn: the one that those before it predict best comes next; with the bits of all."""
    alone = [_orders(v) for v in planes]
    best = [(alone[k][0], Plane(k, None, (), alone[k][1])) for k in range(len(planes))]
    looks = _Looks(planes[0].shape)
    left, found, total = set(range(len(planes))), [], 0.0
    while left:
        k = min(left, key=lambda i: best[i][0])
        left.remove(k)
        cost, plane = best[k]
        if plane.source is not None:
            cost, orders = _orders(planes[k] - _moved(planes[plane.source], plane.moves))
            plane = Plane(k, plane.source, plane.moves, orders)
            if cost >= alone[k][0]:
                cost, plane = alone[k][0], Plane(k, None, (), alone[k][1])
        found.append(plane)
        total += cost
        for i in left:
            tried = looks.cost(planes[i], planes[k])
            if tried[0] < best[i][0]:
                best[i] = tried[0], Plane(i, k, tried[1], ())
    return total, tuple(found)


class _Looks:
    """Points of planes of one shape, and where they and those before them come from in a plane that is moved."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        size = math.prod(shape)
        # Anywhere: even steps may meet the same column of every row.
        points = np.arange(size) if size <= _POINTS else np.random.default_rng(0).integers(0, size, _POINTS)
        self._scale = size / len(points)
        self._places = [self._moved(shape, p, (0,) * len(shape)) for p in (points, np.maximum(points - 1, 0))]
        ways = itertools.product(*((-1, 0, 1) if n > 1 else (0,) for n in shape))
        self._ways = [(m, [self._moved(shape, p, m) for p in self._places]) for m in ways]

    @staticmethod
    def _moved(shape: tuple[int, ...], points: Array, moves: tuple[int, ...]) -> Array:
        index = [(i - m) % n for i, m, n in zip(np.unravel_index(points, shape), moves, shape, strict=True)]
        return np.ravel_multi_index(tuple(index), shape)

    def cost(self, plane: Array, source: Array) -> tuple[float, tuple[int, ...]]:
        """Estimate the bits that a plane takes when another predicts it, and the moves that are best."""
        here, before = (plane.ravel()[p] for p in self._places)
        found = []
        for moves, places in self._ways:
            rest, last = (a - source.ravel()[p] for a, p in zip((here, before), places, strict=True))
            found.append((min(_cost(rest), _cost(rest - last)) * self._scale, moves))
        return min(found)
