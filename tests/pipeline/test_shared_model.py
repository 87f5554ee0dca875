# SPDX-License-Identifier: MIT
"""A shared model is found among files that are something else."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from hbae.errors import ModelMismatchError
from hbae.pipeline.archive import find_shared_model


def tensors(path: Path, **parts: tuple[str, bytes]) -> None:
    """Write a safetensors file of vectors by hand."""
    doc, data = {}, b""
    for name, (dtype, body) in parts.items():
        size = 2 if dtype == "BF16" else 1
        doc[name] = {"dtype": dtype, "shape": [len(body) // size], "data_offsets": [len(data), len(data) + len(body)]}
        data += body
    head = json.dumps(doc).encode()
    path.write_bytes(len(head).to_bytes(8, "little") + head + data)


def test_other_files_are_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "a.hbm").write_bytes(b"text")
    (tmp_path / "b.hbm").write_bytes((1 << 62).to_bytes(8, "little"))
    (tmp_path / "c.hbm").mkdir()
    tensors(tmp_path / "d.hbm", other=("U8", b"abc"))
    tensors(tmp_path / "e.hbm", decoder=("BF16", b"abcd"))
    section = b"the decoder"
    sha = hashlib.sha256(section).hexdigest()
    with pytest.raises(ModelMismatchError, match="looked in"):
        find_shared_model(sha, None, tmp_path)
    tensors(tmp_path / "f.hbm", weights=("BF16", b"abcd"), decoder=("U8", section))
    assert find_shared_model(sha, None, tmp_path) == section
