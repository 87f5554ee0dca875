# SPDX-License-Identifier: MIT
"""Compiled symbols are those of NumPy and constriction, in both directions, and bad arguments are refused."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import hbae.codecs.contexts as module
from hbae.arrays import Array
from hbae.codecs import ByteReader, ByteWriter
from hbae.codecs.tables import read_runs, write_runs
from hbae.errors import FormatError

Step = tuple[Array, Array]


@pytest.fixture
def compiled(kernel_of: Callable[[ModuleType, str], Any]) -> Any:
    return kernel_of(module, "_symbols")


def steps_of(seed: int) -> tuple[int, list[Step]]:
    """Few and many contexts, empty steps, one value only, magnitudes up to the largest."""
    rng = np.random.default_rng(seed)
    num = int(rng.integers(1, 300))
    steps = []
    for _ in range(rng.integers(1, 5)):
        n = int(rng.integers(0, 3000)) * int(rng.integers(5) > 0)
        spread = np.exp(rng.normal(size=n) * rng.choice([0, 1, 8])) * rng.choice([0, 1, 5])
        values = np.rint(rng.laplace(size=n) * spread).astype(np.int64)
        if n and seed % 3 == 0:
            values[[0, -1]] = (1 << 61) - 1, 1 - (1 << 61)
        steps.append((values, rng.integers(0, num, n).astype(np.uint16)))
    return num, steps


def written(num: int, steps: list[Step]) -> bytes:
    w = module.SymbolWriter(num)
    for values, contexts in steps:
        w.add(values, contexts)
    return w.getvalue()


def read(code: bytes, num: int, steps: list[Step]) -> list[bytes]:
    r = module.SymbolReader(ByteReader(code), num)
    out = [r.take(contexts).tobytes() for _, contexts in steps]
    r.end()
    return out


@pytest.mark.parametrize("seed", range(40))
def test_bytes_and_values_are_those_of_the_reference(seed: int, compiled: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    num, steps = steps_of(seed)
    fast = written(num, steps)
    assert read(fast, num, steps) == [v.tobytes() for v, _ in steps]
    monkeypatch.setattr(module, "_symbols", None)
    assert written(num, steps) == fast
    assert read(fast, num, steps) == [v.tobytes() for v, _ in steps]


@pytest.mark.parametrize("seed", range(12))
def test_narrow_values_are_the_same_values(seed: int, compiled: Any) -> None:
    """A step of which one value is too wide is read anew, and the next one goes on behind it."""
    num, steps = steps_of(seed)
    widest = np.array([32767, -32767, 0, 32768, -32768])
    steps = [(v, np.zeros(len(v), np.uint16)) for v in (widest[:3], widest[3:4], widest[:2], widest[4:])] + steps
    r = module.SymbolReader(ByteReader(written(num, steps)), num)
    for values, contexts in steps:
        found = r.take(contexts, narrow=True)
        assert found.dtype == (np.int16 if np.abs(values).max(initial=0) <= 32767 else np.int64)
        assert np.array_equal(found, values)
    r.end()


@pytest.mark.parametrize("seed", range(6))
def test_damage_is_judged_alike(seed: int, compiled: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a byte changed both give the same values, or both refuse."""
    num, steps = steps_of(seed)
    code = written(num, steps)
    rng = np.random.default_rng(seed)
    for _ in range(40):
        bad = bytearray(code)
        bad[rng.integers(len(bad))] ^= 1 << int(rng.integers(8))
        answers: list[list[bytes] | str] = []
        for kernel in (compiled, None):
            monkeypatch.setattr(module, "_symbols", kernel)
            try:
                answers.append(read(bytes(bad), num, steps))
            except FormatError as e:
                answers.append(type(e).__name__)
        assert answers[0] == answers[1]


def test_tables_without_symbols_are_refused() -> None:
    steps = [(np.arange(400) % 7, np.zeros(400, np.uint16))]
    idle = module.SymbolReader(ByteReader(written(5, steps)), 5)
    with pytest.raises(FormatError):
        idle.end()


def test_runs_of_contexts_have_one_form() -> None:
    labels = np.array([2, 2, 0, 0, 0, 1])
    w = ByteWriter()
    write_runs(w, labels)
    assert np.array_equal(read_runs(ByteReader(w.getvalue()), 6), labels)
    for body in ([0], [7, *range(7), *[0] * 6], [2, 1, 1, 2], [2, 1, 0, 5], [2, 6, 0, 1]):
        with pytest.raises(FormatError, match="runs"):
            read_runs(ByteReader(bytes(body)), 6)


def test_too_large_a_value_is_refused(compiled: Any) -> None:
    for v in (1 << 61, -(1 << 61), -(1 << 63)):
        with pytest.raises(FormatError, match="too large"):
            module.SymbolWriter(1).add(np.array([v]), np.zeros(1, np.uint16))


def test_kernels_refuse_what_does_not_fit(compiled: Any) -> None:
    def u16(*n: int) -> Array:
        return np.zeros(n, np.uint16)

    def i64(*n: int) -> Array:
        return np.zeros(n, np.int64)

    u64 = np.zeros(3, np.uint64)
    lookup, left, words, bits = np.zeros((2, 1 << 10), np.uint8), u16(2, 147), np.zeros(4, np.uint32), b"\0" * 4
    good = [u16(5), i64(5), False, i64(3), i64(2), lookup, left, words, bits, u64, np.zeros(3, np.uint8)]
    take = compiled.take
    assert take(*good) == 0
    assert take(u16(5) + np.uint16(3), *good[1:]) == 4
    assert take(*good[:3], i64(3) + 2, *good[4:]) == 1
    assert take(*good[:3], i64(3) - 2, *good[4:]) == 1
    for place, bad in (
        (4, i64(2) + 146),
        (5, lookup[:1]),
        (6, left[:1]),
        (9, np.array([0, 5, 0], np.uint64)),
        (9, np.array([0, 0, 33], np.uint64)),
        (10, np.zeros(2, np.uint8)),
        (1, i64(4)),
        (2, True),
    ):
        with pytest.raises(ValueError, match="do not fit"):
            take(*good[:place], bad, *good[place + 1 :])
    sorting = [i64(5), u16(5), i64(3, 146), np.zeros(5, np.uint8), i64(3, 2), i64(5), np.zeros(5, np.uint64)]
    sort = compiled.sort_tokens
    assert sort(*sorting) == (0, 1, 0)
    assert sort(sorting[0], u16(5) + np.uint16(3), *sorting[2:])[0] == 4
    for place in range(7):
        with pytest.raises(ValueError, match="do not fit"):
            sort(*sorting[:place], sorting[place].ravel()[:-1].copy(), *sorting[place + 1 :])


def test_the_kernel_that_codes_refuses_what_does_not_fit(compiled: Any) -> None:
    tokens, runs = np.array([0, 1, 0, 0, 1], np.uint8), np.array([[0, 2], [2, 5]])
    left = np.zeros((2, 147), np.uint16)
    left[:, 1], left[:, 2:] = 1 << 13, 1 << 14
    labels, const, words = np.array([0, -1, 1]), np.full(2, -1), np.empty(5, np.uint32)
    good = [tokens, runs, labels, const, left, np.zeros(1, np.uint64), words]
    compiled.put(*good)
    no_token = left.copy()
    no_token[1] = 0
    for place, bad in (
        (0, tokens[:4]),
        (0, np.array([0, 1, 0, 0, 200], np.uint8)),
        (0, np.array([0, 1, 0, 0, 2], np.uint8)),
        (1, np.array([[0, 2], [3, 5]])),
        (1, np.array([[0, 2], [1, 5]])),
        (1, np.array([[0, 5], [2, 2]])),
        (1, np.array([[0, 2], [2, 6]])),
        (1, runs[:1]),
        (2, np.array([0, -1, 2])),
        (3, np.full(1, -1)),
        (4, left[:1]),
        (4, no_token),
        (5, np.zeros(2, np.uint64)),
        (6, words[:4]),
    ):
        with pytest.raises(ValueError, match="do not fit"):
            compiled.put(*good[:place], np.ascontiguousarray(bad), *good[place + 1 :])


@pytest.mark.parametrize("f", [1, 5000, (1 << 14) - 1])
@pytest.mark.parametrize("off", [-1, 0, 1])
def test_a_word_leaves_exactly_when_the_state_is_full(f: int, off: int, compiled: Any) -> None:
    """One token of frequency f, coded at the edge, beside whole numbers."""
    left = np.full((1, 147), 1 << 14, np.uint16)
    left[0, :2] = 0, f
    before = (f << 50) + off
    state, words = np.array([before], np.uint64), np.zeros(1, np.uint32)
    one = np.zeros(1, np.uint8), np.array([[0, 1]]), np.zeros(1, np.int64), np.full(1, -1)
    count = compiled.put(*one, left, state, words)
    full = before >> 40 >= f << 10
    after = before >> 32 if full else before
    assert (count, int(words[0])) == ((1, before & 0xFFFFFFFF) if full else (0, 0))
    assert int(state[0]) == (after // (f << 10) << 24) + after % (f << 10)
