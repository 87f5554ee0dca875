# SPDX-License-Identifier: MIT
"""What a stream refuses, what it leaves behind, and what is on the disk meanwhile."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hbae
from hbae.arrays import Array
from hbae.errors import ConfigError, FieldError, OutputExistsError, UnknownNameError


def smooth(t: int) -> Array:
    """One step of a smooth field."""
    return np.sin(np.arange(480.0).reshape(20, 24) / 9 + 0.1 * t).astype("f4")


@pytest.mark.parametrize("step", [3, 2, -1, 3.5, math.nan, True, "4", None, 2**63])
def test_steps_that_do_not_rise_are_refused(step: Any, tmp_path: Path) -> None:
    with hbae.StreamWriter(tmp_path / "a.hbae", "abs=1") as w:
        w.append(3, {"u": smooth(1)})
        with pytest.raises(FieldError, match="step"):
            w.append(step, {"u": smooth(1)})
        w.append(4, {"u": smooth(1)})
    assert hbae.decompress(tmp_path / "a.hbae")["time"].values.tolist() == [3, 4]


@pytest.mark.parametrize(
    ("bound", "options", "fields", "error", "said"),
    [
        ("nrmse=1e-3", {}, {}, ConfigError, "range: nrmse of u"),
        ({"u": "abs=1,psnr=40"}, {}, {}, ConfigError, "range: psnr of u"),
        ("abs=1", {"range": {"w": (0, 1)}}, {}, UnknownNameError, "'w'"),
        ("abs=1", {"range": {"u": (1, 1)}}, {}, ConfigError, "range u"),
        ({"w": "abs=1"}, {}, {}, UnknownNameError, "w"),
        ({"k": "abs=1"}, {}, {"k": np.arange(4)}, ConfigError, "k"),
        ("abs=1,abs=0.1@mask", {}, {}, UnknownNameError, "mask"),
        ("abs=1", {"steps": 0}, {}, ConfigError, "steps"),
        ("abs=1", {"block": (8, 4, 4), "steps": 12}, {}, ConfigError, "block"),
        ("abs=1", {"block": (8, 4)}, {}, ConfigError, "block"),
        ("abs=1", {"size": 100}, {}, ConfigError, "size"),
        ("abs=1", {"dims": {"u": ("y",)}}, {}, FieldError, "u: dimensions"),
        ("abs=1", {"dims": {"w": ("y",)}}, {}, FieldError, "w"),
        ("abs=1", {}, {"s": np.array(["a"])}, FieldError, "s: only numbers"),
        ("abs=1", {}, {"time": np.zeros(3)}, FieldError, "time"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_written(
    bound: Any, options: dict[str, Any], fields: dict[str, Any], error: type[Exception], said: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=said):
        hbae.StreamWriter(tmp_path / "a.hbae", bound, **options).append(0, {"u": smooth(0), **fields})
    assert os.listdir(tmp_path) == []


def test_outputs_that_exist_are_kept(tmp_path: Path) -> None:
    path, part = tmp_path / "a.hbae", tmp_path / "a.hbae.part"
    path.write_text("mine")
    with pytest.raises(OutputExistsError, match="overwrite=True"):
        hbae.StreamWriter(path, "abs=1")
    part.write_text("other")
    with pytest.raises(OutputExistsError, match="hbae repair"):
        hbae.StreamWriter(path, "abs=1", overwrite=True)
    assert (path.read_text(), part.read_text()) == ("mine", "other")
    part.unlink()
    with hbae.StreamWriter(path, "abs=1", overwrite=True) as w:
        w.append(0, {"u": smooth(0)})
        with pytest.raises(OutputExistsError, match="hbae repair"):
            hbae.StreamWriter(path, "abs=1", overwrite=True)
    assert hbae.verify(path).ok
    assert os.listdir(tmp_path) == ["a.hbae"]


def test_a_name_that_is_taken_in_the_meantime_is_kept(tmp_path: Path) -> None:
    w = hbae.StreamWriter(tmp_path / "a.hbae", "abs=1e-2", steps=2)
    for t in range(3):
        w.append(t, {"u": smooth(t)})
    (tmp_path / "a.hbae").write_text("mine")
    with pytest.raises(OutputExistsError):
        w.close()
    assert (tmp_path / "a.hbae").read_text() == "mine"
    assert hbae.repair(tmp_path / "a.hbae.part", tmp_path / "b.hbae").steps == 3


def test_an_exception_leaves_what_repair_needs(tmp_path: Path) -> None:
    path = tmp_path / "a.hbae"
    with pytest.raises(ZeroDivisionError), hbae.StreamWriter(path, "abs=1e-2", steps=4) as w:  # noqa: PT012
        for t in range(6):
            w.append(t, {"u": smooth(t)})
        raise ZeroDivisionError
    with pytest.raises(FieldError, match="hbae repair"):
        w.append(7, {"u": smooth(7)})
    assert sorted(os.listdir(tmp_path)) == ["a.hbae.part", "a.hbae.part.journal"]
    report = hbae.repair(f"{path}.part")
    assert (report.steps, report.cut) == (6, 0)
    assert os.listdir(tmp_path) == ["a.hbae"]
    assert np.abs(hbae.decompress(path)["u"].values.astype("f8") - [smooth(t) for t in range(6)]).max() <= 1e-2


def test_no_step_no_file(tmp_path: Path) -> None:
    w = hbae.StreamWriter(tmp_path / "a.hbae", "abs=1")
    with pytest.raises(FieldError, match="no step"):
        w.close()
    with pytest.raises(FieldError, match="closed"):
        w.append(0, {"u": smooth(0)})
    assert os.listdir(tmp_path) == []


def test_every_byte_is_on_the_disk_when_append_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was synced last of every file is as long as the file; a slab is synced before the journal forgets it."""
    synced: dict[int, int] = {}
    real, replace = os.fsync, os.replace

    def fsync(fd: int) -> None:
        real(fd)
        synced[os.fstat(fd).st_ino] = os.fstat(fd).st_size

    def all_synced() -> bool:
        files = [p.stat() for p in tmp_path.iterdir()]
        return all(synced.get(s.st_ino) == s.st_size for s in files) and len(files) > 1

    def rename(a: Any, b: Any) -> None:
        assert not os.path.exists(b) or all_synced()
        replace(a, b)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", rename)
    with hbae.StreamWriter(tmp_path / "a.hbae", "abs=1e-2", steps=3) as w:
        for t in range(7):
            w.append(t, {"u": smooth(t)})
            assert all_synced()


def test_more_chunks_than_an_archive_holds_are_refused_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hbae.pipeline.stream import writer

    monkeypatch.setattr(writer, "MAX_CHUNKS", 6)
    with hbae.StreamWriter(tmp_path / "a.hbae", "abs=1e-2", steps=2) as w:
        for t in range(4):
            w.append(t, {"u": smooth(t), "k": np.arange(3)})
        with pytest.raises(ConfigError, match="more than the 6 chunks"):
            w.append(4, {"u": smooth(4), "k": np.arange(3)})
    assert hbae.decompress(tmp_path / "a.hbae").sizes["time"] == 4
