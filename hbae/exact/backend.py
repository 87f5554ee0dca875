# SPDX-License-Identifier: MIT
"""Matrix products of integers held in floats: exact in any order, so NumPy and torch give the same bits.

NumPy is the reference. torch is used when it is asked for, or when it is installed and the work is large.
"""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import Any, Protocol

import numpy as np

from hbae.arrays import Array
from hbae.errors import ConfigError, DeviceError, MissingExtraError

F32_LIMIT = float(1 << 24)
F64_LIMIT = float(1 << 53)
_streams = threading.local()


class Backend(Protocol):
    """The few array operations of the decoder; each promises the exact IEEE result, elementwise or by integers.

    ``on_device``: whether chunks without a model are worked on there too, as tensors.
    """

    name: str
    on_device: bool

    def asarray(self, x: Array, double: bool) -> Any:
        """Move an array of integers to the device as float32 or float64."""

    def numpy(self, x: Any) -> Array:
        """Bring a device array back."""

    def zeros(self, shape: tuple[int, ...]) -> Array:
        """Give float64 zeros on the host, where they will be filled for the device."""

    def matmul(self, a: Any, b: Any) -> Any:
        """Plain matrix product; exact while the caller's proof holds."""

    def finish(self, acc: Any, scale: Any, act: str, lo: float, hi: float) -> Any:
        """Give clip(rint(act(acc * scale)), lo, hi), written over ``acc``; ``scale`` holds powers of two."""


class NumpyBackend:
    """The reference."""

    name = "numpy"
    on_device = False

    def zeros(self, shape: tuple[int, ...]) -> Array:
        return np.zeros(shape)

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
    """The same on torch, CPU or CUDA; what chunks need on top of it where they are worked on there.

    Parameters
    ----------
    device : str
        As torch names it.
    on_device : bool
        Work on chunks there even if it is the CPU.
    """

    def __init__(self, device: str, *, on_device: bool = False) -> None:
        import torch

        self.torch = torch
        self.device = torch.device(device)
        self.name = f"torch:{device}"
        self._cuda = self.device.type == "cuda"
        self.on_device = on_device or self._cuda

    def zeros(self, shape: tuple[int, ...]) -> Array:
        if not self.on_device:
            return np.zeros(shape)
        # Pinned memory belongs to the device that is the current one.
        with self._stream():
            out: Array = self.torch.zeros(shape, dtype=self.torch.float64, pin_memory=self._cuda).numpy()
        return out

    def load(self, a: Array, *, own: bool = False) -> Any:
        """Bring an array, of any byte order, to the device without waiting for it.

        ``own``: it came from :meth:`zeros` and is of no other use; else it is copied.
        """
        torch = self.torch
        if own:
            place = torch.from_numpy(a)
        else:
            kind = torch.from_numpy(np.empty(0, a.dtype.newbyteorder("="))).dtype
            place = torch.empty(a.shape, dtype=kind, pin_memory=self._cuda)
            place.numpy()[...] = a
        return place.to(self.device, non_blocking=True)

    def fetch(self, x: Any) -> Array:
        """Bring a tensor to the host, once all that was asked for before is done."""
        place = self.torch.empty(x.shape, dtype=x.dtype, pin_memory=self._cuda)
        place.copy_(x, non_blocking=True)
        self.wait()
        out: Array = place.numpy()
        return out

    def wait(self) -> None:
        """Wait for all that this thread has asked for."""
        if self._cuda:
            self.torch.cuda.current_stream(self.device).synchronize()

    @contextmanager
    def working(self) -> Iterator[None]:
        """Compute with all bits, on a stream of this thread's own.

        Raises
        ------
        DeviceError
            When the device has too little memory or fails.
        """
        try:
            with exact_flags(self), self._stream():
                yield
        except (self.torch.OutOfMemoryError, getattr(self.torch, "AcceleratorError", DeviceError)) as e:
            raise DeviceError(f"device {self.device}: {str(e).splitlines()[0]}") from e

    def _stream(self) -> Any:
        if not self._cuda:
            return nullcontext()
        cuda: Any = self.torch.cuda
        streams = _streams.__dict__.setdefault("by_device", {})
        if self.device not in streams:
            streams[self.device] = cuda.Stream(self.device)
        return cuda.stream(streams[self.device])

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

    ``torch`` is the CPU that works on chunks as a device would, for tests.

    Raises
    ------
    MissingExtraError
        When torch is asked for and absent.
    ConfigError
        When torch does not find the device.
    """
    have = _have_torch()
    if name == "numpy" or (name == "auto" and not have):
        return NumpyBackend()
    if not have:
        raise MissingExtraError("torch", "torch")
    if name == "torch":
        return TorchBackend("cpu", on_device=True)
    if name.startswith("cuda"):
        find_device(name)
    return TorchBackend("cpu" if name == "auto" else name)


@cache
def _have_torch() -> bool:
    return importlib.util.find_spec("torch") is not None


def find_device(name: str) -> None:
    """Refuse a device ``cuda`` or ``cuda:N`` that is not there; torch must be.

    Raises
    ------
    ConfigError
        When torch does not find it.
    """
    index = int(name.partition(":")[2] or 0)
    if index >= num_devices():
        raise ConfigError(f"device={name}: torch finds no such device here")


def num_devices() -> int:
    """Give the number of CUDA devices that torch finds, 0 without torch."""
    if not _have_torch():
        return 0
    import torch

    return int(torch.cuda.device_count()) if torch.cuda.is_available() else 0


class _Precision:
    """The precision of torch's products: the program's own setting waits while any thread decodes."""

    def __init__(self) -> None:
        self._lock, self._users = threading.Lock(), 0
        self._common = "highest"
        self._by_device: list[tuple[Any, str]] = []

    def raise_to_exact(self, torch: Any) -> None:
        """Compute with all bits from now on, in all threads."""
        with self._lock:
            self._users += 1
            if self._users > 1:
                return
            # Newer versions of torch have a setting by device too; a program that uses those has none in common.
            self._by_device = [(m, m.fp32_precision) for m in _products(torch)]
            try:
                self._common = torch.get_float32_matmul_precision()
            except RuntimeError:
                self._common = "highest"
            torch.set_float32_matmul_precision("highest")

    def put_back(self, torch: Any) -> None:
        """Undo :meth:`raise_to_exact`; the last thread that decodes brings the program's settings back."""
        with self._lock:
            self._users -= 1
            if self._users:
                return
            torch.set_float32_matmul_precision(self._common)
            for products, precision in self._by_device:
                products.fp32_precision = precision


def _products(torch: Any) -> list[Any]:
    found = [getattr(d, "matmul", None) for d in (torch.backends.cuda, torch.backends.mkldnn)]
    return [m for m in found if hasattr(m, "fp32_precision")]


_precision = _Precision()


@contextmanager
def exact_flags(backend: Backend) -> Iterator[None]:
    """Switch every reduced-precision path of torch off while decoding, and put the program's own settings back."""
    if not isinstance(backend, TorchBackend):
        yield
        return
    torch = backend.torch
    _precision.raise_to_exact(torch)
    try:
        with torch.no_grad(), torch.autocast(device_type=backend.device.type, enabled=False):
            yield
    finally:
        _precision.put_back(torch)
