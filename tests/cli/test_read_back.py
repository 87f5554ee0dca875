# SPDX-License-Identifier: MIT
"""decompress and verify: windows, salvage, comparisons."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import netCDF4
import numpy as np
import pytest

from hbae.cli.main import run as in_process

if TYPE_CHECKING:
    from conftest import Run


def read(path: Path, name: str) -> np.ndarray:
    """Raw values of a NetCDF variable."""
    with netCDF4.Dataset(path) as d:
        d.set_auto_maskandscale(False)
        return np.asarray(d[name][:])


def test_whole_file_comes_back(run: Run, files: Path) -> None:
    done = run("decompress", "a.hbae", "-o", "b.nc", "--json")
    assert done.code == 0
    assert done.doc["lost"] == []
    x, y = read(files / "a.nc", "U"), read(files / "b.nc", "U")
    assert np.sqrt(((x.astype(float) - y) ** 2).mean()) <= 1e-3 * np.ptp(x.astype(float))
    assert (read(files / "b.nc", "flag") == np.arange(20)).all()
    with netCDF4.Dataset(files / "b.nc") as d:
        assert "nrmse=0.001" in d.hbae_bounds
    assert run("decompress", "a.hbae", "-o", "c.nc", "--no-provenance").code == 0
    with netCDF4.Dataset(files / "c.nc") as d:
        assert not [a for a in d.ncattrs() if a.startswith("hbae")]


def test_window_is_the_same_part_of_the_whole(run: Run, files: Path) -> None:
    assert run("decompress", "a.hbae", "-o", "b.nc").code == 0
    done = run("decompress", "a.hbae", "-o", "w.nc", "--window", "time=2:7,lat=3:10", "--vars", "T", "V")
    assert done.code == 0
    with netCDF4.Dataset(files / "w.nc") as d:
        assert "U" not in d.variables
    whole, part = read(files / "b.nc", "T"), read(files / "w.nc", "T")
    np.testing.assert_array_equal(part, whole[2:7, 3:10])
    np.testing.assert_array_equal(read(files / "w.nc", "lat"), np.arange(3, 10))


@pytest.mark.parametrize("suffix", [".zarr", ".h5", ".nc"])
def test_formats_by_suffix(run: Run, files: Path, suffix: str) -> None:
    assert run("decompress", "a.hbae", "-o", f"b{suffix}").code == 0
    done = run("verify", "a.hbae", "--against", f"b{suffix}", "--json")
    assert done.code == 0, done.doc
    assert {e["max_error"] for e in done.doc["errors"].values()} == {0.0}


def test_existing_output_is_refused(run: Run, files: Path) -> None:
    (files / "b.nc").write_bytes(b"mine")
    assert run("decompress", "a.hbae", "-o", "b.nc").code == 2
    assert (files / "b.nc").read_bytes() == b"mine"
    assert run("decompress", "a.hbae", "-o", "b.nc", "-f", "-q").out == ""
    assert (files / "b.nc").read_bytes() != b"mine"


@pytest.mark.parametrize(
    ("args", "code", "text"),
    [
        (["--window", "time=0:99"], 2, "time=0:99"),
        (["--window", "height=0:1"], 2, "height"),
        (["--window", "time=5"], 2, "START:STOP"),
        (["--vars", "Q"], 2, "Q"),
    ],
)
def test_bad_requests_leave_nothing(run: Run, files: Path, args: list[str], code: int, text: str) -> None:
    before = sorted(p.name for p in files.iterdir())
    done = run("decompress", "a.hbae", "-o", "b.nc", *args, "--json")
    assert done.code == code
    assert text in done.doc["error"]
    assert sorted(p.name for p in files.iterdir()) == before


@pytest.mark.parametrize("suffix", [".nc", ".zarr", ".h5", ".npy"])
@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--window", "time=-3:4"], "START:STOP"),
        (["--window", "time=7:3"], "time=7:3"),
        (["--window", "time=5:5"], "time=5:5"),
        (["--window", "time=0:13"], "length 12"),
        (["--window", "time=:4"], "START:STOP"),
        (["--window", "time=0:99999999999999999999999"], "length 12"),
        (["--window", "time=0:2", "--window", "time=0:3"], "once for each"),
        (["--window", ""], "empty"),
        (["--vars", ""], "empty"),
        (["--vars", "T", "Z*"], "'Z*' matches no variable"),
    ],
)
def test_usage_errors(
    args: list[str],
    said: str,
    suffix: str,
    files: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(files)
    before = sorted(p.name for p in files.iterdir())
    assert in_process(["decompress", "a.hbae", "-o", f"b{suffix}", *args]) == 2
    found = capsys.readouterr()
    assert said in found.err
    assert found.out == ""
    assert sorted(p.name for p in files.iterdir()) == before


def test_outputs_that_cannot_be(
    files: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(files)
    for args, code, said in (
        (["a.hbae", "-o", "b.tif"], 2, "unknown suffix"),
        (["a.hbae", "-o", "none/b.nc"], 1, "no such folder"),
        (["a.hbae", "-o", "a.hbae", "-f"], 2, "same file"),
        (["a.hbae", "-o", "b.npy"], 1, "exactly one variable"),
        (["a.hbae", "-o", "b.npy", "--vars", "T", "U"], 1, "exactly one variable"),
        (["a.nc", "-o", "b.nc"], 4, "a.nc: not an hbae archive"),
        (["none.hbae", "-o", "b.nc"], 1, "no such file"),
    ):
        assert in_process(["decompress", *args]) == code
        assert said in capsys.readouterr().err
    assert sorted(p.name for p in files.iterdir()) == ["a.hbae", "a.nc", "bad.hbae"]


def test_one_variable_goes_to_npy(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(files)
    assert in_process(["decompress", "a.hbae", "-o", "b.nc", "-q"]) == 0
    for out, more in (("T.npy", []), ("w.npy", ["--window", "lat=3:9"])):
        assert in_process(["decompress", "a.hbae", "-o", out, "--vars", "T", "-q", *more]) == 0
    whole = read(files / "b.nc", "T")
    np.testing.assert_array_equal(np.load(files / "T.npy"), whole)
    np.testing.assert_array_equal(np.load(files / "w.npy"), whole[:, 3:9])
    assert in_process(["decompress", "a.hbae", "-o", "T.npy", "--vars", "U", "-q"]) == 2
    assert in_process(["decompress", "a.hbae", "-o", "T.npy", "--vars", "U", "-q", "-f"]) == 0
    np.testing.assert_array_equal(np.load(files / "T.npy"), read(files / "b.nc", "U"))


def test_verify_passes_and_says_what_it_did(run: Run, files: Path) -> None:
    alone, compared = run("verify", "a.hbae"), run("verify", "a.hbae", "--against", "a.nc")
    assert alone.code == compared.code == 0
    assert alone.out.rstrip().endswith("ok")
    assert "compared with a.nc" in compared.out
    assert set(run("verify", "a.hbae", "--json").doc["hashes"]) == {"time", "lat", "lon", "T", "U", "V", "flag"}


def test_verify_finds_a_changed_original(run: Run, files: Path) -> None:
    with netCDF4.Dataset(files / "a.nc", "a") as d:
        d["U"][3, 4, 5] += 50.0
    done = run("verify", "a.hbae", "--against", "a.nc")
    assert done.code == 3
    assert "failed: U" in done.out
    doc = run("verify", "a.hbae", "--against", "a.nc", "--json")
    assert doc.code == 3
    assert doc.doc["kind"] == "VerificationError"
    assert doc.doc["ok"] is False


def test_quantities_before_and_after(run: Run, files: Path) -> None:
    done = run("verify", "a.hbae", "--against", "a.nc", "--qoi", "gradient", "area_mean")
    assert done.code == 0, done.err
    assert "gradient of U" in done.out
    doc = run("verify", "a.hbae", "--against", "a.nc", "--qoi", "gradient,area_mean", "--json").doc
    found = {r["name"]: r for r in doc["quantities"]}
    assert set(found) == {f"{k} of {v}" for k in ("gradient", "area mean") for v in "TUV"}
    assert 0 < found["gradient of U"]["rmse"] < found["gradient of U"]["before"]


def test_damage_is_found_and_named(run: Run, files: Path) -> None:
    done = run("verify", "bad.hbae")
    assert done.code == 4
    assert [line for line in done.out.splitlines() if line.startswith("damaged: chunk 1")]
    machine = run("verify", "bad.hbae", "--json")
    assert machine.code == 4
    assert len(machine.doc["damaged"]) == 1


def test_damage_is_refused_without_salvage(run: Run, files: Path) -> None:
    done = run("decompress", "bad.hbae", "-o", "b.nc", "--json")
    assert done.code == 4
    assert done.doc["kind"] == "ChecksumError"
    assert not (files / "b.nc").exists()


def test_salvage_gives_the_rest(run: Run, files: Path) -> None:
    assert run("decompress", "a.hbae", "-o", "good.nc").code == 0
    done = run("decompress", "bad.hbae", "-o", "b.nc", "--salvage", "--json")
    assert done.code == 4
    assert {(row["variable"], row["chunk"]) for row in done.doc["lost"]} == {("T", 1), ("U", 1), ("V", 1)}
    good, rest = read(files / "good.nc", "T"), read(files / "b.nc", "T")
    lost = rest == -999.0
    assert 0 < lost.sum() < lost.size
    np.testing.assert_array_equal(rest[~lost], good[~lost])
    people = run("decompress", "bad.hbae", "-o", "c.nc", "--salvage")
    assert people.code == 4
    assert "lost: T, chunk 1" in people.out


def test_salvage_of_a_whole_archive_is_a_success(run: Run, files: Path) -> None:
    assert run("decompress", "a.hbae", "-o", "b.nc", "--salvage").code == 0
