# SPDX-License-Identifier: MIT
"""Ranks that share one file write the bytes of one process, or nothing."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import pytest
import xarray as xr

import hbae
from hbae.errors import FormatError
from hbae.pipeline.archive import Archive

if TYPE_CHECKING:
    from conftest import Place

BOUND = ("--bound", "T:nrmse=1e-2", "--method", "lossless")


@pytest.mark.mpi
@pytest.mark.parametrize("ranks", [pytest.param(1, marks=pytest.mark.slow), 2, 4])
def test_same_bytes(ranks: int, place: Place, serial: Path) -> None:
    """Chunks of several groups, coded again where a bound was missed, and lossless ones."""
    done = place.job("a.hbae", ranks=ranks)
    assert done.code == 0, done
    counts = json.loads(done.line)
    assert counts["touch-ups"] >= 1
    assert counts["finer plans"] >= 1
    assert counts["looks"] >= 2
    assert (place.folder / "a.hbae").read_bytes() == serial.read_bytes()
    assert place.names() == ["a.hbae"]
    assert hbae.verify(place.folder / "a.hbae", place.folder / "in.nc").ok


def test_the_input_has_work_for_four_ranks(serial: Path) -> None:
    with Archive(serial) as archive:
        chunks = {part.paths: len(part.boxes) for part in archive.parts}
    assert chunks == {("T", "U"): 18, ("W",): 18, ("V",): 12, ("P",): 12, ("mesh",): 3}


@pytest.mark.mpi
@pytest.mark.parametrize("options", [{"chunk": 32, "redundant": True}], ids=["one chunk each"])
def test_more_ranks_than_chunks(options: dict[str, object], place: Place) -> None:
    assert place.job("s.hbae", **options).code == 0
    assert place.job("a.hbae", ranks=3, **options).code == 0
    assert (place.folder / "a.hbae").read_bytes() == (place.folder / "s.hbae").read_bytes()


@pytest.mark.mpi
def test_the_command_chooses_as_one_process_does(place: Place) -> None:
    words = ("compress", "in.nc", "--bound", "P:abs=1e-2", "--method", "linear", "--chunk", "0.0625", "-o")
    alone, shared = place.hbae(*words, "s.hbae"), place.hbae(*words, "a.hbae", "--ranks", "--json", ranks=2)
    assert (alone.code, shared.code) == (0, 0), shared
    assert (place.folder / "a.hbae").read_bytes() == (place.folder / "s.hbae").read_bytes()
    assert json.loads(shared.line)["size"] == (place.folder / "a.hbae").stat().st_size


@pytest.mark.mpi
@pytest.mark.parametrize("asked", [("--bound", "nrmse=1e-3"), ("--cr", "12")], ids=["bound", "size"])
def test_the_command_parts_variables_as_one_process_does(
    asked: tuple[str, str], place: Place, unlike: xr.Dataset
) -> None:
    """Samples stay with the root; which variables go together is told to all."""
    unlike.to_netcdf(place.folder / "in.nc")
    words = ("compress", "in.nc", *asked, "--method", "linear", "-o")
    alone, shared = place.hbae(*words, "s.hbae"), place.hbae(*words, "a.hbae", "--ranks", ranks=2)
    assert (alone.code, shared.code) == (0, 0), shared
    assert (place.folder / "a.hbae").read_bytes() == (place.folder / "s.hbae").read_bytes()
    assert len(hbae.info(place.folder / "a.hbae")["groups"]) == 2


@pytest.mark.mpi
def test_plans_like_those_of_another_archive(place: Place, unlike: xr.Dataset) -> None:
    unlike.to_netcdf(place.folder / "old.nc")
    (2 * unlike).to_netcdf(place.folder / "in.nc")
    words = ("--bound", "nrmse=1e-4", "-o")
    assert place.hbae("compress", "old.nc", *words, "old.hbae").code == 0
    words = ("compress", "in.nc", "--like", "old.hbae", *words)
    alone, shared = place.hbae(*words, "s.hbae"), place.hbae(*words, "a.hbae", "--ranks", "--json", ranks=2)
    assert (alone.code, shared.code) == (0, 0), shared
    assert (place.folder / "a.hbae").read_bytes() == (place.folder / "s.hbae").read_bytes()
    assert json.loads(shared.line)["notes"] == ["like old.hbae: plan of mosaic, waves: as there"]
    lost = place.hbae("compress", "in.nc", "--like", "none.hbae", *words[4:], "b.hbae", "--ranks", ranks=2)
    assert lost.code == 1
    assert "no such file" in lost.err
    assert not (place.folder / "b.hbae").exists()


@pytest.mark.mpi
@pytest.mark.parametrize("size", [700_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_a_size_that_ranks_search_together(size: int, place: Place) -> None:
    """Each rank keeps the chunks without loss that it coded; of the files of a search one is left, the same one."""
    alone, shared = place.job("s.hbae", size=size), place.job("a.hbae", ranks=2, size=size)
    assert (alone.code, shared.code) == (0, 0), shared
    assert (place.folder / "a.hbae").read_bytes() == (place.folder / "s.hbae").read_bytes()
    assert 0.9 * size < (place.folder / "a.hbae").stat().st_size <= size
    assert place.names() == ["a.hbae", "s.hbae"]
    assert json.loads(shared.line) == json.loads(alone.line)


@pytest.mark.mpi
@pytest.mark.slow
def test_a_model_that_the_root_trains(place: Place) -> None:
    pytest.importorskip("torch")
    words = ("compress", "in.nc", "--bound", "T:nrmse=1e-2", "--method", "hbae", "--budget", "2ep", "--chunk", "0.125")
    alone, shared = place.hbae(*words, "-o", "s.hbae"), place.hbae(*words, "-o", "a.hbae", "--ranks", ranks=2)
    assert (alone.code, shared.code) == (0, 0), shared
    assert (place.folder / "a.hbae").read_bytes() == (place.folder / "s.hbae").read_bytes()
    assert hbae.info(place.folder / "a.hbae")["groups"][0]["model"]


@pytest.mark.mpi
@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("encode", "[Errno 5] Input/output error: 'slab'"),
        pytest.param("write", "[Errno 28] No space left on device: 'spool'", marks=pytest.mark.slow),
        pytest.param("bug", "TypeError: 'NoneType' object is not callable", marks=pytest.mark.slow),
    ],
)
def test_a_rank_that_fails_ends_all(where: str, message: str, place: Place) -> None:
    (place.folder / "a.hbae").write_bytes(b"old")
    done = place.job("a.hbae", ranks=2, die=where, overwrite=True)
    assert done.code == 1
    assert "BatchError: rank 1 (" in done.err
    assert f"): {message}" in done.err
    assert place.names() == ["a.hbae"]
    assert (place.folder / "a.hbae").read_bytes() == b"old"


@pytest.mark.mpi
def test_what_a_killed_rank_leaves_is_no_archive(place: Place) -> None:
    done = place.job("a.hbae", ranks=2, die="killed")
    assert done.code not in (0, 1)
    (left,) = place.names()
    assert left.startswith(".a.hbae.")
    assert left.endswith(".part")
    with pytest.raises(FormatError):
        hbae.info(place.folder / left)


def spoil(path: Path) -> None:
    """Damage the last storage chunk of T, in the share of the last rank."""
    with h5py.File(path) as f:
        info = f["T"].id.get_chunk_info(f["T"].id.get_num_chunks() - 1)
    with path.open("r+b") as f:
        f.seek(info.byte_offset + info.size // 2)
        f.write(b"\xff" * 64)


@pytest.mark.mpi
def test_an_unreadable_slab_leaves_no_file(place: Place) -> None:
    spoil(place.folder / "in.nc")
    done = place.hbae("compress", "in.nc", "-o", "a.hbae", *BOUND, "--ranks", ranks=2)
    assert done.code == 1
    assert done.err.count("hbae: rank 1 (") == 1
    assert "T" in done.err
    assert place.names() == []


@pytest.mark.mpi
@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "2 ranks were started: give --ranks"),
        (("--ranks", "--size", "9"), "size: 9 bytes cannot be met"),
        pytest.param(("--ranks", "--vars", "X"), "vars: 'X' matches no variable", marks=pytest.mark.slow),
    ],
    ids=["no word about ranks", "too small a size", "a wrong name"],
)
def test_refused(words: tuple[str, ...], message: str, place: Place) -> None:
    done = place.hbae("compress", "in.nc", "-o", "a.hbae", *BOUND, *words, ranks=2)
    assert done.code == (3 if "--size" in words else 2)
    assert message in done.err
    assert "all ranks end" not in done.err
    assert place.names() == []


@pytest.mark.mpi
def test_ranks_that_are_not_about_the_same(place: Place) -> None:
    words = [("compress", "in.nc", "-o", f"{n}.hbae", *BOUND, "--ranks") for n in "ab"]
    done = place.hbae(*words[0], beside=words[1])
    assert done.code == 1
    assert "rank 1 (" in done.err
    assert "has another input or other options than rank 0" in done.err
    assert place.names() == []


@pytest.mark.mpi
@pytest.mark.slow
def test_ranks_with_files_of_their_own(place: Place) -> None:
    words = [("compress", "in.nc", "-o", f"{n}.hbae", *BOUND) for n in "ab"]
    done = place.hbae(*words[0], "--no-ranks", beside=(*words[1], "--no-ranks"))
    assert done.code == 0, done
    assert place.names() == ["a.hbae", "b.hbae"]


@pytest.mark.mpi
def test_mpi4py_missing(place: Place) -> None:
    hidden = "import sys; sys.modules['mpi4py'] = None; from hbae.cli.main import main; main()"
    words = ("compress", "in.nc", "-o", "a.hbae", *BOUND, "--ranks")
    done = place.run(*place.launcher(2), sys.executable, "-c", hidden, *words)
    assert done.code == 1
    assert "mpi4py is not installed: pip install 'hbae[mpi]'" in done.err
    assert place.names() == []


FULL_DISK = """
mount -t tmpfs -o size=64k none small || exit 77
"$@"; echo "code $?"; ls -A small; echo end
"""


@pytest.mark.mpi
def test_full_disk(place: Place) -> None:
    if shutil.which("unshare") is None:
        pytest.skip("needs unshare")
    (place.folder / "small").mkdir()
    command = [*place.launcher(2), sys.executable, str(Path(__file__).with_name("job.py")), "small/a.hbae"]
    done = place.run("unshare", "-rm", "sh", "-c", FULL_DISK, "sh", *command)
    if done.code == 77 or "unshare" in done.err:
        pytest.skip("may not mount a small file system")
    assert "code 1\nend\n" in done.out, done
    assert "is the disk full?" in done.err
