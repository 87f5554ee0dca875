# SPDX-License-Identifier: MIT
"""Slimmed weights as bytes: they come back, the report counts them, and damage is an error."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbae.codecs import join_book, split_book
from hbae.errors import FormatError, HbaeError
from hbae.slim import Quantised, decode_weights, encode_weights, layer_bytes


def layers() -> dict[str, Quantised]:
    rng = np.random.default_rng(0)
    book = np.array([-9000, -411, 0, 77, 12345])
    sparse = rng.integers(-9, 10, (30, 40)) * (rng.random((30, 40)) < 0.1)
    return {
        "book": Quantised(book[rng.integers(0, 5, (50, 20))], 0.25),
        "sparse": Quantised(sparse, 1e-3),
        "zeros": Quantised(np.zeros((3, 4, 5), np.int64), 1.0),
        "one": Quantised(np.array([[-7]]), 0.5),
    }


def rest() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    return {"bias": rng.normal(size=7).astype(np.float32), "steps": np.array(5), "flags": np.array([True, False])}


def test_everything_comes_back() -> None:
    data = encode_weights(layers(), rest())
    q, tensors = decode_weights(data)
    assert list(q) == list(layers())
    for name, want in layers().items():
        assert np.array_equal(q[name].integers, want.integers)
        assert q[name].unit == want.unit
        assert np.array_equal(q[name].values == 0, want.integers == 0)
    for name, array in rest().items():
        assert tensors[name].tobytes() == array.tobytes()
        assert tensors[name].dtype == array.dtype
    assert encode_weights(q, tensors) == data


def test_books_and_zeros_are_cheap() -> None:
    """Five values take log2 5 bits, whatever their size; a tenth of weights costs about its entropy."""
    made = layers()
    assert layer_bytes(made["book"].integers) < 1000 * np.log2(5) / 8 * 1.05 + 110
    sparse = made["sparse"].integers
    counts = np.unique(sparse, return_counts=True)[1]
    entropy = -(counts * np.log2(counts / sparse.size)).sum() / 8
    assert layer_bytes(sparse) < 1.05 * entropy + 110
    assert layer_bytes(made["zeros"].integers) < 12
    assert sum(layer_bytes(q.integers) for q in made.values()) < len(encode_weights(made, {}))


@given(st.lists(st.integers(-(2**15) + 1, 2**15 - 1), max_size=60))
def test_books_come_back(values: list[int]) -> None:
    a = np.array(values, np.int64)
    parts = split_book(a)
    assert parts is not None
    codes, book = parts
    assert np.array_equal(codes == 0, a == 0)
    assert np.array_equal(join_book(codes, book), a)


def test_books_of_many_values_are_not_made() -> None:
    assert split_book(np.arange(5000)) is None
    parts = split_book(np.arange(4096))
    assert parts is not None
    assert np.array_equal(join_book(*parts), np.arange(4096))


@pytest.mark.parametrize(
    ("codes", "book"),
    [([0], []), ([0], [5]), ([0], [0, 0]), ([0], [3, 0]), ([2], [-1, 0, 4]), ([-2], [-1, 0, 4]), ([0], [[0]]),
     ([0], list(range(4097)))],
)  # fmt: skip
def test_bad_books_are_refused(codes: list[int], book: list[int]) -> None:
    with pytest.raises(FormatError, match="codebook"):
        join_book(np.array(codes, np.int64), np.array(book, np.int64))


def test_random_damage_never_crashes() -> None:
    data = encode_weights(layers(), rest())
    rng = np.random.default_rng(0)
    for i in range(300):
        hurt = bytearray(data if i % 3 else data[: rng.integers(len(data))])
        for _ in range(i % 3):
            hurt[rng.integers(len(hurt))] ^= 1 << rng.integers(8)
        try:
            decode_weights(bytes(hurt))
        except HbaeError:
            continue


def test_bytes_behind_the_end_are_refused() -> None:
    with pytest.raises(FormatError):
        decode_weights(encode_weights(layers(), rest()) + b"\0")
