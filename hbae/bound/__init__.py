# SPDX-License-Identifier: MIT
"""Makes the bounds true: targets, norms, the residual correctors' choices, verification."""

from hbae.bound.check import ChunkErrors, block_limits, check_chunk, failing_points
from hbae.bound.fit import fit_transform, klt_basis, precise, refit_variables
from hbae.bound.gae import select_coefficients
from hbae.bound.norms import Totals, VariableErrors
from hbae.bound.quantise import ROUNDING, dead_zone
from hbae.bound.rotate import SWEEPS, carried, rotated
from hbae.bound.targets import Region, Target, resolve_target

__all__ = [
    "ROUNDING",
    "SWEEPS",
    "ChunkErrors",
    "Region",
    "Target",
    "Totals",
    "VariableErrors",
    "block_limits",
    "carried",
    "check_chunk",
    "dead_zone",
    "failing_points",
    "fit_transform",
    "klt_basis",
    "precise",
    "refit_variables",
    "resolve_target",
    "rotated",
    "select_coefficients",
]
