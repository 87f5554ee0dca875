# SPDX-License-Identifier: MIT
"""P2: wavelet and transform give the bits of NumPy on torch tensors, on the CPU and, where there is one, on CUDA."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import hbae.pipeline.device
import hbae.pipeline.rounding_there
from hbae.arrays import Array
from hbae.errors import ConfigError, DeviceError, FormatError
from hbae.exact import AxisBasis, Transform, Wavelet, dct_basis, get_backend, on_torch
from hbae.exact.backend import TorchBackend

CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
PLACES = ["torch", pytest.param("cuda", marks=[pytest.mark.gpu, CUDA])]
SHAPES = [(n,) for n in range(1, 21)]
SHAPES += [
    (17, 33),
    (9, 9, 9),
    (5, 12, 40),
    (3, 9, 10, 11),
    (64, 1, 18),
    (9, 2, 9, 3, 10),
    (129, 70),
    (2, 9, 1, 2, 3, 10),
]
FUSED = {
    "addcmul",
    "addcdiv",
    "lerp",
    "addmm",
    "baddbmm",
    "addbmm",
    "addmv",
    "addr",
    "rsub",
    "dot",
    "einsum",
    "compile",
}
DIVIDING = {"div", "divide", "true_divide", "reciprocal", "rsqrt", "mean", "ldexp"}


def there(place: str) -> TorchBackend:
    backend = get_backend(place)
    assert isinstance(backend, TorchBackend)
    assert backend.on_device
    return backend


def hostile(shape: tuple[int, ...]) -> Array:
    """Values over 60 orders of magnitude, with zeros of both signs, tiny and huge numbers, infinities and NaN."""
    rng = np.random.default_rng(7)
    x = rng.normal(size=shape) * 10.0 ** rng.integers(-30, 30, shape)
    flat = x.reshape(-1)
    flat[rng.integers(0, x.size, 7)] = [0.0, -0.0, 5e-324, -1e308, 2.5e-310, np.inf, np.nan]
    return x


def bits(x: Array) -> bytes:
    """The bytes, with one NaN for all: which one comes out is no operation's promise."""
    return np.where(np.isnan(x), np.nan, x).tobytes()


def groups_of(rank: int) -> list[tuple[tuple[int, ...], ...]]:
    every = tuple(range(rank))
    found = {(every,), tuple((a,) for a in every), (every[::-1],), ((rank - 1,), *((every[:-1],) if rank > 1 else ()))}
    return sorted(found)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_wavelets_have_the_bits_of_numpy(shape: tuple[int, ...], place: str) -> None:
    backend = there(place)
    for groups in groups_of(len(shape)):
        for x in (hostile((2, *shape)), np.random.default_rng(1).integers(-900, 900, (2, *shape)).astype(float)):
            wavelet, here = Wavelet(groups), x.copy()
            with np.errstate(all="ignore"):
                for grid in here:
                    wavelet.forward(grid)
                forth = here.copy()
                for grid in here:
                    wavelet.inverse(grid)
            with backend.working():
                y = backend.load(x)
                on_torch.wavelet_forward(wavelet, y)
                assert bits(backend.fetch(y)) == bits(forth)
                on_torch.wavelet_inverse(wavelet, y)
                assert bits(backend.fetch(y)) == bits(here)


def bases(tile: tuple[int, ...], rng: np.random.Generator) -> list[Transform]:
    """Bases of every kind and number of kept vectors."""
    found = []
    for which in range(4):
        axes = []
        for i, n in enumerate(tile):
            kind = ("none", "dct", "klt")[(i + which) % 3] if which < 3 else "klt"
            kept = n if kind != "klt" else max(1, n - 1)
            m = (
                None
                if kind == "none"
                else dct_basis(n)
                if kind == "dct"
                else rng.integers(-(1 << 15), 1 << 15, (n, kept))
            )
            axes.append(AxisBasis(kind, n, m, np.zeros(kept, np.int64)))
        found.append(Transform(tuple(axes)))
    return found


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("tile", [(1,), (5,), (3, 8), (2, 7, 9), (4, 5, 3, 6)], ids=str)
def test_transforms_have_the_bits_of_numpy(tile: tuple[int, ...], place: str) -> None:
    backend, rng = there(place), np.random.default_rng(5)
    for t in bases(tile, rng):
        for largest in (0, 1, 300, 1 << 20, 1 << 30, 1 << 34):
            shape = (t.kept[0], 3, *t.kept[1:]) if len(tile) > 1 else (t.kept[0], 4099)
            q = rng.integers(-largest, largest + 1, shape)
            q.reshape(-1)[:2] = largest, -largest
            try:
                fraction = t.fraction_for(largest)
            except FormatError:
                with backend.working(), pytest.raises(FormatError, match="too large"):
                    on_torch.transform_inverse(t, backend.load(q).double(), 0, largest)
                continue
            with backend.working():
                got = backend.fetch(on_torch.transform_inverse(t, backend.load(q).double(), fraction, largest))
            assert np.array_equal(got, t.inverse(q, fraction))


@pytest.mark.parametrize("place", PLACES)
def test_the_proof_is_asked_for(place: str) -> None:
    backend, t = there(place), bases((5,), np.random.default_rng(5))[2]
    with backend.working(), pytest.raises(FormatError, match="too large"):
        on_torch.transform_inverse(t, backend.load(np.full((t.kept[0], 2), 2.0**52)), 0, 2.0**52)


@pytest.mark.parametrize("place", PLACES)
def test_quotients_are_rounded_once(place: str) -> None:
    backend, x = there(place), hostile((4, 5000))
    by = np.array([1.149604398860241, 3.0, 1e-3, 7e-311])
    with backend.working(), np.errstate(all="ignore"):
        y = backend.load(x)
        assert bits(backend.fetch(on_torch.over(y, on_torch.column(by, y)))) == bits(x / by[:, None])
        for number in by.tolist():
            assert bits(backend.fetch(on_torch.over(backend.load(x), number))) == bits(x / number)
    # What is guarded against is another number.
    assert ((x[0] * (1 / by[0])) != (x[0] / by[0])).sum() > 100


@pytest.mark.parametrize("module", [on_torch, hbae.pipeline.device, hbae.pipeline.rounding_there])
def test_nothing_fuses_and_one_function_divides(module: Any) -> None:
    """What CUDA would do otherwise than the CPU, where no test can see it."""
    tree = ast.parse(Path(module.__file__).read_text())
    inside = [f for f in ast.walk(tree) if isinstance(f, ast.FunctionDef) and f.name == "over"]
    allowed = {id(n) for f in inside for n in ast.walk(f)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and id(node) not in allowed:
            assert node.attr.rstrip("_") not in FUSED | (DIVIDING - {"ldexp"}), ast.unparse(node)
        if isinstance(node, ast.BinOp | ast.AugAssign):
            assert not isinstance(node.op, ast.Div), ast.unparse(node)
        if isinstance(node, ast.keyword):
            assert node.arg not in ("alpha", "beta", "rounding_mode"), node.arg


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", ["<f4", ">f4", ">f8", "<i2", ">i4", "f2", "u1"])
def test_loading_reads_any_byte_order_and_leaves_the_array_alone(kind: str, place: str) -> None:
    backend, a = there(place), np.arange(24).astype(kind)[::2].reshape(3, 4)
    a.setflags(write=False)
    with backend.working():
        x = backend.load(a).double()
        assert np.array_equal(backend.fetch(x.mul_(2.0)), 2.0 * a.astype(float))


def test_devices_that_are_not_there_are_refused() -> None:
    with pytest.raises(ConfigError, match="device=cuda:99: torch finds no such device"):
        get_backend("cuda:99")


def test_a_device_without_memory_is_named() -> None:
    with pytest.raises(DeviceError, match="device cpu: no more"), there("torch").working():
        raise torch.OutOfMemoryError("no more")
