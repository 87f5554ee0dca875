# SPDX-License-Identifier: MIT
"""Checkpoints of a training run: one safetensors file, a JSON document and tensors; no pickle."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from hbae.codecs import count_marks
from hbae.container import check_header
from hbae.errors import FormatError

KEY = "hbae"
MAX_TENSORS = 4096
MAX_BYTES = 8 << 30
MAX_MARKS = 1 << 20


@dataclass(frozen=True)
class Checkpoint:
    """A JSON document and tensors by name."""

    doc: Mapping[str, Any]
    tensors: Mapping[str, Tensor]


def save_checkpoint(path: Path, state: Checkpoint) -> None:
    """Write a checkpoint; a reader sees the old file or the new one, whole."""
    tensors = {k: v.detach().cpu().clone().contiguous() for k, v in state.tensors.items()}
    part = path.with_name(path.name + ".part")
    part.write_bytes(save(tensors, metadata={KEY: json.dumps(state.doc, sort_keys=True)}))
    os.replace(part, path)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a file of :func:`save_checkpoint`.

    Raises
    ------
    FormatError
        When the file is damaged, hostile or something else.
    """
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise FormatError(f"{path.name}: larger than any model file may be")
        check_header(path)
        with safe_open(path, framework="pt", device="cpu") as f:
            text = (f.metadata() or {}).get(KEY)
            names = list(f.keys())
            if text is None or len(names) > MAX_TENSORS or count_marks(text.encode()) > MAX_MARKS:
                raise FormatError(f"{path.name}: not a file of hbae")
            tensors = {name: f.get_tensor(name) for name in names}
        doc = json.loads(text)
    except (SafetensorError, ValueError, RecursionError, TypeError, KeyError, RuntimeError) as e:
        if isinstance(e, FormatError):
            raise
        raise FormatError(f"{path.name}: not a readable safetensors file: {e}") from e
    if not isinstance(doc, dict):
        raise FormatError(f"{path.name}: its description is not a JSON object")
    return Checkpoint(doc, tensors)
