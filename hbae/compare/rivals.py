# SPDX-License-Identifier: MIT
"""SZ3, SPERR and ZFP behind one interface: an absolute tolerance in, bytes out, and back.

Traps kept shut here: SPERR's filter takes the fastest axis first (``swap=True``, else 2 to 7 times worse); HDF5 hands
back the uncompressed chunk from its cache unless the file is closed in between; sizes are those of the stored chunk.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from hbae.arrays import Array
from hbae.errors import ConfigError, FieldError, MissingExtraError


class Rival(Protocol):
    """A compressor: promises bytes for an array and a setting (its absolute tolerance, units of the array)."""

    @property
    def name(self) -> str:
        """Name in tables."""

    @property
    def native(self) -> tuple[str, ...]:
        """Bounds that it can be asked for directly."""

    def encode(self, array: Array, setting: float) -> bytes:
        """Give the payload of an array at a tolerance."""

    def decode(self, payload: bytes, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Give the array back from its payload alone."""


class SZ3:
    """SZ3 through pysz; ``algorithm`` is one of ``INTERP_LORENZO`` (its default), ``INTERP``, ``LORENZO_REG``.

    Raises
    ------
    ConfigError
        For another algorithm.
    """

    name = "SZ3"
    native = ("abs", "rel_range", "psnr")

    def __init__(self, algorithm: str = "INTERP_LORENZO") -> None:
        if algorithm not in ("INTERP_LORENZO", "INTERP", "LORENZO_REG"):
            raise ConfigError(f"SZ3: unknown algorithm {algorithm!r}")
        self.algorithm = algorithm

    def encode(self, array: Array, setting: float) -> bytes:
        """Give SZ3's stream for a native-endian float array of rank 1 to 4 (leading axes of more are merged)."""
        pysz = _pysz()
        x = plain(_merged(array, 4))
        config = pysz.szConfig(x.shape)
        config.errorBoundMode = pysz.szErrorBoundMode.ABS
        config.absErrorBound = setting
        config.cmprAlgo = getattr(pysz.szAlgorithm, self.algorithm)
        payload, _ = pysz.sz.compress(x, config)
        return bytes(payload)

    def decode(self, payload: bytes, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Give the array back."""
        inner = _merged_shape(shape, 4)
        x, _ = _pysz().sz.decompress(np.frombuffer(payload, np.uint8), dtype, inner)
        return np.asarray(x).reshape(shape)


class _Filter:
    """A compressor that is reached as an HDF5 filter: one stored chunk of the whole array."""

    smallest = 1
    ranks = (1, 4)

    def encode(self, array: Array, setting: float) -> bytes:
        """Give the stored chunk; the payload's length is what the data take in the file."""
        import h5py

        x = plain(self._shaped(array))
        with io.BytesIO() as memory:
            with h5py.File(memory, "w") as f:
                f.create_dataset("x", data=x, chunks=x.shape, **self._filter(setting))
            with h5py.File(memory, "r") as f:  # closed in between: the chunk now comes from storage, not from a cache
                stored = f["x"].id
                mask, payload = stored.read_direct_chunk((0,) * x.ndim)
                if mask or stored.get_storage_size() != len(payload):
                    raise FieldError("HDF5 skipped the filter: the array was stored uncompressed")
                return bytes(payload)

    def decode(self, payload: bytes, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Give the array back from the chunk alone, through a fresh file."""
        import h5py

        inner = self._shaped(np.broadcast_to(np.zeros((), dtype), shape)).shape
        with io.BytesIO() as memory:
            with h5py.File(memory, "w") as f:
                stored = f.create_dataset("x", inner, dtype, chunks=inner, **self._filter(1.0))
                stored.id.write_direct_chunk((0,) * len(inner), payload)
            with h5py.File(memory, "r") as f:
                x = np.asarray(f["x"][...])
        return np.asarray(x[tuple(slice(0, n) for n in _merged_shape(shape, self.ranks[1]))].reshape(shape))

    def _shaped(self, array: Array) -> Array:
        """Merge leading axes down to the largest rank, and repeat the edges of axes that are too short."""
        x = _merged(array, self.ranks[1])
        while x.ndim < self.ranks[0]:
            x = x[..., None]
        short = [(0, max(0, self.smallest - n)) for n in x.shape]
        return np.pad(x, short, mode="edge") if any(b for _, b in short) else x

    def _filter(self, setting: float) -> dict[str, Any]:
        raise NotImplementedError


class Sperr(_Filter):
    """SPERR at a pointwise tolerance: rank 2 or 3, axes of at least 9; more axes are merged, short ones padded."""

    name = "SPERR"
    native = ("abs", "psnr")
    smallest = 9
    ranks = (2, 3)

    def __init__(self, *, swap: bool = True) -> None:
        self.swap = swap

    def _filter(self, setting: float) -> dict[str, Any]:
        return dict(_hdf5plugin().Sperr(absolute=setting, swap=self.swap))

    def decode(self, payload: bytes, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Give the array back."""
        if len(shape) == 1:
            return super().decode(payload, (*shape, 1), dtype).reshape(shape)
        return super().decode(payload, shape, dtype)


class ZFP(_Filter):
    """ZFP in accuracy mode: rank 1 to 4; leading axes of more are merged."""

    name = "ZFP"
    native = ("abs",)

    def _filter(self, setting: float) -> dict[str, Any]:
        return dict(_hdf5plugin().Zfp(accuracy=setting))


RIVALS: dict[str, Callable[[], Rival]] = {"SZ3": SZ3, "SPERR": Sperr, "ZFP": ZFP}


def plain(array: Array) -> Array:
    """Give a contiguous native-endian float32 or float64 array; the rivals turn anything else into garbage silently.

    Raises
    ------
    FieldError
        For other element types or values that are not finite.
    """
    if array.dtype.kind != "f" or array.dtype.itemsize not in (4, 8):
        raise FieldError(f"rivals take float32 and float64, not {array.dtype}")
    x = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))
    if x.size == 0 or not math.isfinite(float(x.min())) or not math.isfinite(float(x.max())):
        raise FieldError("rivals take arrays with points, all of them finite; fill invalid points first")
    return x


def _merged_shape(shape: tuple[int, ...], rank: int) -> tuple[int, ...]:
    extra = len(shape) - rank
    if extra <= 0:
        return shape or (1,)
    return (math.prod(shape[: extra + 1]), *shape[extra + 1 :])


def _merged(array: Array, rank: int) -> Array:
    return array.reshape(_merged_shape(array.shape, rank))


def _pysz() -> Any:
    try:
        import pysz
    except ImportError as e:
        raise MissingExtraError("pysz", "compare") from e
    return pysz


def _hdf5plugin() -> Any:
    try:
        import hdf5plugin
    except ImportError as e:
        raise MissingExtraError("hdf5plugin", "compare") from e
    return hdf5plugin
