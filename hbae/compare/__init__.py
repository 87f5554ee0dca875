# SPDX-License-Identifier: MIT
"""Other compressors as rivals on equal terms: each tuned to the error that it achieves."""

from hbae.compare.load import read_variable
from hbae.compare.metrics import Errors, measure
from hbae.compare.rivals import RIVALS, SZ3, ZFP, Encoded, Rival, Sperr
from hbae.compare.tune import Row, Tuned, compare_variables, tune

__all__ = [
    "RIVALS",
    "SZ3",
    "ZFP",
    "Encoded",
    "Errors",
    "Rival",
    "Row",
    "Sperr",
    "Tuned",
    "compare_variables",
    "measure",
    "read_variable",
    "tune",
]
