# SPDX-License-Identifier: MIT
"""xarray Datasets as fields: values as given, nothing decoded or encoded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from hbae.arrays import Array, Box, Dimension, Field, Group, Variable, box_shape
from hbae.errors import FieldError
from hbae.io.attributes import PY_ATTRS, from_mapping
from hbae.io.kinds import shown_type, to_shown

# Encodings that a writer of files follows under other names.
_STORAGE = ("zlib", "complevel", "shuffle", "fletcher32")
ENCODING = "encoding"


class DatasetSource:
    """A lazy variable of a Dataset; a box computes only itself."""

    def __init__(self, variable: Any, name: str, dtype: np.dtype[Any], storage: tuple[int, ...] | None) -> None:
        self._variable, self._name, self.dtype, self.storage = variable, name, dtype, storage

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(int(n) for n in self._variable.shape)

    def read(self, box: Box) -> Array:
        """Read one box.

        Raises
        ------
        FieldError
            When an object array holds something that is not a string.
        """
        values = np.asarray(self._variable[box].values)
        return to_shown(values, self.dtype, self._name).reshape(box_shape(box))


def open_dataset(source: Any) -> Field:
    """Give a Dataset, or a named DataArray, as a field.

    Raises
    ------
    FieldError
        For names that are not strings, multi-indexes, extension types and attributes that cannot be kept.
    """
    import xarray as xr

    extra: dict[str, Any] = {}
    if isinstance(source, xr.DataArray):
        if source.name is None:
            raise FieldError("a DataArray without a name cannot be kept: give it one")
        extra["dataarray"] = str(source.name)
        source = source.to_dataset(name=source.name) if source.name not in source.coords else source.coords.to_dataset()
    for name in [*source.variables, *source.sizes]:
        if not isinstance(name, str) or "/" in name or not name:
            raise FieldError(f"the name {name!r} of a Dataset's variable or dimension cannot be kept")
    attrs, markers = from_mapping(source.attrs, "")
    unlimited = set(source.encoding.get("unlimited_dims") or ())
    dims = tuple(Dimension(str(n), int(s), n in unlimited) for n, s in source.sizes.items())
    variables = tuple(_variable(str(n), v, source) for n, v in source.variables.items())
    extra |= {"coords": [str(c) for c in source.coords], "indexes": [str(c) for c in source.xindexes]}
    if markers:
        extra[PY_ATTRS] = {"": markers}
    encoding = _json_only(source.encoding)
    if encoding:
        extra[ENCODING] = encoding
    return Field(format="dataset", groups=(Group(dims=dims, attrs=attrs, variables=variables),), extra=extra)


def _variable(name: str, v: Any, source: Any) -> Variable:
    if not isinstance(v.dtype, np.dtype):
        raise FieldError(f"{name}: values of the extension type {v.dtype} cannot be kept")
    if name in source.xindexes and source.xindexes[name].to_pandas_index().nlevels > 1:
        raise FieldError(f"{name}: a multi-index cannot be kept: reset it first")
    kind, dtype, hints = shown_type(v.dtype, name)
    attrs, markers = from_mapping(v.attrs, name)
    if markers:
        hints[PY_ATTRS] = markers
    encoding = _json_only(v.encoding)
    if encoding:
        hints[ENCODING] = encoding
    hints |= _storage_hints(v.encoding, v.shape)
    chunks = v.chunks
    storage = tuple(int(c[0]) for c in chunks) if chunks and v.ndim else None
    if storage is None and hints.get("chunks"):
        storage = tuple(hints["chunks"])
    source_ = DatasetSource(v, name, dtype, storage)
    return Variable(name=name, dims=tuple(str(d) for d in v.dims), source=source_, kind=kind, attrs=attrs, hints=hints)


def _storage_hints(encoding: Mapping[Any, Any], shape: tuple[int, ...]) -> dict[str, Any]:
    out = {k: encoding[k] for k in _STORAGE if isinstance(encoding.get(k), bool | int) and encoding[k]}
    chunks = encoding.get("chunksizes") or encoding.get("chunks")
    if chunks and len(chunks) == len(shape):
        out["chunks"] = [int(c) for c in chunks]
    return out


def _json_only(values: Mapping[Any, Any]) -> dict[str, Any]:
    """Keep what JSON holds; NumPy scalars become ``{"dtype": ..., "hex": ...}``, the rest is storage detail."""
    out: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, set | frozenset):
            value = sorted(str(v) for v in value)
        if isinstance(value, np.dtype):
            value = {"dtype": value.str}
        if isinstance(value, np.generic | np.ndarray) and np.asarray(value).dtype.kind in "biufcS":
            plain = np.asarray(value)
            value = {"dtype": plain.dtype.str, "shape": list(plain.shape), "hex": plain.tobytes().hex()}
        try:
            out[str(key)] = json.loads(json.dumps(value))
        except (TypeError, ValueError):
            continue
    return out


def encoding_from(doc: Mapping[str, Any]) -> dict[str, Any]:
    """Undo the JSON form of an encoding."""
    out: dict[str, Any] = {}
    for key, value in doc.items():
        if isinstance(value, dict) and set(value) == {"dtype"}:
            out[key] = np.dtype(value["dtype"])
        elif isinstance(value, dict) and set(value) == {"dtype", "shape", "hex"}:
            plain = np.frombuffer(bytes.fromhex(value["hex"]), value["dtype"]).reshape(value["shape"])
            out[key] = plain[()] if plain.ndim == 0 else plain.copy()
        elif key in ("chunksizes", "chunks", "original_shape", "preferred_chunks") and isinstance(value, list):
            out[key] = tuple(value)
        else:
            out[key] = value
    return out
