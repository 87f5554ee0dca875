# SPDX-License-Identifier: MIT
"""Slabs of coefficients: the kernel writes and reads what the steps do, from any stream; bad arguments are refused."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import hbae.codecs.coefficients as module
from hbae.arrays import Array
from hbae.codecs.bytes_ import ByteReader
from hbae.codecs.coefficients import decode_coefficients, encode_coefficients
from hbae.errors import FormatError


@pytest.fixture
def compiled(kernel_of: Callable[[ModuleType, str], Any]) -> Any:
    return kernel_of(module, "_slabs")


def coefficients(shape: tuple[int, ...], tiles: int, size: float, zeros: float, seed: int) -> tuple[Array, list[Array]]:
    """Integers (S, B, ...) that fall along every axis, slabs without any among them, and log scales in any order."""
    rng = np.random.default_rng(seed)
    q = np.rint(size * rng.standard_cauchy((shape[0], tiles, *shape[1:])))
    q = np.clip(q, -(2.0**60), 2.0**60).astype(np.int64)
    q *= rng.random(q.shape) >= zeros
    q *= (np.indices(q.shape).sum(0) - np.arange(tiles).reshape(tiles, *(1,) * (q.ndim - 2))) < rng.integers(1, 20)
    q[rng.random(len(q)) < 0.2] = 0
    return q, [rng.integers(0, 30, n) for n in shape]


def decoded(data: bytes, tiles: int, logs: list[Array]) -> bytes:
    r = ByteReader(data)
    q = decode_coefficients(r, tiles, logs)
    r.end()
    return q.tobytes()


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shape=st.lists(st.integers(1, 9), min_size=2, max_size=5).map(tuple),
    tiles=st.integers(1, 4),
    size=st.sampled_from([0.3, 20, 1e4, 2.0**50]),
    zeros=st.sampled_from([0, 0.5, 0.95]),
    seed=st.integers(0, 999),
)
def test_slabs_are_written_and_read_as_by_steps(
    shape: tuple[int, ...], tiles: int, size: float, zeros: float, seed: int, compiled: Any
) -> None:
    q, logs = coefficients(shape, tiles, size, zeros, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_slabs", None)
        data = encode_coefficients(q, logs)
        assert decoded(data, tiles, logs) == q.tobytes()
    assert encode_coefficients(q, logs) == data
    assert decoded(data, tiles, logs) == q.tobytes()


@pytest.mark.parametrize("most", [3, 4])
def test_many_slabs_go_by_steps(most: int, compiled: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four slabs: the same bytes and integers where that is more than the kernel is told of at once."""
    monkeypatch.setattr(module, "_MOST_SLABS", most)
    assert len(noted(compiled, monkeypatch)) == (2 if most == 4 else 0)


def test_nothing_is_written_and_read_alike(monkeypatch: pytest.MonkeyPatch, compiled: Any) -> None:
    for shape in ((0, 2, 3), (2, 0, 3)):
        found = []
        for kernel in (compiled, None):
            monkeypatch.setattr(module, "_slabs", kernel)
            found.append(encode_coefficients(np.zeros(shape, np.int64), [np.zeros(shape[0], int), np.zeros(3, int)]))
        assert found[0] == found[1]


def test_the_kernel_is_used(compiled: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = noted(compiled, monkeypatch)
    assert [name for name, _ in calls] == ["list", "read"]


def test_damage_is_told_as_by_steps(compiled: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte of a stream turned: both ways give the same integers, or refuse the stream alike."""
    q, logs = coefficients((4, 5, 7), 3, 300, 0.3, 1)
    data = encode_coefficients(q, logs)
    refused = 0
    for at in range(len(data)):
        bad = data[:at] + bytes([data[at] ^ (1 << at % 8)]) + data[at + 1 :]
        found: list[Any] = []
        for kernel in (compiled, None):
            monkeypatch.setattr(module, "_slabs", kernel)
            try:
                found.append(decoded(bad, 3, logs))
            except FormatError as e:
                found.append(str(e))
        assert found[0] == found[1], at
        refused += isinstance(found[0], str)
    assert refused > len(data) / 2


def noted(compiled: Any, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[Any]]]:
    """Code coefficients; give the calls of the kernel with copies of their arguments."""
    calls: list[tuple[str, list[Any]]] = []

    class Noted:
        @staticmethod
        def read(*args: Any) -> int:
            calls.append(("read", copied(args)))
            return int(compiled.read(*args))

        @staticmethod
        def list(*args: Any) -> int:
            calls.append(("list", copied(args)))
            return int(compiled.list(*args))

    q, logs = coefficients((4, 5, 6), 3, 30, 0.3, 0)
    monkeypatch.setattr(module, "_slabs", Noted)
    assert decoded(encode_coefficients(q, logs), 3, logs) == q.tobytes()
    return calls


def copied(args: Any) -> list[Any]:
    """Copy arrays, also those of the stream, so that a call leaves the others alone."""
    return [
        tuple(copied(a))
        if isinstance(a, tuple) and any(isinstance(x, np.ndarray) for x in a)
        else a.copy()
        if isinstance(a, np.ndarray)
        else a
        for a in args
    ]


def test_what_does_not_fit_is_refused(compiled: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (_, listed), (_, read) = noted(compiled, monkeypatch)
    q, shape, under, buckets, slabs, classes, guides, _ = read
    compiled.read(*copied(read))
    compiled.list(*copied(listed))
    first = next(k for k, s in enumerate(slabs) if s is not None)
    box, phases = slabs[first]
    starts, places, table, parts, base = phases[1]

    def with_slab(one: Any) -> tuple[Any, ...]:
        return (*slabs[:first], one, *slabs[first + 1 :])

    bad: list[tuple[int, Any]] = [
        (0, q[1:].copy()),
        (1, shape[:2]),
        (1, (*shape[:3], shape[3] + 1)),
        (1, (0, *shape[1:])),
        (1, (shape[0], -3, *shape[2:])),
        (1, (*shape[:3], 1 << 61)),
        (1, None),
        (2, under[1:].copy()),
        (3, buckets[1:].copy()),
        (4, slabs[1:]),
        (4, None),
        (4, with_slab(())),
        (4, with_slab((box[:1], phases))),
        (4, with_slab(((shape[2] + 1, shape[3]), phases))),
        (4, with_slab(((0, 1), phases))),
        (4, with_slab((box, ()))),
        (4, with_slab((box, phases * 64))),
        (4, with_slab((box, (None,)))),
        (4, with_slab((box, ((starts[:1], *phases[1][1:]),)))),
        (4, with_slab((box, (((2, 0), *phases[1][1:]),)))),
        (4, with_slab((box, ((starts, (1 << 40,), table, parts, base),)))),
        (4, with_slab((box, ((starts, (-1000,), table, parts, base),)))),
        (4, with_slab((box, ((starts, places, table[1:2], parts, base),)))),
        (4, with_slab((box, ((starts, places, table, 17, base),)))),
        (5, classes[1:].copy()),
        (6, guides[1:].copy()),
    ]
    for place, value in bad:
        for call, good in ((compiled.read, read), (compiled.list, listed)):
            args = copied(good)
            args[place] = value
            with pytest.raises((ValueError, OverflowError, TypeError)):
                call(*args)
    for inner in (0, 1, 2, 3, 6, 7):
        args = copied(read)
        args[7] = (*args[7][:inner], args[7][inner][1:].copy(), *args[7][inner + 1 :])
        with pytest.raises(ValueError, match="do not fit"):
            compiled.read(*args)
    for place in (7, 8, 9):
        args = copied(listed)
        args[place] = args[place][1:].copy()
        with pytest.raises(ValueError, match="do not fit"):
            compiled.list(*args)
