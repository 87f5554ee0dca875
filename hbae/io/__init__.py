# SPDX-License-Identifier: MIT
"""Scientific files and Datasets as fields, and fields as files; nothing is decoded, nothing is loaded whole.

Light to import: netCDF4, h5py, zarr and xarray are loaded by the calls that need them.
"""

from __future__ import annotations

from hbae.io.boxes import reading_boxes
from hbae.io.facts import fill_patterns, packing
from hbae.io.lazy import to_dataset
from hbae.io.reader import open_field
from hbae.io.same import same_field
from hbae.io.scratch import ScratchArray, ScratchFile
from hbae.io.targets import check_target
from hbae.io.writer import FieldWriter, write_field

__all__ = [
    "FieldWriter",
    "ScratchArray",
    "ScratchFile",
    "check_target",
    "fill_patterns",
    "open_field",
    "packing",
    "reading_boxes",
    "same_field",
    "to_dataset",
    "write_field",
]
