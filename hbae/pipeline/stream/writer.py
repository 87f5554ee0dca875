# SPDX-License-Identifier: MIT
"""The writer that a running simulation appends its steps to."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from hbae.arrays import Array, Tiling
from hbae.blocks import MAX_RANK
from hbae.config import BoundLike, parse_rules
from hbae.container import MAX_CHUNKS
from hbae.errors import ConfigError, FieldError, OutputExistsError
from hbae.pipeline.exactvars import chunk_step
from hbae.pipeline.groups import lossy_bounds
from hbae.pipeline.inputs import Inputs
from hbae.pipeline.learn import GroupModel, prepare_model
from hbae.pipeline.options import CompressOptions
from hbae.pipeline.stream.coder import Coder, blank_member, can_lose
from hbae.pipeline.stream.finish import StreamReport, growing_paths, remove_growing, write_archive
from hbae.pipeline.stream.journal import Journal
from hbae.pipeline.stream.layout import Layout, read_step, step_number
from hbae.pipeline.stream.part import PartFile
from hbae.pipeline.stream.shapes import slab_steps
from hbae.pipeline.stream.state import encode_fixed, encode_group, encode_header

_OPTIONS = ("preset", "block", "chunk", "seed", "redundant", "device", "fast")


class StreamWriter:
    """Promises that a step whose :meth:`append` returned is in the archive, after :meth:`close` or ``hbae repair``.

    Parameters
    ----------
    path : path
        The archive, ``.hbae``; it appears when the stream is closed. Until then ``path.part`` and
        ``path.part.journal`` grow.
    bound : str, ErrorBound, mapping or list of those
        As in :func:`hbae.compress`. ``nrmse`` and ``psnr`` hold for every chunk.
    range : mapping, optional
        (low, high) by variable; bounds of the kinds nrmse, psnr, rel_range and block_nrmse need it.
    model : path, optional
        MODEL file for variables that it names.
    steps : int, optional
        Steps that are coded together; so many wait in memory and in the journal.
    dims, attrs : mapping, optional
        Names of dimensions and attributes by variable, where steps are arrays; ``attrs[""]`` is of the whole.
    variables : iterable of str
        Variables that may be lossy, by name or glob; all floating-point ones by default.
    overwrite : bool
        Replace ``path`` when it exists. ``path.part`` is never replaced.
    **options
        ``preset``, ``block``, ``chunk``, ``seed``, ``redundant``, ``device``, ``fast`` as in :func:`hbae.compress`.

    Raises
    ------
    OutputExistsError
        When ``path`` exists, or what is left of another stream: use ``hbae repair``.
    ConfigError
        When an option makes no sense.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        bound: BoundLike,
        *,
        range: Mapping[str, tuple[float, float]] | None = None,
        model: str | os.PathLike[str] | None = None,
        steps: int | None = None,
        dims: Mapping[str, tuple[str, ...]] | None = None,
        attrs: Mapping[str, Mapping[str, Any]] | None = None,
        variables: tuple[str, ...] = (),
        overwrite: bool = False,
        **options: Any,
    ) -> None:
        if unknown := options.keys() - set(_OPTIONS):
            raise ConfigError(f"{sorted(unknown)[0]}: a stream has no such option")
        method = "linear" if model is None else "auto"
        self._options = CompressOptions(
            variables=tuple(variables),
            ranges=dict(range or {}),
            model=model,
            method=method,
            overwrite=overwrite,
            threads=1,
            **options,
        )
        self._rules, self._asked = parse_rules(bound), steps
        self._dims, self._attrs = dict(dims or {}), dict(attrs or {})
        self.path = Path(path)
        self._part_path, self._journal_path = growing_paths(path)
        if not self.path.absolute().parent.is_dir():
            raise FieldError(f"{path}: there is no such folder")
        self._check_free()
        self._coder: Coder | None = None
        self._part: PartFile | None = None
        self._journal: Journal | None = None
        self._section = b""
        self._numbers: list[Array] = []
        self._last: Array | None = None
        self._slab: dict[str, Array] = {}
        self._written: set[int] = set()
        self._closed, self._over = False, ""

    def _check_free(self) -> None:
        if self.path.exists() and not self._options.overwrite:
            raise OutputExistsError(f"{self.path} exists; use overwrite=True to replace it")
        if self._part_path.exists():
            raise OutputExistsError(f"{self._part_path} exists: run 'hbae repair {self._part_path}', or remove it")

    def append(self, step: float, fields: Any) -> None:
        """Add one step; when this returns, the step is on the disk.

        Parameters
        ----------
        step : int or float
            Becomes the coordinate ``time``, exactly; above that of the step before.
        fields : mapping of arrays, or xarray.Dataset
            The same names, types, shapes and attributes in every step.

        Raises
        ------
        FieldError, ConfigError, UnknownNameError, ModelMismatchError
            When something does not fit; nothing was written and the stream goes on.
        OSError
            When the disk fails; what was appended before stays, for ``hbae repair``.
        """
        self._check_open()
        number = step_number(step, self._last, self._coder.layout.step if self._coder else None)
        layout, values = read_step(fields, number.dtype, self._dims, self._attrs)
        if self._coder is None:
            self._begin(layout)
        else:
            self._coder.layout.check(layout)
            if not self._numbers and self._part is not None:
                _check_chunks(self._coder, len(self._part.slabs) + 1)
        self._store(number, values)

    def _check_open(self) -> None:
        if self._over:
            raise FieldError(f"{self.path}: {self._over}")

    def _begin(self, layout: Layout) -> None:
        """Fix what all steps have in common, and begin the growing file and the journal."""
        one = layout.field(np.zeros(1, layout.step), {})
        for v in one.variables():
            if len(v.shape) > MAX_RANK:
                raise FieldError(f"variable {v.path}: {len(v.shape)} axes, the format holds {MAX_RANK}")
        asked = lossy_bounds(one, self._rules, self._options.variables)
        wanted = {p: b for p, b in asked.items() if can_lose(one.variable(p))}
        model = self._load(layout, wanted)
        steps = slab_steps(layout.nbytes, model.geometry.extent[0] if model else 1, self._options, self._asked)
        coder = Coder(layout, steps, wanted, self._options, model)
        _check_chunks(coder, 1)
        self._check_free()
        self._section = model.section if model else b""
        header, identity = encode_header(coder)
        self._over = "the stream could not be begun"
        try:
            self._part = PartFile(self._part_path)
        except FileExistsError:
            raise OutputExistsError(f"{self._part_path} appeared in the meantime; nothing was replaced") from None
        try:
            self._journal = Journal(self._journal_path, identity)
            self._part.begin(header, [*encode_fixed(layout), ("model", self._section)])
        except BaseException:
            self.leave()
            remove_growing(self._part_path, self._journal_path)
            raise
        self._over = ""
        self._coder = coder
        self._slab = {v.path: np.empty((steps, *v.shape), v.dtype) for v in layout.moving}

    def _load(self, layout: Layout, wanted: Mapping[str, Any]) -> GroupModel | None:
        if self._options.model is None:
            return None
        # The model tells how many steps its hyper-blocks cover; more than that are not needed to ask it.
        field = layout.field(np.zeros(1 << 10, layout.step), {})
        members = [blank_member(field.variable(p), b, self._options) for p, b in wanted.items()]
        return prepare_model(members, Inputs((), self._options), self._options)

    def _store(self, number: Array, values: Mapping[str, Array]) -> None:
        coder, journal = self._coder, self._journal
        if coder is None or journal is None:
            return
        self._over = f"an append failed; run 'hbae repair {self._part_path}' for what was stored before"
        journal.append(coder.layout.pack(number, values))
        for name, a in values.items():
            self._slab[name][len(self._numbers)] = a
        self._numbers.append(number)
        self._last = number
        if len(self._numbers) == coder.steps:
            self._flush(coder, journal)
        self._over = ""

    def _flush(self, coder: Coder, journal: Journal) -> None:
        """Code a whole slab; only when it is on the disk does the journal forget its steps."""
        part = self._part
        if part is None:
            return
        steps = np.array(self._numbers)
        with threadpool_limits(1):
            payloads = coder.encode(steps, self._slab)
            for payload in payloads:
                part.add_chunk(payload)
        for i, g in enumerate(coder.groups):
            if i not in self._written and (g.plan is not None or not part.slabs):
                part.add_section(f"group {i}", encode_group(g))
                if g.plan is not None or g.geometry is None:
                    self._written.add(i)
        part.close_slab(steps.tobytes())
        journal.restart(len(part.slabs) * coder.steps)
        self._numbers = []

    def close(self) -> StreamReport:
        """Write the archive, read it back, give it its name and remove what grew.

        Raises
        ------
        FieldError
            When there is no step.
        OutputExistsError
            When another file has taken the name; ``hbae repair`` writes under another one.
        """
        self._check_open()
        coder, part, journal = self._coder, self._part, self._journal
        if coder is None or part is None or journal is None:
            self._closed, self._over = True, "the stream is closed"
            raise FieldError(f"{self.path}: no step was appended; nothing is written")
        self._over = f"closing failed; run 'hbae repair {self._part_path}'"
        part.close()
        journal.close()
        n = len(self._numbers)
        if not part.slabs:
            coder = Coder(coder.layout, n, coder.wanted, coder.options, coder.model, only=True)
        tail = np.array(self._numbers, coder.layout.step), {p: a[:n] for p, a in self._slab.items()}
        with threadpool_limits(1):
            report = write_archive(self.path, coder, self._part_path, part.slabs, tail, section=self._section)
        remove_growing(self._part_path, self._journal_path)
        self._slab, self._closed, self._over = {}, True, "the stream is closed"
        return report

    def leave(self) -> None:
        """Close the files and write no archive: ``hbae repair`` can do so later."""
        self._over = self._over or f"the stream was left; run 'hbae repair {self._part_path}'"
        for file in (self._part, self._journal):
            if file is not None:
                file.close()

    def __enter__(self) -> StreamWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if kind is None and not self._closed:
            self.close()
        else:
            self.leave()


def _check_chunks(coder: Coder, slabs: int) -> None:
    """Refuse a slab with which the archive might hold too many chunks, whichever variables stay lossless."""
    field = coder.layout.field(np.empty(slabs * coder.steps, coder.layout.step), {})
    lossless = [field.variable(v.path) for v in coder.layout.moving]
    count = sum(len(Tiling(v.shape, chunk_step(v))) for v in lossless)
    if slabs * coder.num_chunks(coder.steps) + count > MAX_CHUNKS:
        raise ConfigError(f"chunk: more than the {MAX_CHUNKS} chunks that an archive holds; give larger ones")
