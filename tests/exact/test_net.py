# SPDX-License-Identifier: MIT
"""Exact nets: refused when a sum could leave the exact range, else equal to whole numbers on every path."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hbae.arrays import Array
from hbae.container import decode_decoder, encode_decoder
from hbae.container.sections import decode_arrays, encode_arrays
from hbae.errors import FormatError
from hbae.exact import BlockDecoder, ExactNet, Linear, Split, get_backend

BACKENDS = ("numpy", "cpu")


def layer(rng: np.random.Generator, inputs: int, outputs: int, top: int = 127, **kw: object) -> Linear:
    made = Linear(
        weight=rng.integers(-top, top + 1, (outputs, inputs)),
        bias=rng.integers(-5000, 5000, outputs),
        shift=rng.integers(0, 9, outputs),
        act="leaky",
        lo=-2047,
        hi=2047,
    )
    return replace(made, **kw)


def big(net: ExactNet, z: Array) -> Array:
    """The documented formula with Python's integers."""
    a = np.clip(z, net.in_lo, net.in_hi).astype(object)
    for item in net.layers:
        if isinstance(item, Split):
            a = a.reshape(a.shape[0] * item.parts, a.shape[1] // item.parts)
            continue
        acc = a @ item.weight.astype(object).T + item.bias.astype(object)
        out = np.empty(acc.shape, object)
        for (r, o), value in np.ndenumerate(acc):
            num, den = int(value), 2 ** int(item.shift[o])
            if item.act == "relu":
                num = max(num, 0)
            elif item.act == "leaky" and num < 0:
                den *= 8
            low, rest = divmod(num, den)
            low += 2 * rest > den or (2 * rest == den and low % 2 == 1)
            out[r, o] = min(max(low, item.lo), item.hi)
        a = out
    return a.reshape(len(z), net.row_values)


@settings(max_examples=40)
@given(
    widths=st.lists(st.sampled_from([4, 8, 12, 20]), min_size=2, max_size=4),
    act=st.sampled_from(["none", "relu", "leaky"]),
    groups=st.sampled_from([0, 1, 2, 4]),
    rows=st.integers(0, 9),
    seed=st.integers(0, 999),
)
def test_every_path_equals_whole_numbers(widths: list[int], act: str, groups: int, rows: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    layers: list[Linear | Split] = [layer(rng, a, b, act=act, groups=groups) for a, b in pairwise(widths)]
    net = ExactNet((*layers, Split(2), layer(rng, widths[-1] // 2, 3, act="none")), -2047, 2047)
    z = rng.integers(-4000, 4000, (rows, widths[0]))
    want = big(net, z)
    for name in BACKENDS:
        got = net.run(z, get_backend(name))
        assert [int(x) for x in got.ravel()] == [int(x) for x in want.ravel()]


def test_groups_and_double_give_the_bits_of_whole_numbers_where_single_would_not() -> None:
    rng = np.random.default_rng(0)
    # Half of the groups cancel the other half, but sums on the way leave 24 bits.
    signs = np.repeat([1, 1, -1, -1], 64)
    wide = Linear(
        weight=rng.integers(100, 128, (6, 256)) * signs, bias=np.zeros(6, np.int64), shift=np.zeros(6, np.int64),
        act="none", lo=-(2**22), hi=2**22, groups=1,
    )  # fmt: skip
    with pytest.raises(FormatError, match="exact limit"):
        ExactNet((wide,), -2047, 2047)
    z = rng.integers(1500, 2048, (5, 256))
    want = big(ExactNet((replace(wide, groups=0),), -2047, 2047), z)
    for groups in (4, 0):
        for name in BACKENDS:
            got = ExactNet((replace(wide, groups=groups),), -2047, 2047).run(z, get_backend(name))
            assert np.array_equal(got.astype(np.int64), want.astype(np.int64))
    assert wide.with_cheapest_groups(2047.0).groups in (2, 4)


@pytest.mark.parametrize(
    "bad",
    [
        {"bias": np.full(4, 2**24)},
        {"bias": np.full(4, 2**52), "groups": 0},
        {"shift": np.full(4, 61)},
        {"groups": 3},
        {"groups": -1},
        {"act": "tanh"},
        {"hi": 2**24},
        {"lo": 5, "hi": 4},
        {"bias": np.zeros(3, np.int64)},
    ],
)
def test_layers_without_a_proof_are_refused(bad: dict[str, object]) -> None:
    good = layer(np.random.default_rng(0), 8, 4)
    ExactNet((good,), -2047, 2047)
    with pytest.raises(FormatError):
        ExactNet((replace(good, **bad),), -2047, 2047)


def test_the_edge_of_the_single_precision_proof() -> None:
    """8-bit weights with 12-bit activations pass at 1,024 small inputs and miss where the sum reaches 2**24."""
    weight = np.full((1, 16), 2**20 // 16)
    edge = Linear(
        weight=weight, bias=np.zeros(1, np.int64), shift=np.zeros(1, np.int64), act="none", lo=-16, hi=16, groups=1
    )
    edge.prove(15.0)
    with pytest.raises(FormatError, match="exact limit"):
        edge.prove(16.0)
    with pytest.raises(FormatError, match="exact limit"):
        replace(edge, bias=np.array([2**20])).prove(15.0)


def decoder() -> BlockDecoder:
    rng = np.random.default_rng(3)
    hyper = ExactNet((layer(rng, 5, 24), Split(2), layer(rng, 12, 30, act="none")), -2047, 2047)
    block = ExactNet((layer(rng, 2, 8), layer(rng, 8, 30, act="none")), -2047, 2047)
    return BlockDecoder(
        num_blocks=2, points=10, num_variables=3, hyper=hyper, block=block, offset=np.arange(3.0), scale=np.ones(3)
    )


def test_decoders_come_back_and_bad_ones_are_refused_at_load() -> None:
    d = decoder()
    data = encode_decoder(d)
    z, zb = np.arange(20).reshape(4, 5) * 99, np.arange(16).reshape(4, 2, 2) * 50
    back = decode_decoder(data)
    assert encode_decoder(back) == data
    assert np.array_equal(back.decode(z, zb, get_backend("numpy")), d.decode(z, zb, get_backend("cpu")))
    doc, arrays = decode_arrays(data)
    changes = (
        ("hyper.0.bias", (0,), 2**24, "exact limit"),
        ("hyper.0.weight", (0, 0), 40000, "16-bit"),
        ("block.1.bias", (0,), int(arrays["block.1.bias"][0]) + 4000, "test vector"),
    )
    for name, place, value, message in changes:
        spoiled = {k: v.copy() for k, v in arrays.items()}
        spoiled[name][place] = value
        with pytest.raises(FormatError, match=message):
            decode_decoder(encode_arrays(doc, spoiled))


@pytest.mark.parametrize("key", ["K", "V", "hyper", "check", "scale", "offset"])
def test_malformed_descriptions_are_refused(key: str) -> None:
    doc, arrays = decode_arrays(encode_decoder(decoder()))
    for value in (None, 0, -1, "x", [], {}, [1, 2], 10**30):
        with pytest.raises(FormatError):
            BlockDecoder.from_parts({**doc, key: value}, arrays)
    with pytest.raises(FormatError):
        BlockDecoder.from_parts({k: v for k, v in doc.items() if k != key}, arrays)


def test_batches_threads_and_backends_give_the_same_bits() -> None:
    d = decoder()
    rng = np.random.default_rng(0)
    z, zb = rng.integers(-9000, 9000, (65, 5)), rng.integers(-9000, 9000, (65, 2, 2))
    whole = d.decode(z, zb, get_backend("numpy"))
    old = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            for name in BACKENDS:
                for batch in (1, 7, 64, 65):
                    parts = [
                        d.decode(z[i : i + batch], zb[i : i + batch], get_backend(name)) for i in range(0, 65, batch)
                    ]
                    assert np.concatenate(parts).tobytes() == whole.tobytes()
    finally:
        torch.set_num_threads(old)


AROUND = """
import sys, numpy as np, torch
from concurrent.futures import ThreadPoolExecutor
from hbae.container import decode_decoder
from hbae.exact import get_backend

d = decode_decoder(open(sys.argv[1], "rb").read())
rng = np.random.default_rng(1)
z, zb = rng.integers(-9000, 9000, (65, 5)), rng.integers(-9000, 9000, (65, 2, 2))
matmuls = [m for m in (torch.backends.cuda.matmul, getattr(torch.backends.mkldnn, "matmul", None))
           if hasattr(m, "fp32_precision")]

def common():
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:
        return "by device"

def settings():
    return [common(), torch.is_autocast_enabled("cpu"), *(m.fp32_precision for m in matmuls)]

kind, value = sys.argv[2].split("=")
if kind == "device" and not matmuls:
    sys.exit(0)
if kind == "all":
    torch.set_float32_matmul_precision(value)
elif kind == "device":
    for m in matmuls:
        m.fp32_precision = value
before = settings()
backend = get_backend("cpu")
product = backend.matmul

def watched(a, b):
    now = settings()
    assert now[:2] == ["highest", False] and set(now[2:]) <= {"ieee"}, now
    return product(a, b)

backend.matmul = watched
whole = d.decode(z, zb, get_backend("numpy")).tobytes()
for _ in range(2):
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=kind == "autocast"):
        before[1] = kind == "autocast"
        assert d.decode(z, zb, backend).tobytes() == whole
        assert settings() == before, (settings(), before)
before[1] = False
def same(n):
    return d.decode(z[:n], zb[:n], backend).tobytes() == whole[:len(whole) // 65 * n]

with ThreadPoolExecutor(4) as pool:
    assert all(pool.map(same, 30 * [65, 1, 17]))
assert settings() == before, (settings(), before)
"""


@pytest.mark.parametrize("setting", ["autocast=", "all=medium", "device=tf32"])
def test_reduced_precision_of_the_program_around_does_not_show(setting: str, tmp_path: Path) -> None:
    """Who calls may compute with fewer bits, and keeps that setting; each in its own process, as torch has no reset."""
    (tmp_path / "decoder").write_bytes(encode_decoder(decoder()))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", AROUND, str(tmp_path / "decoder"), setting],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]


def test_latents_that_are_no_numbers_are_clipped() -> None:
    d = decoder()
    z = np.array([[np.nan, np.inf, -np.inf, 1e30, -1e30]])
    got = d.hyper.run(z, get_backend("numpy"))
    assert np.array_equal(got, d.hyper.run(np.array([[0, 2047, -2047, 2047, -2047]]), get_backend("numpy")))
