# SPDX-License-Identifier: MIT
"""The command: rows at or below the target by errors recomputed here, JSON alone on stdout, one page, exit codes."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from hbae.compare import RIVALS, read_variable
from hbae.errors import MissingExtraError

pytest.importorskip("pysz")
pytest.importorskip("hdf5plugin")


@pytest.fixture(scope="module")
def compared(made: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, str]:
    """Give the JSON object and the page of one comparison on three variables of one grid."""
    page = tmp_path_factory.mktemp("page") / "report.html"
    rivals = "sz3,sperr,zfp,pca+sz3,zstd"
    args = ["compare", str(made / "a.nc"), "--bounds", "1e-2,1e-3", "--rivals", rivals, "--method", "linear"]
    args += ["--qoi", "gradient", "area_mean"]
    command = [sys.executable, "-m", "hbae.cli.main", *args, "--threads", "1", "--json", "-o", str(page)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    return json.loads(done.stdout), page.read_text()


def test_every_row_is_within_its_target(compared: tuple[dict, str], made: Path) -> None:
    doc, _ = compared
    assert doc["held"]
    assert [r["bound"] for r in doc["results"]] == [1e-2, 1e-3]
    for result in doc["results"]:
        hbae, *rivals = result["rows"]
        assert [r["name"] for r in rivals] == ["SZ3", "SPERR", "ZFP", "PCA+SZ3", "zstd"]
        targets = {n: v["nrmse"] for n, v in hbae["variables"].items()}
        assert set(targets) == {"T", "U", "V"}
        assert max(targets.values()) <= result["bound"]
        raw = sum(read_variable(made / "a.nc", n).nbytes for n in targets)
        for r in result["rows"]:
            assert r["raw_bytes"] == raw
            assert r["cr"] == raw / r["bytes"]
            assert r["missed"] == []
            assert r["skipped"] == {}
            assert all(r["variables"][n]["nrmse"] <= t for n, t in targets.items())
            assert r["encode_mb_s"] > 0 < r["decode_mb_s"]
        assert all(r["psnr"] is None and r["ssim"] == pytest.approx(1) for r in rivals if r["name"] == "zstd")


def test_bytes_and_errors_of_a_row_can_be_made_again(compared: tuple[dict, str], made: Path) -> None:
    row = next(r for r in compared[0]["results"][1]["rows"] if r["name"] == "SZ3")
    total = 0
    for n, v in row["variables"].items():
        x = np.asarray(read_variable(made / "a.nc", n))
        span = float(x.max()) - float(x.min())
        way = next(w for w in RIVALS["SZ3"]().variants(x.shape, "nrmse") if w.label == v["variant"])
        encoded = way.encode(x, v["setting"] * span)
        e = way.decode(encoded, x.shape, x.dtype).astype("f8") - x
        assert v["nrmse"] == pytest.approx(np.sqrt((e**2).mean()) / span, rel=1e-3)
        assert v["max_error"] == pytest.approx(np.abs(e).max() / span, rel=1e-3)
        total += len(encoded.payload)
    assert row["bytes"] == total


def test_quantities_of_a_row_can_be_made_again(compared: tuple[dict, str], made: Path) -> None:
    for result in compared[0]["results"]:
        names = [f"{k} of {n}" for k in ("gradient", "area mean") for n in "TUV"]
        for r in result["rows"]:
            assert [q["name"] for q in r.get("quantities", ())] == (names if r["name"] != "zstd" else [])
        row = next(r for r in result["rows"] if r["name"] == "SPERR")
        x = np.asarray(read_variable(made / "a.nc", "T"))
        v = row["variables"]["T"]
        way = next(w for w in RIVALS["SPERR"]().variants(x.shape, "nrmse") if w.label == v["variant"])
        y = way.decode(way.encode(x, v["setting"] * float(np.ptp(x))), x.shape, x.dtype)
        found = {q["name"]: q for q in row["quantities"]}
        weights = np.cos(np.deg2rad(np.arange(20)))
        means = [np.average(a.astype("f8").mean(2), axis=1, weights=weights) for a in (x, y)]
        q = found["area mean of T"]
        assert [q["before"], q["after"]] == pytest.approx([m.mean() for m in means], rel=1e-3)
        assert q["max_error"] == pytest.approx(abs(means[1] - means[0]).max(), rel=1e-2)
        gradients = [np.concatenate([np.diff(a.astype("f8"), axis=i).ravel() for i in range(3)]) for a in (x, y)]
        q = found["gradient of T"]
        rms = [np.sqrt((g * g).mean()) for g in (*gradients, gradients[1] - gradients[0])]
        assert [q["before"], q["after"], q["rmse"]] == pytest.approx(rms, rel=1e-3)
        assert q["relative"] == pytest.approx(rms[2] / rms[0], rel=1e-3)


def test_the_result_says_how_it_was_made(compared: tuple[dict, str]) -> None:
    doc, _ = compared
    assert doc["configuration"]["metric"] == "nrmse"
    assert doc["configuration"]["method"] == "linear"
    assert {"hbae", "numpy", "pysz", "hdf5plugin"} <= set(doc["versions"])
    assert doc["machine"]["cores"] >= 1
    assert any("whole file" in t for t in doc["terms"])


class Links(HTMLParser):
    """Collects what a page refers to, and checks that elements close in order."""

    def __init__(self) -> None:
        super().__init__()
        self.refers: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.refers += [v or "" for k, v in attrs if k in ("src", "href", "data", "srcset")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_stands_alone(compared: tuple[dict, str]) -> None:
    _, page = compared
    parser = Links()
    parser.feed(page)
    assert parser.open == []
    assert parser.refers
    assert all(r.startswith("data:image/png;base64,") for r in parser.refers)
    assert not re.search(r"https?://|@import|url\(|<script", page)
    assert page.count("<svg") == 1
    assert page.count("<circle") == 5 * 2  # lossy coders at the bounds
    for name in ("hbae", "SZ3", "SPERR", "ZFP", "PCA+SZ3"):
        assert f'alt="error of {name}"' in page
    assert page.count("<td>gradient of T</td>") == page.count("<td>area mean of V</td>") == 2


CHECK = """
<script>
const told = {errors: []};
window.onerror = message => told.errors.push(message);
window.onload = () => {
  const box = e => e.getBoundingClientRect();
  const main = box(document.querySelector("main")), plot = box(document.querySelector("svg"));
  const across = (a, b) => a.left >= b.left - 1 && a.right <= b.right + 1;
  const inside = (a, b) => across(a, b) && a.top >= b.top - 1 && a.bottom <= b.bottom + 1;
  const cross = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
  const texts = [...document.querySelectorAll("svg text")].map(box);
  const maps = [...document.querySelectorAll(".maps > img")];
  told.too_wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  told.plot = [plot.width, plot.height];
  told.outside = [...document.querySelectorAll("svg text, svg circle")].filter(e => !inside(box(e), plot)).length;
  told.overlaps = texts.flatMap((a, i) => texts.slice(i + 1).filter(b => cross(a, b))).length;
  told.circles = document.querySelectorAll("svg circle").length;
  told.maps = maps.map(e => [e.alt, e.naturalWidth, box(e).width, box(e).height, inside(box(e), main)]);
  told.tables = [...document.querySelectorAll("table")].map(e => box(e).width);
  const out = document.createElement("pre");
  out.id = "told";
  out.textContent = JSON.stringify(told);
  document.body.append(out);
};
</script>
"""


def test_a_browser_draws_the_page(compared: tuple[dict, str], tmp_path: Path) -> None:
    found = [p for p in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if p]
    if not found:
        pytest.skip("there is no Chromium here to open the report with")
    (tmp_path / "r.html").write_text(compared[1].replace("<body>", "<body>" + CHECK))
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--window-size=1300,900"]
    flags += ["--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
    command = [*found[:1], *flags, f"--user-data-dir={tmp_path / 'user'}", "--dump-dom", (tmp_path / "r.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "CONSOLE" not in done.stderr
    told = json.loads(unescape(re.search(r'<pre id="told">(.*?)</pre>', done.stdout)[1]))
    assert (told["errors"], told["too_wide"], told["outside"], told["overlaps"]) == ([], 0, 0, 0), told
    assert told["circles"] == 5 * 2
    assert min(told["plot"]) > 300
    assert min(told["tables"]) > 300
    coders = ("hbae", "SZ3", "SPERR", "ZFP", "PCA+SZ3")
    assert [m[0] for m in told["maps"]] == [alt for n in coders for alt in ("field", n, f"error of {n}")]
    assert all(
        natural > 0 and width > 200 and height > 100 and fits for _, natural, width, height, fits in told["maps"]
    )


def test_for_people_and_with_chosen_variables(files: Path, run) -> None:
    args = ("--bounds", "1e-2", "--rivals", "SZ3", "--metric", "max", "--method", "linear", "--vars", "T", "U")
    result = run("compare", "a.nc", *args, "--qoi", "gradient")
    assert result.code == 0, result.err
    assert "max 0.01" in result.out
    assert re.search(r"hbae +2 of 2", result.out)
    assert re.search(r"quantity +before +hbae +SZ3", result.out)
    assert re.search(r"gradient of U +[\d.]+ +[\d.]+ \([\d.e-]+\) +[\d.]+ \(", result.out)
    assert "whole file" in result.out


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (("--bounds", "1e-2", "--rivals", "mgard"), "mgard"),
        (("--bounds", "x"), "bounds"),
        (("--bounds", "-1"), "bounds"),
        (("--bounds", "1e-2,1e-2"), "twice"),
        (("--bounds", "1e-2", "--metric", "ssim"), "metric"),
        (("--bounds", "1e-2", "--vars", "nope"), "nope"),
        (("--bounds", "1e-2", "--qoi", "nope"), "nope"),
        (("--bounds", "1e-2", "--qoi", "moments"), "moments"),
        (("--bounds", "1e-2", "-o", "a.nc", "-f"), "same file"),
        (("--bounds", "1e-2", "-o", "a.hbae"), "exists"),
        ((), "--bounds"),
    ],
)
def test_usage_errors(args: tuple[str, ...], text: str, files: Path, run) -> None:
    result = run("compare", "a.nc", "--rivals", "sz3", *args)
    assert result.code == 2
    assert text in result.err


def test_failures_are_told_in_json(files: Path, run) -> None:
    result = run("compare", "none.nc", "--bounds", "1e-2", "--json")
    assert result.code == 1
    assert result.doc["kind"] == "MissingFileError"


def test_a_missing_package_names_the_extra(files: Path) -> None:
    code = "import sys; sys.modules['pysz'] = None; from hbae.cli.main import run; sys.exit(run(sys.argv[1:]))"
    args = ["compare", "a.nc", "--bounds", "1e-2", "--json"]
    done = subprocess.run(
        [sys.executable, "-c", code, *args], cwd=files, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 1
    assert json.loads(done.stdout)["kind"] == MissingExtraError.__name__
    assert "hbae[compare]" in json.loads(done.stdout)["error"]
