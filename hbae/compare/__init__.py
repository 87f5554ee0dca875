# SPDX-License-Identifier: MIT
"""Other compressors as rivals on equal terms: each tuned to the error that it achieves."""

from hbae.compare.filters import ZFP, Sperr
from hbae.compare.interface import Encoded, Rival
from hbae.compare.klt import Klt
from hbae.compare.load import read_variable
from hbae.compare.metrics import Errors, Measures, measure, measure_all
from hbae.compare.rivals import RIVALS, TOGETHER
from hbae.compare.sz3 import SZ3
from hbae.compare.table import Row, compare_targets, compare_variables
from hbae.compare.tune import Tuned, tune

__all__ = [
    "RIVALS",
    "SZ3",
    "TOGETHER",
    "ZFP",
    "Encoded",
    "Errors",
    "Klt",
    "Measures",
    "Rival",
    "Row",
    "Sperr",
    "Tuned",
    "compare_targets",
    "compare_variables",
    "measure",
    "measure_all",
    "read_variable",
    "tune",
]
