# SPDX-License-Identifier: MIT
"""An archive as a lazy field: every variable a source that decodes only the chunks a box needs."""

from __future__ import annotations

import hashlib
import math
import os
import sys
import threading
from collections import OrderedDict
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from threadpoolctl import ThreadpoolController

from hbae.arrays import Array, Box, Field, Tiling, Variable, box_shape
from hbae.container import MAX_CHUNKS, ArchiveReader, decode_decoder, read_section
from hbae.errors import ChecksumError, FormatError, ModelMismatchError
from hbae.exact import Backend, BlockDecoder, get_backend
from hbae.pipeline.chunk import decode_chunk
from hbae.pipeline.exactvars import decode_exact_chunk, decode_small, is_small, split_small
from hbae.pipeline.plan import GroupPlan, decode_plan

_LEAST_CACHE = 256 << 20
MODEL_PATH = "HBAE_MODEL_PATH"


@dataclass(frozen=True)
class Part:
    """A run of chunks that belongs to a group (``plan`` set) or to one lossless variable (``variable`` set)."""

    first: int
    boxes: Tiling
    paths: tuple[str, ...]
    group: int | None = None


class Archive:
    """Promises values that have passed every checksum, decoded chunk by chunk; safe to use from several threads.

    Parameters
    ----------
    path : path
        The archive.
    salvage : bool
        Go on where index or header are damaged, as far as copies and frames allow.
    backend : str
        ``auto``, ``numpy``, ``cpu`` or ``cuda`` (or ``cuda:1``, ...); the values are the same.
    model : path, optional
        MODEL file for an archive whose model is not embedded.

    Raises
    ------
    FormatError
        When the file is damaged or hostile.
    ConfigError
        When the device is not there.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, salvage: bool = False, backend: str = "auto", model: Path | None = None
    ) -> None:
        self.path, self._backend_name, self._model, self._salvage = Path(path), backend, model, salvage
        if backend.startswith("cuda"):
            get_backend(backend)
        self._connect()

    def _connect(self) -> None:
        self.reader = ArchiveReader(self.path, salvage=self._salvage)
        try:
            self._cache: OrderedDict[int | str, list[Array]] = OrderedDict()
            self._cached, self._most = 0, _cache_bytes()
            self._lock = threading.RLock()
            self._decoders: dict[str, BlockDecoder] = {}
            self._plans: dict[int, GroupPlan] = {}
            self._backends: dict[str, Backend] = {}
            self._small: dict[str, bytes] | None = None
            self._bare = Field.from_json(self.reader.header.get("field", {}))
            self._variables = {v.path: v for v in self._bare.variables()}
            self._check_variables()
            self.parts = self._read_parts()
        except BaseException:
            self.reader.close()
            raise
        owners: dict[str, Any] = {}
        for part in self.parts:
            for i, p in enumerate(part.paths):
                owners[p] = ChunkSource(self, self._variables[p], part, i)
        for v in self._variables.values():
            owners.setdefault(v.path, SmallSource(self, v))
        self.field = self._bare.with_sources(owners)

    def __getstate__(self) -> tuple[Any, ...]:
        return self.path, self._backend_name, self._model, self._salvage

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.path, self._backend_name, self._model, self._salvage = state
        self._connect()

    def _check_variables(self) -> None:
        if len(self._variables) != sum(len(g.variables) for g in self._bare.groups):
            raise FormatError("header: two variables have one name")
        for v in self._variables.values():
            if len(v.shape) > 32 or any(n < 0 for n in v.shape) or len(v.dims) != len(v.shape):
                raise FormatError(f"variable {v.path}: impossible shape")

    def _read_parts(self) -> list[Part]:
        parts, at = [], 0
        try:
            for i, g in enumerate(self.reader.header["groups"]):
                paths = tuple(str(p) for p in g["vars"])
                shape = self._variables[paths[0]].shape
                if any(self._variables[p].shape != shape for p in paths):
                    raise FormatError("a group's variables have different shapes")
                boxes = self._boxes(shape, g["chunk"], at)
                parts.append(Part(at, boxes, paths, i))
                at += len(boxes)
            for path, step in self.reader.header["exact"]:
                boxes = self._boxes(self._variables[path].shape, step, at)
                parts.append(Part(at, boxes, (str(path),)))
                at += len(boxes)
        except (KeyError, TypeError, ValueError, IndexError, OverflowError) as e:
            if isinstance(e, FormatError):
                raise
            raise FormatError(f"header is malformed: {e!r}") from e
        owned = [p for part in parts for p in part.paths]
        if len(set(owned)) != len(owned):
            raise FormatError("header: a variable lies in two places")
        if at != self.reader.num_chunks and not self._salvage:
            raise FormatError(f"the header needs {at} chunks, the index has {self.reader.num_chunks}")
        return parts

    def _boxes(self, shape: tuple[int, ...], step: list[int], at: int) -> Tiling:
        if len(step) != len(shape) or any(int(s) < 1 for s in step):
            raise FormatError("header: chunk shape does not fit its variable")
        boxes = Tiling(shape, tuple(int(s) for s in step))
        if math.prod(boxes.counts) + at > (MAX_CHUNKS if self._salvage else self.reader.num_chunks):
            raise FormatError("header: more chunks than the index has")
        return boxes

    def plan(self, group: int) -> GroupPlan:
        """Give a group's plan (read once)."""
        with self._lock:
            if group not in self._plans:
                plan = decode_plan(self.reader.section(f"group {group}"), self._find_model)
                part = next(p for p in self.parts if p.group == group)
                same_type = all(self._variables[p].dtype == plan.dtype for p in part.paths)
                same_grid = Tiling(plan.geometry.shape, plan.geometry.chunk) == part.boxes
                if plan.paths != part.paths or not same_grid or not same_type:
                    raise FormatError(f"group {group}: its section does not fit the header")
                self._plans[group] = plan
            return self._plans[group]

    def work_on(self, backend: str) -> None:
        """Decode by another backend from now on."""
        self._backend_name = backend

    def _backend_for(self, plan: GroupPlan) -> Backend:
        """Where none is asked for, torch only for plans with a model: for the others it is no faster."""
        name = "numpy" if self._backend_name == "auto" and plan.decoder is None else self._backend_name
        with self._lock:
            if name not in self._backends:
                self._backends[name] = get_backend(name)
            return self._backends[name]

    def _find_model(self, sha: str) -> BlockDecoder:
        if sha not in self._decoders:
            name = f"model {sha[:16]}"
            if self.reader.has_section(name):
                data = self.reader.section(name)
                if hashlib.sha256(data).hexdigest() != sha:
                    raise ChecksumError("the embedded model is not the one that the group names")
            else:
                data = find_shared_model(sha, self._model, self.path.parent)
            self._decoders[sha] = decode_decoder(data)
        return self._decoders[sha]

    def chunk(self, part: Part, index: int, *, keep: bool = True) -> list[Array]:
        """Decode one chunk, giving an array per variable of the part.

        Raises
        ------
        FormatError
            When the chunk is damaged; the message names it and its variables.
        """
        number = part.first + index
        with self._lock:
            if number in self._cache:
                self._cache.move_to_end(number)
                return self._cache[number]
        box, what = part.boxes[index], f"chunk {number} ({part.paths[0]}{', ...' if len(part.paths) > 1 else ''})"
        try:
            payload = self.reader.chunk(number)
        except FormatError as e:
            e.args = (f"{e} (holds {', '.join(part.paths[:5])}{', ...' if len(part.paths) > 5 else ''})",)
            raise
        if part.group is None:
            arrays = [decode_exact_chunk(payload, self._variables[part.paths[0]], box, what)]
        else:
            plan = self.plan(part.group)
            backend = self._backend_for(plan)
            # Threads inside a product of thin matrices wait for each other more than they work.
            with _libraries("torch" in sys.modules).limit(limits=1):
                values = decode_chunk(payload, plan, box_shape(box), backend, what)
            # What a device writes to cannot be swapped out: it is not for keeping.
            arrays = list(values.copy() if keep and backend.on_device else values)
        if keep:
            self._keep(number, arrays)
        return arrays

    def _keep(self, key: int | str, arrays: list[Array]) -> None:
        with self._lock:
            if key in self._cache:
                return
            self._cache[key] = arrays
            self._cached += sum(a.nbytes for a in arrays)
            while self._cached > self._most and len(self._cache) > 1:
                self._cached -= sum(a.nbytes for a in self._cache.popitem(last=False)[1])

    def know_model(self, sha: str, decoder: BlockDecoder) -> None:
        """Use this decoder where a group names that SHA-256."""
        self._decoders[sha] = decoder

    def small_variables(self) -> list[Variable]:
        """Give the variables of the common section, in its order."""
        chunked = {p for part in self.parts for p in part.paths}
        return [v for v in self._variables.values() if v.path not in chunked]

    def small(self, path: str) -> Array:
        """Decode a variable of the common section.

        Raises
        ------
        FormatError
            When it or the section is damaged.
        """
        with self._lock:
            if path in self._cache:
                self._cache.move_to_end(path)
                return self._cache[path][0]
            if self._small is None:
                rest = self.small_variables()
                if any(not is_small(v) for v in rest):
                    raise FormatError("a large variable has no chunks")
                self._small = split_small(self.reader.section("values"), rest)
            values = decode_small(self._small[path], self._variables[path])
            self._keep(path, [values])
            return values

    def close(self) -> None:
        """Close the file."""
        self.reader.close()

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


@dataclass(frozen=True)
class _ArchiveSource:
    """What the sources of an archive's variables have in common."""

    archive: Archive
    variable: Variable

    @property
    def shape(self) -> tuple[int, ...]:
        return self.variable.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.variable.dtype

    @property
    def storage(self) -> tuple[int, ...] | None:
        return None


@dataclass(frozen=True)
class ChunkSource(_ArchiveSource):
    """A variable that lies in chunks."""

    part: Part
    place: int

    @property
    def storage(self) -> tuple[int, ...] | None:
        return box_shape(self.part.boxes[0]) if len(self.part.boxes) else None

    def read(self, box: Box) -> Array:
        out = np.empty(box_shape(box), self.dtype)
        for i in self.part.boxes.meeting(box):
            mine = self.part.boxes[i]
            cut = [slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(mine, box, strict=True)]
            values = self.archive.chunk(self.part, i)[self.place]
            src = tuple(slice(c.start - m.start, c.stop - m.start) for c, m in zip(cut, mine, strict=True))
            dst = tuple(slice(c.start - b.start, c.stop - b.start) for c, b in zip(cut, box, strict=True))
            out[dst] = values[src]
        return out


@dataclass(frozen=True)
class SmallSource(_ArchiveSource):
    """A variable of the common section."""

    def read(self, box: Box) -> Array:
        # The ellipsis keeps an array (with its byte order) where a scalar would come out.
        key: Any = (*box, ...)
        out: Array = self.archive.small(self.variable.path)[key].copy()
        return out


def _cache_bytes() -> int:
    """How much of decoded chunks is kept: an eighth of the memory, as a chunk's variables are read one by one."""
    try:
        return max(_LEAST_CACHE, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 8)
    except (AttributeError, ValueError, OSError):
        return _LEAST_CACHE


@lru_cache(maxsize=2)
def _libraries(with_torch: bool) -> ThreadpoolController:
    """Find the libraries for arithmetic once, and again when torch has brought its own."""
    return ThreadpoolController()


def find_shared_model(sha: str, given: Path | None, folder: Path) -> bytes:
    """Give the decoder section with that SHA-256: argument, ``HBAE_MODEL_PATH``, the file's folder, the cache.

    Raises
    ------
    ModelMismatchError
        When no file there carries it; the message lists where was looked.
    """
    places = [given] if given is not None else []
    places += [Path(p) for p in os.environ.get(MODEL_PATH, "").split(os.pathsep) if p]
    places += [folder, Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "hbae"]
    for place in places:
        for file in sorted(place.glob("*.hbm")) if place.is_dir() else [place]:
            try:
                section = read_section(file) if file.is_file() else b""
            except (FormatError, OSError):
                continue
            if hashlib.sha256(section).hexdigest() == sha:
                return section
    looked = ", ".join(str(p) for p in places)
    raise ModelMismatchError(f"the archive needs the shared model {sha[:16]}...; looked in {looked}")
