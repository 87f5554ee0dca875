# SPDX-License-Identifier: MIT
"""Slabs of integers: the kernel reads what NumPy reads, from any stream; bad arguments are refused."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import hbae.codecs.ints as module
from hbae.arrays import Array
from hbae.codecs.bytes_ import ByteReader
from hbae.codecs.ints import decode_ints, encode_ints
from hbae.errors import FormatError

SHAPES = [
    (1,),
    (7,),
    (3, 1),
    (5, 4),
    (4, 1, 9),
    (6, 7, 8),
    (2, 3, 2, 3, 2),
    (200, 3),
    (130, 2, 4),
    (3, 1, 1, 1, 1, 1, 1, 2),
]


@pytest.fixture
def compiled(kernel_of: Callable[[ModuleType, str], Any]) -> Any:
    return kernel_of(module, "_ints")


def integers(shape: tuple[int, ...], size: float) -> Array:
    """Integers that fall along every axis, slabs of zeros among them."""
    rng = np.random.default_rng(5)
    q = rng.standard_cauchy(shape) * size / (1 + np.indices(shape).sum(0))
    q[rng.random(len(q)) < 0.3] = 0
    return np.clip(np.rint(q), -(2.0**60), 2.0**60).astype(np.int64)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("far", [0, 1, 2, 20])
@pytest.mark.parametrize("size", [1, 100, 2.0**50])
def test_slabs_are_read_as_by_numpy(
    shape: tuple[int, ...], far: int, size: float, compiled: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    q = integers(shape, size)
    data = encode_ints(q, far)
    for kernel in (compiled, None):
        monkeypatch.setattr(module, "_ints", kernel)
        assert np.array_equal(decode_ints(ByteReader(data), shape, far), q)


def test_the_kernel_is_used(compiled: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    class Counted:
        @staticmethod
        def read(*args: Any) -> int:
            calls.append(args)
            return int(compiled.read(*args))

    q = integers((5, 8), 30)
    monkeypatch.setattr(module, "_ints", Counted)
    assert np.array_equal(decode_ints(ByteReader(encode_ints(q)), q.shape), q)
    assert len(calls) == 1


def test_damage_is_told_as_by_numpy(compiled: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte of a stream turned: both ways give the same integers, or refuse the stream alike."""
    q = integers((6, 4, 9), 3e4)
    data = encode_ints(q)
    refused = 0
    for at in range(len(data)):
        bad = data[:at] + bytes([data[at] ^ (1 << at % 8)]) + data[at + 1 :]
        found: list[Any] = []
        for kernel in (compiled, None):
            monkeypatch.setattr(module, "_ints", kernel)
            try:
                found.append(decode_ints(ByteReader(bad), q.shape).tobytes())
            except FormatError as e:
                found.append(str(e))
        assert found[0] == found[1], at
        refused += isinstance(found[0], str)
    assert refused > len(data) / 4


def test_what_does_not_fit_is_refused(compiled: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[Any]] = []

    class Noted:
        @staticmethod
        def read(q: Array, live: Array, shape: Any, first: int, classes: Array, stream: tuple[Any, ...]) -> int:
            kept = tuple(b.copy() if isinstance(b, np.ndarray) else b for b in stream)
            calls.append([q.copy(), live.copy(), shape, first, classes, kept])
            return int(compiled.read(q, live, shape, first, classes, stream))

    q = integers((5, 4, 6), 300)
    monkeypatch.setattr(module, "_ints", Noted)
    decode_ints(ByteReader(encode_ints(q)), q.shape)
    zeros, live, shape, first, classes, stream = calls[0]

    def called(place: int, value: Any) -> int:
        args = [
            zeros.copy(),
            live,
            shape,
            first,
            classes,
            tuple(b.copy() if isinstance(b, np.ndarray) else b for b in stream),
        ]
        args[place] = value
        return int(compiled.read(*args))

    assert called(1, live) == 0
    for place, value in (
        (0, zeros[1:].copy()),
        (0, zeros[:, 1:].copy()),
        (1, live[1:].copy()),
        (1, live[:0].copy()),
        (2, (4, 7)),
        (2, (4,)),
        (2, (4, 0)),
        (2, (-4, -6)),
        (2, (1 << 40, 1 << 40)),
        (2, [4, 6]),
        (2, (1,) * 7 + (4, 6)),
        (3, -1),
        (4, classes[1:].copy()),
        (5, stream[1:]),
        (5, (stream[0][1:].copy(), *stream[1:])),
        (5, (*stream[:6], stream[6][1:].copy(), stream[7])),
    ):
        with pytest.raises((TypeError, ValueError, OverflowError)):
            called(place, value)
