# SPDX-License-Identifier: MIT
"""Rows of the report: what every lossy variable was asked for, and what came out."""

from __future__ import annotations

from collections.abc import Iterable

from hbae.bound import Totals
from hbae.pipeline.groups import LossyVariable
from hbae.pipeline.report import VariableReport


def variable_reports(
    coded: Iterable[tuple[LossyVariable, Totals, str]], lossy: Iterable[LossyVariable]
) -> tuple[VariableReport, ...]:
    """Give a row for each variable, in the order of ``lossy``; ``coded``: those with errors, and the plan's name."""
    rows = {
        m.variable.path: VariableReport(
            path=m.variable.path,
            bounds=tuple(str(b) for b in m.bounds),
            method=name,
            span=m.target.span,
            nrmse=t.nrmse,
            psnr=t.psnr,
            max_error=t.max_error,
        )
        for m, t, name in coded
    }
    return tuple(rows[m.variable.path] if m.variable.path in rows else _kept(m) for m in lossy)


def _kept(m: LossyVariable) -> VariableReport:
    return VariableReport(
        path=m.variable.path,
        bounds=tuple(str(b) for b in m.bounds),
        method="lossless",
        span=m.target.span,
        nrmse=0.0,
        psnr=float("inf"),
        max_error=0.0,
        note=m.reason,
    )


def sentinel_notes(lossy: Iterable[LossyVariable]) -> tuple[str, ...]:
    """Name the fill values that were found in the data."""
    return tuple(
        f"{m.variable.path}: {v:g} repeats at an extreme and is kept as a fill value"
        for m in lossy
        for v in m.stats.sentinels
    )
