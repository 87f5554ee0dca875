# SPDX-License-Identifier: MIT
"""Matrix products of integers held in floats: exact in any order, so NumPy and torch give the same bits.

NumPy is the reference. torch is used when it is asked for, or when it is installed and the work is large.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np

from hbae.arrays import Array
from hbae.errors import MissingExtraError

F32_LIMIT = float(1 << 24)
F64_LIMIT = float(1 << 53)


class Backend(Protocol):
    """The few array operations of the decoder; each promises the exact IEEE result, elementwise or by integers."""

    name: str

    def asarray(self, x: Array, double: bool) -> Any:
        """Move an array of integers to the device as float32 or float64."""

    def numpy(self, x: Any) -> Array:
        """Bring a device array back."""

    def matmul(self, a: Any, b: Any) -> Any:
        """Plain matrix product; exact while the caller's proof holds."""

    def finish(self, acc: Any, scale: Any, act: str, lo: float, hi: float) -> Any:
        """Give clip(rint(act(acc * scale)), lo, hi), written over ``acc``; ``scale`` holds powers of two."""


class NumpyBackend:
    """The reference."""

    name = "numpy"

    def asarray(self, x: Array, double: bool) -> Array:
        return np.ascontiguousarray(x, dtype=np.float64 if double else np.float32)

    def numpy(self, x: Array) -> Array:
        return x

    def matmul(self, a: Array, b: Array) -> Array:
        out: Array = a @ b
        return out

    def finish(self, acc: Array, scale: Array, act: str, lo: float, hi: float) -> Array:
        np.multiply(acc, scale, out=acc)
        if act == "relu":
            np.maximum(acc, 0, out=acc)
        elif act == "leaky":
            np.maximum(acc, acc * acc.dtype.type(0.125), out=acc)
        np.rint(acc, out=acc)
        np.clip(acc, lo, hi, out=acc)
        return acc


class TorchBackend:
    """The same on torch, CPU or CUDA."""

    def __init__(self, device: str) -> None:
        import torch

        self.torch = torch
        self.device = torch.device(device)
        self.name = f"torch:{device}"

    def asarray(self, x: Array, double: bool) -> Any:
        dtype = np.float64 if double else np.float32
        return self.torch.from_numpy(np.array(x, dtype=dtype, order="C")).to(self.device)

    def numpy(self, x: Any) -> Array:
        out: Array = x.cpu().numpy()
        return out

    def matmul(self, a: Any, b: Any) -> Any:
        return self.torch.matmul(a, b)

    def finish(self, acc: Any, scale: Any, act: str, lo: float, hi: float) -> Any:
        acc.mul_(scale)
        if act == "relu":
            acc.clamp_(min=0)
        elif act == "leaky":
            acc = self.torch.maximum(acc, acc * 0.125)
        return acc.round_().clamp_(lo, hi)


def get_backend(name: str = "auto") -> Backend:
    """Give a backend by name: ``numpy``, ``cpu``, ``cuda``, or ``auto`` (torch on the CPU when installed).

    Raises
    ------
    MissingExtraError
        When torch is asked for and absent.
    """
    have = importlib.util.find_spec("torch") is not None
    if name == "numpy" or (name == "auto" and not have):
        return NumpyBackend()
    if not have:
        raise MissingExtraError("torch", "torch")
    return TorchBackend("cpu" if name == "auto" else name)


@contextmanager
def exact_flags(backend: Backend) -> Iterator[None]:
    """Switch every reduced-precision path of torch off while decoding, and put the flags back."""
    if isinstance(backend, NumpyBackend):
        yield
        return
    import torch

    cuda = torch.backends.cuda.matmul
    old = (torch.get_float32_matmul_precision(), cuda.allow_tf32, torch.backends.cudnn.allow_tf32)
    torch.set_float32_matmul_precision("highest")
    cuda.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    try:
        with torch.no_grad(), torch.autocast(device_type="cpu", enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(old[0])
        cuda.allow_tf32 = old[1]
        torch.backends.cudnn.allow_tf32 = old[2]
