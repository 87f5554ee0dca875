# SPDX-License-Identifier: MIT
"""Batches on one process and under mpirun give the same archives; they say what they did."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Bench


@pytest.mark.mpi
def test_same_archives_on_ranks(bench: Bench, serial: dict[str, str]) -> None:
    doc = bench.document(bench.recipe(), ranks=2)
    assert doc["exit"] == 0
    assert (doc["ranks"], doc["done"], doc["failed"]) == (2, 5, 0)
    assert bench.hashes() == serial
    assert doc["archive_bytes"] == sum(p.stat().st_size for p in (bench.folder / "out").glob("*.hbae"))
    assert len({line["rank"] for line in bench.journal() if line["kind"] == "done"}) > 1


@pytest.mark.mpi
def test_more_ranks_than_items(bench: Bench, serial: dict[str, str]) -> None:
    doc = bench.document(bench.recipe(inputs="in/f[01].nc"), ranks=4)
    assert (doc["exit"], doc["ranks"], doc["done"]) == (0, 4, 2)
    assert bench.hashes() == {n: serial[n] for n in ("f0.hbae", "f1.hbae")}


@pytest.mark.mpi
def test_without_threads_in_mpi_the_root_only_serves(bench: Bench, serial: dict[str, str]) -> None:
    bench.environment = {"MPI4PY_RC_THREAD_LEVEL": "funneled"}
    assert bench.run(bench.recipe(), ranks=2).code == 0
    assert bench.hashes() == serial
    assert {line["rank"] for line in bench.journal() if line["kind"] == "done"} == {1}


def test_a_second_run_redoes_only_what_cannot_be_trusted(bench: Bench, serial: dict[str, str]) -> None:
    recipe = bench.recipe()
    assert bench.run(recipe).code == 0
    out, first = bench.folder / "out", bench.finished()
    damaged = bytearray((out / "f1.hbae").read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (out / "f1.hbae").write_bytes(damaged)
    (out / "f2.hbae").unlink()
    (out / ".f2.hbae.abc.part").write_bytes(b"half")
    (bench.folder / "in" / "f3.nc").touch()
    (bench.folder / "in" / "g.nc").write_bytes((bench.folder / "in" / "f0.nc").read_bytes())
    doc = bench.document(recipe)
    assert (doc["exit"], doc["kept"], doc["done"]) == (0, 2, 4)
    assert {n: h for n, h in bench.hashes().items() if n != "g.hbae"} == serial
    assert not list(out.glob(".*.part"))
    again = bench.finished()
    assert [n for n in first if again[n] == first[n]] == ["f4.hbae", "f0.hbae"]


def test_archives_of_others_are_not_replaced(bench: Bench) -> None:
    out = bench.folder / "out"
    out.mkdir()
    (out / "f1.hbae").write_bytes(b"mine")
    doc = bench.document(bench.recipe())
    assert doc["exit"] == 2
    assert "not by this batch (f1.hbae)" in doc["error"]
    assert [p.name for p in out.glob("*.hbae")] == ["f1.hbae"]
    assert bench.document(bench.recipe(), "-f")["exit"] == 0
    other = bench.document(bench.recipe(bound="nrmse=5e-3"))
    assert other["exit"] == 2
    assert "by another recipe" in other["error"]


def test_dry_run_writes_nothing(bench: Bench) -> None:
    doc = bench.document(bench.recipe(), "--dry-run")
    assert [i["action"] for i in doc["items"]] == ["compress"] * 5
    sizes = [i["bytes"] for i in doc["items"]]
    assert sizes == sorted(sizes, reverse=True)
    assert not (bench.folder / "out").exists()


def test_estimate_is_near_what_the_batch_takes(bench: Bench) -> None:
    doc = bench.document(bench.recipe(), "--estimate")
    assert not (bench.folder / "out").exists()
    assert len(doc["samples"]) == 3
    assert doc["how"].startswith("3 of 5 inputs compressed")
    run = bench.document(bench.recipe())
    assert doc["low"] <= run["archive_bytes"] <= doc["high"]
    assert 0.5 < doc["archive_bytes"] / run["archive_bytes"] < 2
    assert doc["input_bytes"] == run["input_bytes"]


def test_unreadable_inputs_are_skipped_and_reported(bench: Bench, serial: dict[str, str]) -> None:
    (bench.folder / "in" / "broken.nc").write_bytes(b"CDF\x01 and then nothing")
    (bench.folder / "in" / "text.nc").write_text("no data at all")
    doc = bench.document(bench.recipe())
    assert (doc["exit"], doc["done"], doc["failed"]) == (1, 5, 2)
    assert {f["input"].rsplit("/", 1)[1] for f in doc["failures"]} == {"broken.nc", "text.nc"}
    assert doc["error"] == "2 of 7 items failed"
    assert bench.hashes() == serial
    shutil.copy(bench.folder / "in" / "f0.nc", bench.folder / "in" / "text.nc")
    (bench.folder / "in" / "broken.nc").unlink()
    again = bench.document(bench.recipe())
    assert (again["exit"], again["done"], again["kept"]) == (0, 1, 5)


def test_lossless_needs_no_torch_and_no_mpi4py(bench: Bench) -> None:
    blocked = bench.folder / "blocked"
    for name in ("mpi4py", "torch"):
        (blocked / name).mkdir(parents=True)
        (blocked / name / "__init__.py").write_text("raise ImportError('blocked')")
    bench.environment = {"PYTHONPATH": f"{blocked}:{os.environ.get('PYTHONPATH', '')}"}
    assert bench.run(bench.recipe(method="lossless")).code == 0
