# SPDX-License-Identifier: MIT
"""``hbae repair``: exit codes and what it says."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

import hbae


def leave(folder: Path) -> Path:
    """Leave a stream after 5 of its steps."""
    w = hbae.StreamWriter(folder / "a.hbae", "abs=1e-2", steps=2)
    for t in range(5):
        w.append(t, {"u": np.sin(np.arange(60.0).reshape(6, 10) / 9 + t / 7)})
    w.leave()
    return folder / "a.hbae.part"


def test_gives_the_archive_and_removes_what_grew(run: Any, tmp_path: Path) -> None:
    leave(tmp_path)
    done = run("repair", "a.hbae.part", "--json")
    assert done.code == 0
    assert (done.doc["steps"], done.doc["cut"], done.doc["notes"]) == (5, 0, [])
    assert os.listdir(tmp_path) == ["a.hbae"]
    assert done.doc["size"] == (tmp_path / "a.hbae").stat().st_size
    assert run("verify", "a.hbae").code == 0


def test_says_what_was_cut(run: Any, tmp_path: Path) -> None:
    journal = Path(f"{leave(tmp_path)}.journal")
    journal.write_bytes(journal.read_bytes()[:-7])
    done = run("repair", "a.hbae.part", "-o", "b.hbae")
    assert done.code == 0
    assert "4 steps" in done.out
    assert "bytes of a torn or damaged end were left out" in done.out
    assert os.listdir(tmp_path) == ["b.hbae"]


def test_damage_is_an_error_until_salvage_is_asked_for(run: Any, tmp_path: Path) -> None:
    part = leave(tmp_path)
    data = bytearray(part.read_bytes())
    data[-40] ^= 1
    part.write_bytes(data)
    done = run("repair", "a.hbae.part", "--json")
    assert (done.code, done.doc["kind"]) == (4, "ChecksumError")
    assert "--salvage" in done.doc["error"]
    assert not (tmp_path / "a.hbae").exists()
    done = run("repair", "a.hbae.part", "--salvage")
    assert done.code == 0
    assert "damaged: 2 steps behind step 2" in done.out
    assert hbae.decompress(tmp_path / "a.hbae")["time"].values.tolist() == [0, 1]
    assert part.exists()


def test_refusals(run: Any, tmp_path: Path) -> None:
    assert run("repair", "none.hbae.part").code == 1
    leave(tmp_path)
    (tmp_path / "a.hbae").write_text("mine")
    assert run("repair", "a.hbae.part").code == 2
    assert (tmp_path / "a.hbae").read_text() == "mine"
    assert run("repair", "a.hbae.part", "-f", "-q").code == 0
    assert os.listdir(tmp_path) == ["a.hbae"]
