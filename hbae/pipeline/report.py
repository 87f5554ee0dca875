# SPDX-License-Identifier: MIT
"""What a run did, as numbers: the same for people and for machines."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class VariableReport:
    """One variable: its bounds, errors on decoded values, and how it was coded.

    ``nrmse`` is over ``span``; ``note`` says why a variable asked to be lossy was kept without loss.
    """

    path: str
    bounds: tuple[str, ...]
    method: str
    span: float
    nrmse: float
    psnr: float
    max_error: float
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Report:
    """One archive. ``size`` is ``len(file)``; ``cr`` = raw bytes of the lossy variables over ``size``.

    ``model_size``: bytes of the model inside ``size``, or of the shared model outside (``model_shared``).
    ``most_bytes``: the size that was asked for, if one was.
    """

    path: str
    size: int
    raw_bytes: int
    lossy_values: int
    variables: tuple[VariableReport, ...]
    sizes: dict[str, int]
    seconds: dict[str, float] = field(default_factory=dict)
    model_size: int = 0
    model_shared: bool = False
    notes: tuple[str, ...] = ()
    most_bytes: int | None = None

    @property
    def cr(self) -> float:
        """Compression ratio, whole file counted."""
        return self.raw_bytes / self.size

    @property
    def bits_per_value(self) -> float:
        """File bits per lossy value."""
        return 8 * self.size / self.lossy_values if self.lossy_values else math.nan

    @property
    def mean_nrmse(self) -> float:
        """Mean NRMSE over the lossy variables that have a range."""
        known = [v.nrmse for v in self.variables if v.span > 0 and not v.note]
        return sum(known) / len(known) if known else 0.0

    @property
    def max_nrmse(self) -> float:
        """Largest NRMSE of a variable."""
        return max((v.nrmse for v in self.variables if v.span > 0), default=0.0)

    def to_json(self) -> dict[str, Any]:
        """Give everything as JSON values (infinite and missing numbers as None)."""
        doc = asdict(self)
        doc |= {
            "cr": self.cr,
            "bits_per_value": self.bits_per_value,
            "mean_nrmse": self.mean_nrmse,
            "max_nrmse": self.max_nrmse,
        }
        return dict(_plain(doc))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
