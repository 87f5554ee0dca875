# SPDX-License-Identifier: MIT
"""Running sums: the kernel adds what NumPy adds, modulo the size of the integers; bad arguments are refused."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import hbae.codecs.predict as module
from hbae.arrays import Array
from hbae.codecs.predict import add_along

SHAPES = [(1,), (9,), (0,), (3, 0), (1, 7), (7, 1), (40, 70), (5, 6, 7), (3, 200, 2), (2, 3, 2, 3, 2)]


@pytest.fixture
def compiled(kernel_of: Callable[[ModuleType, str], Any]) -> Any:
    return kernel_of(module, "_sums")


def integers(shape: tuple[int, ...], dtype: str) -> Array:
    info, rng = np.iinfo(dtype), np.random.default_rng(2)
    return rng.integers(info.min, info.max, shape, dtype, endpoint=True)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"])
def test_sums_are_those_of_python(
    shape: tuple[int, ...], dtype: str, compiled: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for axis in range(len(shape)):
        for start in (0, 1, 3, 1 << 62):
            a = integers(shape, dtype)
            want = a.copy()
            # One axis more, so that a line is an array.
            lines = np.moveaxis(want, axis, 0)[..., None]
            for i in range(start + 1, len(lines)):
                sums = (lines[i].astype(object) + lines[i - 1].astype(object)) % (1 << 8 * a.itemsize)
                lines[i] = sums.astype(f"u{a.itemsize}").view(dtype)
            for kernel in (compiled, None):
                monkeypatch.setattr(module, "_sums", kernel)
                got = a.copy()
                add_along(got, axis, start)
                assert got.tobytes() == want.tobytes()


def test_the_kernel_is_used(compiled: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    class Noted:
        @staticmethod
        def add_along(*args: Any) -> None:
            calls.append(args[1:])
            compiled.add_along(*args)

    monkeypatch.setattr(module, "_sums", Noted)
    add_along(np.ones((2, 3, 4), np.int32), 1, 1)
    assert calls == [(4, 2, 3, 4, 1)]


def test_what_does_not_fit_is_refused(compiled: Any) -> None:
    a = np.ones((2, 3, 4), np.int32)
    compiled.add_along(a, 4, 2, 3, 4, 0)
    compiled.add_along(a, 4, 2, 3, 4, 3)
    for args in (
        (4, 2, 3, 5, 0),
        (4, 2, 3, 3, 0),
        (8, 2, 3, 4, 0),
        (3, 2, 4, 4, 0),
        (0, 2, 3, 4, 0),
        (-4, 2, 3, 4, 0),
        (4, -2, -3, 4, 0),
        (4, 0, 3, 4, 0),
        (4, 2, 3, 4, -1),
        (4, 2, 3, 4, 4),
        (4, 2, 3, 4, (1 << 63) - 1),
        (4, 1 << 32, 1 << 32, 24, 0),
        (4, 1 << 62, 3, 8, 0),
    ):
        with pytest.raises(ValueError, match="do not fit"):
            compiled.add_along(a, *args)
    with pytest.raises((ValueError, TypeError, BufferError)):
        compiled.add_along(a[:, ::2], 4, 2, 2, 4, 0)
    for bad in (np.ones(4), np.ones(4, ">i4"), np.ones((4, 4), np.int32)[:, ::2], np.ones(4, bool)):
        with pytest.raises(ValueError, match="contiguous integers"):
            add_along(bad, 0)
    for axis in (-1, 3):
        with pytest.raises(ValueError, match="one of their axes"):
            add_along(a, axis)
    frozen = np.ones(4, np.int32)
    frozen.setflags(write=False)
    with pytest.raises((ValueError, TypeError, BufferError)):
        compiled.add_along(frozen, 4, 1, 4, 1, 0)
