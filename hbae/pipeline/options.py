# SPDX-License-Identifier: MIT
"""Options of compress, checked."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hbae.config import METHODS, Budget, parse_size
from hbae.errors import ConfigError

Progress = Callable[[str, float], None]


@dataclass(frozen=True, kw_only=True)
class CompressOptions:
    """How to compress; see the command line's help for each.

    ``fast``: only plans that are quick to decode. ``like``: an archive whose plans are taken where they suit, so that
    they need not be chosen.
    ``variables``: globs that limit what is lossy. ``model``: a MODEL file. ``budget``: train within it. ``ranges``:
    the range (low, high) by variable, for range kinds and streams. ``chunk``: MiB decoded. ``scratch``: folder for a
    scratch file. ``size``: the whole file takes at most so many bytes (``20MB``, ``1.5MiB``). ``cr``: raw bytes of the
    lossy variables over the whole file are at least that.

    Raises
    ------
    ConfigError
        When an option makes no sense; the message names it.
    """

    variables: tuple[str, ...] = ()
    model: str | os.PathLike[str] | None = None
    budget: str | Budget | None = None
    method: str = "auto"
    preset: str = "auto"
    device: str = "cpu"
    threads: int | None = None
    seed: int = 0
    block: tuple[int, ...] | None = None
    chunk: float = 32.0
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    embed: bool = True
    redundant: bool = False
    fast: bool = False
    like: str | os.PathLike[str] | None = None
    overwrite: bool = False
    scratch: str | os.PathLike[str] | None = None
    progress: Progress | None = None
    size: str | float | None = None
    cr: float | None = None

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ConfigError(f"method: unknown {self.method!r}; known: {', '.join(METHODS)}")
        if self.model is not None and self.budget is not None:
            raise ConfigError("model and budget exclude each other: a given model is not trained")
        if self.method in ("linear", "lossless") and (self.model is not None or self.budget is not None):
            raise ConfigError(f"method={self.method} uses no model: leave model and budget out")
        if self.like is not None and (self.method in ("hbae", "lossless") or self.model or self.budget is not None):
            raise ConfigError("like: not together with model, budget, method=hbae or method=lossless")
        if not (math.isfinite(self.chunk) and 0.0625 <= self.chunk <= 128):
            raise ConfigError("chunk: must be between 0.0625 and 128 MiB")
        if self.threads is not None and self.threads < 1:
            raise ConfigError("threads: must be at least 1")
        for name, (low, high) in self.ranges.items():
            if not (math.isfinite(low) and math.isfinite(high) and high > low):
                raise ConfigError(f"range {name}: needs low < high, both finite")
        if self.scratch is not None and not Path(self.scratch).is_dir():
            raise ConfigError(f"scratch: {self.scratch} is no folder")

        if self.size is not None:
            if self.cr is not None:
                raise ConfigError("size and cr exclude each other")
            parse_size(self.size)
        if self.cr is not None and not (math.isfinite(self.cr) and self.cr > 0):
            raise ConfigError("cr: must be positive and finite")

    @property
    def by_size(self) -> bool:
        """Tell whether a size or a ratio is asked for."""
        return self.size is not None or self.cr is not None

    def backend(self, *, model: bool) -> str:
        """Name what works on chunks: a device that is asked for, torch for a model, else NumPy."""
        return self.device if model or self.device != "cpu" else "numpy"

    def most_bytes(self, raw: int) -> int | None:
        """Give the largest length of the file, where one is asked for; ``raw``: bytes of the lossy variables."""
        if self.cr is not None:
            most = int(raw / self.cr)
            # The quotient may have been rounded up.
            return most - 1 if most and raw / most < self.cr else most
        return None if self.size is None else parse_size(self.size)

    @property
    def parsed_budget(self) -> Budget | None:
        """The budget, read from text where needed."""
        return Budget.parse(self.budget) if isinstance(self.budget, str) else self.budget

    def tell(self, stage: str, fraction: float) -> None:
        """Report progress, if anybody listens."""
        if self.progress is not None:
            self.progress(stage, fraction)
