# SPDX-License-Identifier: MIT
"""SZ3, SPERR and ZFP behind one interface: an array and a setting in its units go in, bytes come out, and back.

Traps kept shut here: SPERR's filter takes the fastest axis first (``swap=True``, else 2 to 7 times larger); HDF5 hands
back the uncompressed chunk from its cache unless the file is closed in between; a filter keeps its true settings in the
file, so that a chunk without them decodes to something else; sizes are those of the stored chunk, not of the file.
"""

from __future__ import annotations

import io
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from hbae.arrays import Array
from hbae.errors import ConfigError, FieldError, MissingExtraError, UnknownNameError


@dataclass(frozen=True)
class Encoded:
    """What decoding needs, and ``nbytes``: the size that counts for the rival (without any container around it)."""

    payload: bytes
    nbytes: int


class Rival(Protocol):
    """A compressor; its setting is a positive number in the units of the array: larger is smaller and worse.

    Both ``encode`` and ``decode`` raise ``FieldError`` for arrays that it does not take, before it sees them.
    """

    @property
    def name(self) -> str:
        """Name in tables."""

    @property
    def steps(self) -> bool:
        """Tell whether the setting counts only to the power of two below it."""

    def require(self) -> None:
        """Raise ``MissingExtraError`` where the package behind it is not installed."""

    def encode(self, array: Array, setting: float) -> Encoded:
        """Give the payload of an array at a setting."""

    def decode(self, encoded: Encoded, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Give the array back from its payload alone."""


class SZ3:
    """SZ3 through pysz at an absolute tolerance, rank 1 to 4 (leading axes of more are merged).

    ``algorithm`` is one of ``INTERP_LORENZO`` (its default), ``INTERP``, ``LORENZO_REG``.

    Raises
    ------
    ConfigError
        For another algorithm.
    """

    name = "SZ3"
    steps = False

    def __init__(self, algorithm: str = "INTERP_LORENZO") -> None:
        if algorithm not in ("INTERP_LORENZO", "INTERP", "LORENZO_REG"):
            raise ConfigError(f"SZ3: unknown algorithm {algorithm!r}")
        self.algorithm = algorithm

    def require(self) -> None:
        """Raise ``MissingExtraError`` without pysz."""
        _pysz()

    def encode(self, array: Array, setting: float) -> Encoded:
        """Give SZ3's stream."""
        pysz = _pysz()
        x = plain(array).reshape(layout(array.shape, 4))
        config = pysz.szConfig(x.shape)
        config.errorBoundMode = pysz.szErrorBoundMode.ABS
        config.absErrorBound = setting
        config.cmprAlgo = getattr(pysz.szAlgorithm, self.algorithm)
        stream, _ = pysz.sz.compress(x, config)
        payload = bytes(stream)
        return Encoded(payload, len(payload))

    def decode(self, encoded: Encoded, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Give the array back."""
        native = dtype.newbyteorder("=")
        x, _ = _pysz().sz.decompress(np.frombuffer(encoded.payload, np.uint8), native, layout(shape, 4))
        return np.asarray(x).reshape(shape)


class _Filter(ABC):
    """A compressor that is reached as an HDF5 filter: a small file with one chunk, the whole array.

    ``most`` is the largest rank, ``least`` the smallest, ``shortest`` the fewest points along an axis.
    """

    name = ""
    most, least, shortest = 4, 1, 1

    def require(self) -> None:
        """Raise ``MissingExtraError`` without hdf5plugin."""
        _hdf5plugin()

    def encode(self, array: Array, setting: float) -> Encoded:
        """Give the file, which holds the filter's settings too; only its stored chunk counts."""
        import h5py

        shape = self._layout(array.shape)
        x = plain(array).reshape(shape)
        options = self._options(x, setting)
        with io.BytesIO() as memory:
            with h5py.File(memory, "w") as f:
                stored = f.create_dataset("x", data=x, chunks=shape, **options)
                f.flush()
                skipped = bool(stored.id.get_chunk_info(0).filter_mask)
                nbytes = int(stored.id.get_storage_size())
                del stored
            if skipped:
                raise FieldError(f"{self.name}: HDF5 skipped the filter and stored the array as it is")
            return Encoded(memory.getvalue(), nbytes)

    def decode(self, encoded: Encoded, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Give the array back, read from the closed file."""
        import h5py

        _hdf5plugin()
        with io.BytesIO(encoded.payload) as memory, h5py.File(memory, "r") as f:
            return np.asarray(f["x"][...]).astype(dtype, copy=False).reshape(shape)

    def _layout(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        inner = layout(shape, self.most, self.shortest)
        if len(inner) < self.least or (min(inner) < self.shortest and self.least > 1):
            raise FieldError(
                f"{self.name} does not apply: it takes {self.least} or {self.most} axes of at least {self.shortest} "
                f"points, and shape {shape} cannot be laid out so"
            )
        return inner

    @abstractmethod
    def _options(self, x: Array, setting: float) -> dict[str, Any]:
        """Give the filter's own arguments for an array."""


class Sperr(_Filter):
    """SPERR over 2 or 3 axes of at least 9 points; other arrays are laid out so, or refused.

    ``mode`` is ``psnr`` (the setting is the RMSE asked for; at equal RMSE a few percent smaller and faster) or ``abs``
    (the largest error). ``swap`` is the filter's: False reads arrays in the wrong order and is here to show it.

    Raises
    ------
    ConfigError
        For another mode.
    """

    name = "SPERR"
    steps = False
    most, least, shortest = 3, 2, 9

    def __init__(self, *, mode: str = "psnr", swap: bool = True) -> None:
        if mode not in ("psnr", "abs"):
            raise ConfigError(f"SPERR: unknown mode {mode!r}")
        self.mode, self.swap = mode, swap

    def _options(self, x: Array, setting: float) -> dict[str, Any]:
        plugin = _hdf5plugin()
        span = float(x.max()) - float(x.min())
        if self.mode == "abs" or span == 0:
            return dict(plugin.Sperr(absolute=setting, swap=self.swap))
        psnr = min(max(20 * math.log10(span / setting), 1.0), 300.0)
        return dict(plugin.Sperr(peak_signal_to_noise_ratio=psnr, swap=self.swap))


class ZFP(_Filter):
    """ZFP in accuracy mode: rank 1 to 4, short axes merged into blocks of 4; tolerances count to a power of two."""

    name = "ZFP"
    steps = True
    most, least, shortest = 4, 1, 4

    def _options(self, x: Array, setting: float) -> dict[str, Any]:
        return dict(_hdf5plugin().Zfp(accuracy=setting))


RIVALS: dict[str, Callable[[], Rival]] = {"SZ3": SZ3, "SPERR": Sperr, "ZFP": ZFP}


def find(name: str) -> str:
    """Give the name of a rival as in :data:`RIVALS`, from a name in any case.

    Raises
    ------
    UnknownNameError
        For a rival that is not known.
    """
    if name.upper() not in RIVALS:
        raise UnknownNameError(f"rival {name!r} is not known; known: {', '.join(RIVALS)}")
    return name.upper()


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


def layout(shape: tuple[int, ...], most: int, shortest: int = 1) -> tuple[int, ...]:
    """Give a shape of the same points in the same order: no axes of 1, at most ``most`` axes, short ones merged.

    An axis of fewer than ``shortest`` points is merged with the next slower one (the first: the next faster one).
    """
    axes = [n for n in shape if n != 1] or [1]
    while len(axes) > most:
        axes[:2] = [axes[0] * axes[1]]
    while len(axes) > 1 and min(axes) < shortest:
        a = max(axes.index(min(axes)), 1)
        axes[a - 1 : a + 1] = [axes[a - 1] * axes[a]]
    return tuple(axes)


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
