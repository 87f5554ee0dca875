# SPDX-License-Identifier: MIT
"""MODEL files as archives know them: safetensors with a decoder section. Sizes are looked at before tensors."""

from __future__ import annotations

import os
from pathlib import Path

from hbae.errors import FormatError, told_as_input

MAX_HEADER = 16 << 20
MAX_MODEL = 1 << 30
MAX_SECTION = 256 << 20


def check_header(path: Path) -> None:
    """Refuse a safetensors file whose header is so long that reading it would take much memory.

    Raises
    ------
    FormatError
        When it is that long, or no safetensors file.
    """
    with told_as_input(path), path.open("rb") as f:
        length = int.from_bytes(f.read(8), "little")
    if length > min(MAX_HEADER, os.path.getsize(path) - 8):
        raise FormatError(f"{path.name}: not a model file, or one with a header of more than {MAX_HEADER >> 20} MiB")


def read_section(path: Path) -> bytes:
    """Give the decoder section of a MODEL file; its other tensors are not read.

    Raises
    ------
    FormatError
        When the file is no MODEL file or is larger than one may be.
    """
    from safetensors import SafetensorError, safe_open

    check_header(path)
    if path.stat().st_size > MAX_MODEL:
        raise FormatError(f"{path.name}: larger than any model file may be")
    try:
        with safe_open(path, framework="np") as f:
            part = f.get_slice("decoder")
            shape = part.get_shape()
            if part.get_dtype() != "U8" or len(shape) != 1 or shape[0] > MAX_SECTION:
                raise FormatError(f"{path.name}: no decoder section")
            return bytes(f.get_tensor("decoder").data)
    except (SafetensorError, TypeError, ValueError) as e:
        if isinstance(e, FormatError):
            raise
        raise FormatError(f"{path.name}: no model file: {e}") from e
