# SPDX-License-Identifier: MIT
"""compress and info: exit codes, what is printed, what is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import netCDF4
import numpy as np
import pytest
import xarray as xr

import hbae

if TYPE_CHECKING:
    from conftest import Run

BOUND = ("--bound", "nrmse=1e-3")


def test_people_read_size_errors_and_the_promise(run: Run, files: Path) -> None:
    done = run("compress", "a.nc", "-o", "b.hbae", *BOUND)
    assert done.code == 0
    assert done.err == ""
    assert f"{(files / 'b.hbae').stat().st_size:,} bytes" in done.out
    for text in ("CR ", "bits/value", "NRMSE mean", "max error", "seconds: read", "nrmse=0.001"):
        assert text in done.out
    assert done.out.rstrip().endswith("every bound was checked on decoded values")


def test_json_is_one_object_and_true(run: Run, files: Path) -> None:
    done = run("compress", "a.nc", "-o", "b.hbae", "--bound", "nrmse=1e-3", "T:abs=0.05", "--json", "-v")
    assert done.code == 0
    assert done.doc["size"] == (files / "b.hbae").stat().st_size
    assert done.doc["cr"] == pytest.approx(done.doc["raw_bytes"] / done.doc["size"])
    with netCDF4.Dataset(files / "a.nc") as d, hbae.open(files / "b.hbae") as ds:
        for row in done.doc["variables"]:
            x = np.asarray(d[row["path"]][:], np.float64)
            error = np.abs(ds[row["path"]].values.astype(np.float64) - x)
            assert error.max() == pytest.approx(row["max_error"])
            limit = 0.05 if row["path"] == "T" else np.inf
            assert error.max() <= limit
            assert np.sqrt((error**2).mean()) / np.ptp(x) <= (np.inf if row["path"] == "T" else 1e-3)


def test_everything_is_kept_exactly_where_that_is_asked_for(run: Run, files: Path) -> None:
    """P1: no bound, and no bit lost; without the method nothing would have been asked for."""
    refused = run("compress", "a.nc", "-o", "b.hbae")
    assert refused.code == 2
    assert "--method lossless" in refused.err
    assert run("compress", "a.nc", "-o", "b.hbae", "--method", "lossless").code == 0
    with netCDF4.Dataset(files / "a.nc") as d, hbae.open(files / "b.hbae") as ds:
        assert set(ds.variables) == set(d.variables)
        for name in d.variables:
            d[name].set_auto_maskandscale(False)
            assert ds[name].values.tobytes() == np.asarray(d[name][:]).tobytes()


def test_quiet_prints_nothing(run: Run, files: Path) -> None:
    done = run("compress", "a.nc", "-o", "b.hbae", *BOUND, "-q")
    assert (done.code, done.out, done.err) == (0, "", "")


def test_existing_output_is_refused_without_f(run: Run, files: Path) -> None:
    before = (files / "a.hbae").read_bytes()
    done = run("compress", "a.nc", "-o", "a.hbae", *BOUND)
    assert done.code == 2
    assert "exists" in done.err
    assert (files / "a.hbae").read_bytes() == before
    assert run("compress", "a.nc", "-o", "a.hbae", "--bound", "nrmse=1e-2", "-f").code == 0
    assert (files / "a.hbae").read_bytes() != before


def test_input_is_never_replaced(run: Run, files: Path) -> None:
    done = run("compress", "a.nc", "-o", "a.nc", *BOUND, "-f")
    assert done.code == 2
    assert "same file" in done.err


def test_vars_limit_what_is_lossy(run: Run, files: Path) -> None:
    assert run("compress", "a.nc", "-o", "b.hbae", *BOUND, "--vars", "T", "U").code == 0
    info = run("info", "b.hbae", "--json").doc
    assert [g["variables"] for g in info["groups"]] == [["T", "U"]]
    assert "V" in run("info", "b.hbae").out


def test_range_option_widens_the_bound(run: Run, files: Path) -> None:
    done = run("compress", "a.nc", "-o", "b.hbae", "--bound", "rel_range=1e-3", "--range", "T=-100:100", "--json")
    spans = {v["path"]: v["span"] for v in done.doc["variables"]}
    assert spans["T"] == 200
    assert spans["U"] < 30


def test_threads_change_no_byte(run: Run, files: Path) -> None:
    args = ("compress", "a.nc", *BOUND, "--chunk", "0.0625", "--block", "4x4x4", "-o")
    assert run(*args, "b.hbae").code == run(*args, "c.hbae", "--threads", "2").code == 0
    assert (files / "b.hbae").read_bytes() == (files / "c.hbae").read_bytes()


@pytest.mark.parametrize(
    ("args", "code", "kind", "text"),
    [
        (["compress"], 2, None, "Missing"),
        (["compress", "a.nc", "-o", "b.hbae"], 2, None, "--bound"),
        (["nonsense"], 2, None, "nonsense"),
        (["compress", "a.nc", "-o", "b.hbae", "--bound", "nrmse"], 2, "ConfigError", "kind=value"),
        (["compress", "a.nc", "-o", "b.hbae", "--bound", "nrmse=-1"], 2, "ConfigError", "positive"),
        (["compress", "a.nc", "-o", "b.hbae", "--bound", "Q:nrmse=1e-3"], 2, "UnknownNameError", "'Q'"),
        (["compress", "a.nc", "-o", "b.hbae", *BOUND, "--vars", "Q*"], 2, "UnknownNameError", "Q*"),
        (["compress", "a.nc", "-o", "b.hbae", *BOUND, "--method", "zip"], 2, "ConfigError", "method"),
        (["compress", "a.nc", "-o", "b.hbae", *BOUND, "--preset", "zip"], 2, "ConfigError", "preset"),
        (["compress", "a.nc", "-o", "b.hbae", *BOUND, "--budget", "9"], 2, "ConfigError", "budget"),
        (["compress", "a.nc", "-o", "b.hbae", *BOUND, "--block", "4"], 2, "ConfigError", "block"),
        (["compress", "a.nc", "-o", "b.hbae", *BOUND, "--device", "tpu"], 2, "ConfigError", "device"),
        (["compress", "a.nc", "-o", "b.hbae", *BOUND, "--chunk", "x"], 2, None, "--chunk"),
        (["compress", "none.nc", "-o", "b.hbae", *BOUND], 1, "MissingFileError", "none.nc"),
        (["compress", "a.nc", "-o", "none/b.hbae", *BOUND], 1, "MissingFileError", "none"),
        (["compress", "a.nc", "-o", "b.hbae", *BOUND, "--model", "none.hbm"], 1, "MissingFileError", "none.hbm"),
        (["compress", "a.hbae", "-o", "b.hbae", *BOUND], 1, "FieldError", "unknown format"),
        (["compress", "a.nc", "-o", "b.hbae", "--size", "20XB"], 2, "ConfigError", "expected bytes"),
        (["compress", "a.nc", "-o", "b.hbae", "--size", "9", "--cr", "2"], 2, "ConfigError", "exclude"),
        (["compress", "a.nc", "-o", "b.hbae", "--size", "99", "--vars", "T"], 3, "SizeNotMetError", "cannot be met"),
        (["compress", "a.nc", "-o", "b.hbae", "--bound", "T:psnr=9@flag,abs=1"], 2, "ConfigError", "psnr cannot"),
        (["verify", "a.hbae", "--qoi", "gradient"], 2, "ConfigError", "--against"),
        (["verify", "a.hbae", "--against", "a.nc", "--qoi", "mass"], 2, "ConfigError", "unknown 'mass'"),
        (["info", "none.hbae"], 1, "MissingFileError", "none.hbae"),
        (["info", "a.nc"], 4, "NotHbaeFileError", "magic"),
    ],
)
def test_failures_are_told_both_ways(
    run: Run, files: Path, args: list[str], code: int, kind: str | None, text: str
) -> None:
    before = sorted(p.name for p in files.iterdir())
    people, machine = run(*args), run(*args, "--json")
    assert people.code == machine.code == code, people.err
    assert people.out == ""
    assert text in people.err
    assert "Traceback" not in people.err
    assert set(machine.doc) == {"error", "kind"}
    assert text in machine.doc["error"]
    assert kind in (None, machine.doc["kind"])
    assert sorted(p.name for p in files.iterdir()) == before


def test_a_truncated_archive_is_damaged(run: Run, files: Path) -> None:
    data = (files / "a.hbae").read_bytes()
    (files / "cut.hbae").write_bytes(data[:-7])
    for command in ("info", "verify"):
        done = run(command, "cut.hbae", "--json")
        assert done.code == 4
        assert done.doc["kind"] == "TruncatedError"


def test_info_describes_all_variables(run: Run, files: Path) -> None:
    doc = run("info", "a.hbae", "--json").doc
    assert [v["path"] for v in doc["variables"]] == ["time", "lat", "lon", "T", "U", "V", "flag"]
    assert sum(doc["sizes"].values()) == doc["size"] == (files / "a.hbae").stat().st_size


def test_a_ratio_is_asked_for(run: Run, files: Path) -> None:
    done = run("compress", "a.nc", "-o", "b.hbae", "--cr", "8", "--method", "linear", "--json")
    assert done.code == 0, done.err
    assert 8 <= done.doc["cr"] < 8 / 0.95
    assert (files / "b.hbae").stat().st_size == done.doc["size"] <= done.doc["most_bytes"]
    people = run("compress", "a.nc", "-o", "c.hbae", "--size", "20kB", "--bound", "T:abs=1", "U:abs=2", "-f")
    assert people.code == 0, people.err
    assert "of at most 20,000 bytes" in people.out


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    """A limit on the size of files stands for a disk that fills up."""
    resource = pytest.importorskip("resource")
    noise = np.random.default_rng(0).normal(size=(64, 64, 64)).astype("f4")
    xr.Dataset({"T": (("a", "b", "c"), noise)}).to_netcdf(tmp_path / "a.nc", engine="netcdf4")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "hbae.cli.main",
            "compress",
            "a.nc",
            "-o",
            "b.hbae",
            "--bound",
            "abs=1e-5",
            "--method",
            "linear",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
    )
    assert done.returncode == 1, done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["a.nc"]
