# SPDX-License-Identifier: MIT
"""Plain HDF5 files, written through h5py."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from hbae.arrays import Array, Attribute, Box, Dimension, Field, Group, Variable
from hbae.errors import FieldError
from hbae.io.attributes import PY_ATTRS
from hbae.io.handles import LIBRARY_LOCK
from hbae.io.hdf5 import STRUCTURE
from hbae.io.marker import MARKER, group_marker, refuse_marker


def check_hdf5(field: Field) -> None:
    """Refuse what HDF5 cannot hold.

    Raises
    ------
    FieldError
        With the name of what does not fit.
    """
    for group in field.groups:
        _check_attributes(group.attrs, group.path)
        for v in group.variables:
            _check_attributes(v.attrs, v.path)
            if any(a.name in STRUCTURE for a in v.attrs):
                raise FieldError(f"{v.path}: an attribute has a name that HDF5 reserves: {', '.join(STRUCTURE)}")
            if "/" in v.name or v.name in ("", "."):
                raise FieldError(f"{v.path}: HDF5 does not allow the name {v.name!r}")
            if v.dtype.kind not in "biufcSO":
                raise FieldError(f"{v.path}: HDF5 cannot hold {v.kind} values of type {v.dtype}")


def _check_attributes(attrs: tuple[Attribute, ...], where: str) -> None:
    refuse_marker(attrs, where)
    for a in attrs:
        if isinstance(a.value, list) and any("\0" in s for s in a.value):
            raise FieldError(f"{where or 'root'}: attribute {a.name!r}: HDF5 strings cannot hold NUL")


class Hdf5Target:
    """Writes boxes into an HDF5 file."""

    def __init__(self, path: Path, field: Field) -> None:
        import h5py

        # Names of another format's dimensions become labels; phony names of an HDF5 source stay unwritten.
        self._own = field.format == "hdf5"
        self._field = field
        with LIBRARY_LOCK:
            self._file: Any = h5py.File(path, "x", track_order=True)
            for group in field.groups:
                self._define(group)
            if self._own:
                self._attach()

    def _define(self, group: Group) -> None:
        node = self._file.create_group(group.path, track_order=True) if group.path else self._file
        dims = self._field.dims_of(group.path)
        for v in group.variables:
            self._create(node, v, dims)
        doc = group_marker(group, self._parents(group), grown=_grown(group) if self._own else frozenset())
        if self._field.extra.get(PY_ATTRS, {}).get(group.path):
            doc[PY_ATTRS] = self._field.extra[PY_ATTRS][group.path]
        _put_attributes(node, group.attrs, doc)

    def _parents(self, group: Group) -> dict[str, Dimension]:
        return self._field.dims_of(group.path.rpartition("/")[0]) if group.path else {}

    def _create(self, node: Any, v: Variable, dims: dict[str, Dimension]) -> None:
        import h5py

        options = _options(v, tuple(None if dims[d].unlimited else dims[d].size for d in v.dims) if v.dims else ())
        dtype: Any = v.dtype
        charset = v.hints.get("charset")
        if v.kind == "string":
            dtype = h5py.string_dtype("ascii" if charset == "ascii" else "utf-8")
        elif v.dtype.kind == "S" and charset == "utf-8":
            dtype = h5py.string_dtype("utf-8", v.dtype.itemsize)
        made = node.create_dataset(v.name, shape=v.shape, dtype=dtype, track_order=True, **options)
        axes = v.hints.get("axes") if self._own else [{"label": d} for d in v.dims]
        for i, axis in enumerate(axes or ()):
            if axis.get("label"):
                made.dims[i].label = axis["label"]
        doc = {k: v.hints[k] for k in (PY_ATTRS, "stored_dtype") if v.hints.get(k)}
        _put_attributes(made, v.attrs, doc)

    def _attach(self) -> None:
        for v in self._field.variables():
            if "scale" in v.hints:
                self._file[v.path].make_scale(v.hints["scale"])
        for v in self._field.variables():
            for i, axis in enumerate(v.hints.get("axes") or ()):
                for scale in axis.get("scales", ()):
                    if scale in self._file:
                        self._file[v.path].dims[i].attach_scale(self._file[scale])

    def chunk(self, variable: Variable) -> tuple[int, ...] | None:
        """Give the storage chunk of a variable."""
        with LIBRARY_LOCK:
            chunks = self._file[variable.path].chunks
        return None if chunks is None else tuple(chunks)

    def write(self, variable: Variable, box: Box, array: Array) -> None:
        """Put one box.

        Raises
        ------
        FieldError
            For a string that HDF5 would cut.
        """
        if not array.size:
            return
        if variable.kind == "string":
            # As bytes, for h5py encodes text of an ASCII set strictly.
            raw = [s.encode("utf-8", "surrogateescape") for s in array.flat]
            if any(b"\0" in b for b in raw):
                raise FieldError(f"{variable.path}: HDF5 strings cannot hold NUL")
            array = np.array(raw, object).reshape(array.shape)
        with LIBRARY_LOCK:
            dataset = self._file[variable.path]
            try:
                dataset[box or ()] = array if array.ndim else array.item()
                # What fails as late as when the dataset is closed is not raised.
                dataset.flush()
            except BaseException:
                self._drain()
                raise

    def finish(self) -> None:
        """Close the file."""
        with LIBRARY_LOCK:
            # What fails here leaves the file open, so that it can be discarded.
            self._file.flush()
            self._file.close()
            self._file = None

    def leave(self) -> None:
        """Close the file."""
        self.finish()

    def discard(self) -> None:
        """Close the file, which nobody wants any more."""
        if self._file is not None:
            with LIBRARY_LOCK:
                self._drain()
                f, self._file = self._file, None
                f.close()

    def _drain(self) -> None:
        """Give the library a place that takes everything.

        What it could not write it writes again when objects are closed and when the process ends, and then crashes.
        """
        drain = os.open(os.devnull, os.O_RDWR)
        try:
            os.dup2(drain, self._file.id.get_vfd_handle())
        finally:
            os.close(drain)


def _grown(group: Group) -> frozenset[str]:
    """Give the dimensions that a reader takes for unlimited because a dataset may grow along them."""
    found = set()
    for v in group.variables:
        limits = v.hints.get("maxshape") or v.shape
        found |= {name for name, limit in zip(v.dims, limits, strict=True) if limit is None}
    return frozenset(found)


def _options(v: Variable, limits: tuple[int | None, ...]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    hints = v.hints
    if not v.shape:
        return out
    maxshape = hints.get("maxshape")
    if (
        maxshape
        and len(maxshape) == len(v.shape)
        and all(m is None or m >= n for m, n in zip(maxshape, v.shape, strict=True))
    ):
        out["maxshape"] = tuple(maxshape)
    elif None in limits:
        out["maxshape"] = limits
    chunks = hints.get("chunks")
    if isinstance(chunks, list) and len(chunks) == len(v.shape) and all(c > 0 for c in chunks):
        limit = out.get("maxshape", v.shape)
        fits = all(m is None or c <= m for c, m in zip(chunks, limit, strict=True))
        out["chunks"] = tuple(chunks) if fits else True
    packed = hints.get("compression") or ("gzip" if hints.get("zlib") else None)
    chunked = "chunks" in out or "maxshape" in out
    if chunked and 0 not in v.shape:
        if packed:
            out["compression"] = packed
            if packed == "gzip":
                out["compression_opts"] = int(hints.get("complevel", 4))
        out |= {k: True for k in ("shuffle", "fletcher32") if hints.get(k)}
    if hints.get("h5_fill"):
        fill = np.asarray(Attribute.from_json(hints["h5_fill"]).value)
        if fill.dtype.newbyteorder("=") == v.dtype.newbyteorder("="):
            out["fillvalue"] = fill[()]
    return out


def _put_attributes(node: Any, attrs: tuple[Attribute, ...], doc: dict[str, Any]) -> None:
    import h5py

    for a in attrs:
        v = a.value
        if isinstance(v, list):
            data: Any = np.array(v, object)
            node.attrs.create(a.name, data if v else h5py.Empty(h5py.string_dtype()), dtype=h5py.string_dtype())
        elif isinstance(v, str):
            if "\0" in v:
                # HDF5 ends such a text at its NUL: readers see the head, hbae the whole.
                doc.setdefault("attrs", {})[a.name] = a.to_json()
            node.attrs.create(a.name, v.partition("\0")[0], dtype=h5py.string_dtype())
        elif isinstance(v, bytes):
            node.attrs.create(a.name, np.array(v, f"S{max(len(v), 1)}"), dtype=f"S{max(len(v), 1)}")
        elif v.size == 0:
            node.attrs[a.name] = h5py.Empty(v.dtype)
        else:
            node.attrs.create(a.name, v, shape=v.shape, dtype=v.dtype)
    if doc:
        node.attrs[MARKER] = json.dumps(doc, sort_keys=True)
