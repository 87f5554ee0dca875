# SPDX-License-Identifier: MIT
"""Everything that is coded comes back bit for bit, and damaged bytes are refused, never misread by a crash."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hbae.arrays import Array
from hbae.codecs import (
    ByteReader,
    ByteWriter,
    decode_coefficients,
    decode_ints,
    decode_lossless,
    decode_mask,
    difference,
    encode_coefficients,
    encode_ints,
    encode_lossless,
    encode_mask,
    estimate_lossless,
    integrate,
    lossless,
    pack,
    unpack,
)
from hbae.codecs.planes import BYTES, CODED, MOST_PLANES, SHUFFLED, Plane, Prediction, decode_predicted
from hbae.codecs.words import common_zeros, find_places, from_order, to_order, to_places
from hbae.errors import FormatError

SHAPES = st.lists(st.integers(1, 7), min_size=1, max_size=5).map(tuple)
DTYPES = ("<f2", ">f2", "<f4", ">f4", "<f8", ">f8", "i1", "<u2", ">i4", "<i8", ">u8", "?", "<c8", ">c16", "S1", "S5")


def integers(shape: tuple[int, ...], scale: int, seed: int) -> Array:
    rng = np.random.default_rng(seed)
    q = rng.integers(-(2**scale), 2**scale, shape, endpoint=True)
    return np.where(rng.random(shape) < 0.3, 0, q)


@settings(max_examples=80)
@given(shape=SHAPES, scale=st.integers(0, 60), seed=st.integers(0, 999))
def test_integers(shape: tuple[int, ...], scale: int, seed: int) -> None:
    q = integers(shape, scale, seed)
    r = ByteReader(encode_ints(q))
    back = decode_ints(r, shape)
    r.end()
    assert back.dtype == np.int64
    assert np.array_equal(back, q)


@pytest.mark.parametrize("shape", [(64,), (65,), (640,), (1000, 3), (129, 1, 1), (65, 1023), (65, 1024), (200, 2, 4)])
def test_long_arrays(shape: tuple[int, ...]) -> None:
    """Many small slabs are folded; the number of steps, and with it the time, stays small."""
    q = integers(shape, 6, 1)
    q[-1] = 0
    r = ByteReader(encode_ints(q))
    assert np.array_equal(decode_ints(r, shape), q)
    r.end()


@settings(max_examples=80)
@given(
    shape=st.lists(st.integers(1, 7), min_size=2, max_size=5).map(tuple),
    tiles=st.integers(1, 5),
    scale=st.integers(0, 60),
    zeros=st.floats(0, 1),
    seed=st.integers(0, 999),
)
def test_coefficients(shape: tuple[int, ...], tiles: int, scale: int, zeros: float, seed: int) -> None:
    """Wherever zeros lie, in whatever order the log scales are."""
    rng = np.random.default_rng(seed)
    logs = [rng.integers(0, 30, n) for n in shape]
    q = integers((shape[0], tiles, *shape[1:]), scale, seed)
    q *= rng.random(q.shape) >= zeros
    if rng.random() < 0.5:
        q *= (np.indices(q.shape).sum(0) < rng.integers(1, 12)).astype(np.int64)
    r = ByteReader(encode_coefficients(q, logs))
    back = decode_coefficients(r, tiles, logs)
    r.end()
    assert back.dtype == np.int64
    assert np.array_equal(back, q)


def test_coefficients_of_many_axes_are_refused_before_any_work() -> None:
    """Phases double with each axis: ten would take minutes."""
    logs = [np.zeros(2, np.int64)] * 11
    with pytest.raises(FormatError, match="more than 7 axes"):
        decode_coefficients(ByteReader(bytes(1000)), 1, logs)


@pytest.mark.parametrize(
    "value", [0, 15, 16, -16, -17, 31, 32, 63, 64, 2**31, -(2**31), 2**53 + 1, 2**60, -(2**60), 2**61 - 1]
)
def test_extreme_integers(value: int) -> None:
    for q in (np.array([[value]]), np.array([[value, 0, -1], [value, value, 1]]), np.full((3, 40), value)):
        assert np.array_equal(decode_ints(ByteReader(encode_ints(q)), q.shape), q)


@pytest.mark.parametrize("value", [2**61, -(2**61), 2**63 - 1, -(2**63)])
def test_integers_beyond_the_alphabet_are_refused(value: int) -> None:
    with pytest.raises(FormatError, match="too large"):
        encode_ints(np.array([[1, value]]))


@settings(max_examples=40)
@given(shape=SHAPES, seed=st.integers(0, 99), axes=st.sets(st.integers(0, 4)))
def test_differences_wrap_and_return(shape: tuple[int, ...], seed: int, axes: set[int]) -> None:
    q = np.random.default_rng(seed).integers(-(2**63), 2**63 - 1, shape)
    used = [a for a in sorted(axes) if a < len(shape)]
    assert np.array_equal(integrate(difference(q, used), used), q)


@settings(max_examples=60)
@given(
    shape=st.lists(st.integers(0, 9), max_size=4).map(tuple),
    share=st.sampled_from([0.0, 0.02, 0.5, 1.0]),
    seed=st.integers(0, 99),
)
def test_masks(shape: tuple[int, ...], share: float, seed: int) -> None:
    mask = np.random.default_rng(seed).random(shape) < share
    mask = np.asarray(mask)
    r = ByteReader(encode_mask(mask))
    back = decode_mask(r, shape)
    r.end()
    assert back.dtype == bool
    assert np.array_equal(back, mask)


@pytest.mark.parametrize("shape", [(6, 50), (5, 20, 30), (60, 5), (9, 1)])
def test_masks_that_hardly_differ_from_row_to_row(shape: tuple[int, ...]) -> None:
    """Long rows and short ones are joined in different ways."""
    mask = np.repeat(np.random.default_rng(1).random((1, *shape[1:])) < 0.5, shape[0], axis=0)
    mask[-1] ^= np.arange(mask[-1].size).reshape(mask[-1].shape) % 5 == 0
    coded = encode_mask(mask)
    if mask[0].size > 1:
        assert coded[0] == 3
    assert np.array_equal(decode_mask(ByteReader(coded), shape), mask)


@settings(max_examples=120)
@given(
    dtype=st.sampled_from(DTYPES),
    shape=st.lists(st.integers(0, 9), max_size=4).map(tuple),
    repeated=st.booleans(),
    search=st.booleans(),
    seed=st.integers(0, 99),
)
def test_lossless_keeps_every_bit(dtype: str, shape: tuple[int, ...], repeated: bool, search: bool, seed: int) -> None:
    """Random bytes hold NaN payloads, infinities, denormals and -0.0."""
    rng = np.random.default_rng(seed)
    t = np.dtype(dtype)
    n = int(np.prod(shape))
    raw = rng.integers(0, 2 if t.kind == "b" else 256, n * t.itemsize).astype(np.uint8)
    if repeated and n:
        raw = np.tile(raw[: t.itemsize], n)
    a = np.frombuffer(raw.tobytes(), t).reshape(shape)
    r = ByteReader(encode_lossless(a, search=search))
    back = decode_lossless(r, shape, t)
    r.end()
    assert back.dtype == t
    assert back.shape == shape
    assert back.tobytes() == a.tobytes()


def corners_of(nodes: np.ndarray) -> np.ndarray:
    """Values at the corners of cells: each comes four times, rows apart."""
    return np.stack([nodes[:-1, :-1], nodes[:-1, 1:], nodes[1:, 1:], nodes[1:, :-1]], axis=-1)


@pytest.mark.parametrize("dtype", ["<f8", ">f4", "<i4", "<u8"])
def test_corners_of_cells_take_little_more_than_their_values(dtype: str) -> None:
    y, x = np.meshgrid(np.arange(121), np.arange(161), indexing="ij")
    lat = (90 * np.sin((y + 0.1 * np.sin(x / 9)) / 121) + 1e-3 * np.cos(x * y)).astype("<f4")
    a = (lat if dtype[1] == "f" else 1000 * (lat + 1)).astype(dtype)
    corners = corners_of(a)
    for search in (False, True):
        coded = encode_lossless(corners, search=search)
        assert len(coded) < 1.08 * len(encode_lossless(a, search=True))
        assert decode_lossless(ByteReader(coded), corners.shape, corners.dtype).tobytes() == corners.tobytes()


def test_smooth_values_are_predicted_along_all_axes() -> None:
    """A field that is smooth to its last digits, of both signs, its edges included."""
    z, y, x = (np.linspace(0, 1, n).reshape(-1, *(1,) * k) for k, n in enumerate((41, 31, 21)))
    a = np.rint(3e6 * np.sin(x * 1.7 + y * z - z**2 * 1.1 - 0.2)).astype("<i4")
    for dtype in ("<i4", ">i8"):
        for search in (False, True):
            assert len(encode_lossless(a.astype(dtype), search=search)) < a.nbytes / 7
    for dtype in ("<f4", "<f8"):
        assert len(encode_lossless(a.astype(dtype), search=True)) < a.nbytes / 3


def test_a_large_array_is_predicted_without_a_search() -> None:
    """How is found out on a part of more than 2**20 words."""
    y, x = np.meshgrid(np.arange(1100.0), np.arange(1200.0), indexing="ij")
    a = (3 + np.sin(x / 71.3 + y * y / 93101.7)).astype("<f4")
    coded = encode_lossless(a)
    assert len(coded) < a.nbytes / 10
    assert decode_lossless(ByteReader(coded), a.shape, a.dtype).tobytes() == a.tobytes()


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_words_of_floats_are_in_the_order_of_their_values(dtype: str) -> None:
    """Zeros of both signs, NaN of both signs, infinities and denormals are different integers."""
    info = np.finfo(dtype)
    x = np.array([-np.nan, -np.inf, -2.5, -info.tiny, -0.0, 0.0, info.tiny, 1, np.inf, np.nan], dtype)
    words = x.view(f"u{x.itemsize}")
    for zeros in range(common_zeros(words) + 1):
        values = to_order(words, zeros, True)
        assert (np.diff(values) > 0).all()
        assert np.array_equal(from_order(values, zeros, True), words)


@pytest.mark.parametrize("dtype", ["<f4", ">f8", "<c16"])
def test_decimal_places_are_counted(dtype: str) -> None:
    """Values of few decimal places take little more than the integers that they are."""
    y, x = np.meshgrid(np.arange(130.0), np.arange(120.0), indexing="ij")
    counts = np.rint(900 * np.sin(x / 71.3 + y * y / 9310.7)).astype("<i4")
    a = (counts / 100).astype(dtype)
    for search in (False, True):
        coded = encode_lossless(a, search=search)
        assert len(coded) < 1.3 * len(encode_lossless(counts, search=search))
        assert decode_lossless(ByteReader(coded), a.shape, a.dtype).tobytes() == a.tobytes()
    large = np.tile(a, (70, 2))
    large[-1, -1] = 1e-7
    coded = encode_lossless(large)
    assert decode_lossless(ByteReader(coded), large.shape, large.dtype).tobytes() == large.tobytes()


def without_predictions(a: np.ndarray, monkeypatch: pytest.MonkeyPatch, *, search: bool) -> int:
    with monkeypatch.context() as m:
        m.setattr(lossless, "find_predictions", lambda _: [])
        lossless._kept.cache_clear()
        size = len(encode_lossless(a, search=search))
    lossless._kept.cache_clear()
    return size


def test_what_a_part_promises_is_compared_with_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Decimal places that one value lacks, and repeats that a part does not show."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:1100, 0:1000]
    a = (np.rint(100 * (20 + 5 * np.sin(x / 90) + rng.normal(0, 0.05, x.shape))) / 100).astype("f4")
    a[0, 0] = np.nan
    fields = np.tile(np.rint(1e5 * np.sin(x[:90] / 91.7 + y[:90] ** 2 / 9310.3)).astype("<i4"), (12, 1))
    lagging = (
        rng.integers(-(2**31), 2**31, 600000) + np.arange(3)[:, None] * 7 + rng.integers(0, 3, (3, 600000))
    ).astype("<i4")
    for array, search in ((a, False), (fields, False), (lagging, True)):
        coded = encode_lossless(array, search=search)
        assert len(coded) <= without_predictions(array, monkeypatch, search=search)
        assert decode_lossless(ByteReader(coded), array.shape, array.dtype).tobytes() == array.tobytes()
    assert len(encode_lossless(lagging, search=True)) < 0.4 * lagging.nbytes


def test_what_has_no_decimal_places() -> None:
    assert find_places(np.array([1.5, -2.25, 3])) == 2
    assert find_places(np.array([0.1, 0.7], "f4")) == 1
    for x in (-0.0, np.nan, np.inf, 1e20, np.pi, 1e-12, 2.0**53 + 2):
        assert find_places(np.array([1.5, x])) is None
    assert to_places(np.array([0.125]), 2) is None


def test_residuals_too_large_for_integers_are_kept_as_bytes() -> None:
    a = np.array([[2**63 - 1, -(2**63)] * 40, [5, 7] * 40], "<i8")
    for search in (False, True):
        coded = encode_lossless(a, search=search)
        assert np.array_equal(decode_lossless(ByteReader(coded), a.shape, a.dtype), a)
    prediction = Prediction(False, (Plane(0, None, (), (0, 1)),))
    assert prediction.encode(a, (CODED,), 3) is None
    kept = prediction.encode(a, (CODED, BYTES), 3)
    assert kept is not None
    assert np.array_equal(decode_predicted(ByteReader(kept), a.shape, 8), a)


@settings(max_examples=60)
@given(
    shape=st.lists(st.integers(1, 40), min_size=1, max_size=4).map(tuple),
    dtype=st.sampled_from(["i1", "i2", "i4", "i8"]),
    kind=st.sampled_from([BYTES, SHUFFLED, CODED]),
    split=st.booleans(),
    seed=st.integers(0, 999),
    data=st.data(),
)
def test_any_prediction(
    shape: tuple[int, ...], dtype: str, kind: int, split: bool, seed: int, data: st.DataObject
) -> None:
    """Any order of planes, sources, moves and orders gives the same integers back, whatever they are."""
    rng = np.random.default_rng(seed)
    t = np.dtype(dtype)
    a = np.frombuffer(rng.bytes(int(np.prod(shape)) * t.itemsize), t).reshape(shape) >> (seed % (8 * t.itemsize))
    split = split and len(shape) > 1 and 1 < shape[-1] <= MOST_PLANES
    axes, planes = len(shape) - split, []
    for i, number in enumerate(rng.permutation(shape[-1] if split else 1).tolist()):
        source = data.draw(st.sampled_from([None, *(p.number for p in planes)])) if i else None
        moves = () if source is None else tuple((rng.integers(-1, 2, axes) * (np.arange(axes) < 2)).tolist())
        planes.append(Plane(number, source, moves, tuple(rng.integers(0, 4, axes).tolist())))
    coded = Prediction(split, tuple(planes)).encode(a, (kind,) if t.itemsize > 1 else (BYTES,), 3)
    if coded is None:
        assert t.itemsize == 8
        return
    r = ByteReader(coded)
    assert np.array_equal(decode_predicted(r, shape, t.itemsize), a)
    r.end()


@pytest.mark.parametrize("size", [0, 1, 127, 128, 2**14, 2**40])
def test_varints(size: int) -> None:
    w = ByteWriter()
    w.varint(size)
    r = ByteReader(w.getvalue())
    assert r.varint() == size
    r.end()


def test_a_frame_that_declares_too_much_is_refused_before_it_is_opened() -> None:
    bomb = pack(bytes(1 << 20))
    assert len(bomb) < 200
    with pytest.raises(FormatError, match="limit"):
        unpack(ByteReader(bomb), 1000)


def coded() -> dict[str, tuple[bytes, Callable[[ByteReader], Any]]]:
    """Coded bytes of each kind and the call that reads them."""
    rng = np.random.default_rng(1)
    q = np.rint(rng.normal(0, 20, (5, 9, 8))).astype(np.int64)
    q[2, 3, 4] = 2**50
    mask = rng.random((6, 20, 9)) < 0.1
    x = np.cumsum(rng.normal(size=(20, 30)), 0).astype("<f4")
    logs = [np.arange(n) for n in q.shape]
    coefs = q[:, None]
    return {
        "ints": (encode_ints(q), lambda r: decode_ints(r, q.shape)),
        "coefficients": (encode_coefficients(coefs, logs), lambda r: decode_coefficients(r, 1, logs)),
        "mask": (encode_mask(mask), lambda r: decode_mask(r, mask.shape)),
        "lossless": (encode_lossless(x), lambda r: decode_lossless(r, x.shape, x.dtype)),
    }


@pytest.mark.parametrize("kind", ["ints", "mask", "lossless"])
def test_damaged_bytes_give_a_format_error_or_values(kind: str) -> None:
    data, read = coded()[kind]
    rng = np.random.default_rng(7)
    for i in range(300):
        bad = bytearray(data)
        for _ in range(int(rng.integers(1, 4))):
            bad[int(rng.integers(min(len(bad), 40 if i % 2 else len(bad))))] = int(rng.integers(256))
        try:
            read(ByteReader(bytes(bad)))
        except FormatError:
            continue


@pytest.mark.parametrize("kind", ["ints", "mask", "lossless"])
def test_cut_bytes_give_a_format_error(kind: str) -> None:
    data, read = coded()[kind]
    for n in range(len(data)):
        with pytest.raises(FormatError):
            read(ByteReader(data[:n]))


@pytest.mark.parametrize(
    "shape", [(1, 600, 500), (600, 500), (1, 1, 300_000), (8, 400, 400), (3, 7, 5), (1, 40, 60, 70)]
)
def test_estimates_without_loss_are_near_whatever_the_axes(shape: tuple[int, ...]) -> None:
    """A first axis of one once made a single variable look four times as large."""
    x = np.random.default_rng(0).integers(0, 900, shape).astype(np.float32)
    assert 0.8 < estimate_lossless(x) / len(encode_lossless(x)) < 1.25
