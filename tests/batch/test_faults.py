# SPDX-License-Identifier: MIT
"""Whatever ends a batch: a clear message, no finished work lost, no wrong file, and the next run goes on."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import netCDF4
import pytest

import hbae
from hbae.batch.items import find_items
from hbae.batch.run import set_up
from hbae.batch.work import work
from hbae.errors import FormatError
from hbae.pipeline.report import Report
from hbae.ranks import Solo

if TYPE_CHECKING:
    from conftest import Bench

SOURCE = Path(hbae.__file__).parent
BATCH = [sys.executable, "-m", "hbae.cli.main", "batch"]
VICTIMS = ("rank 1", "rank 0", "all", "launcher")


def kill(process: subprocess.Popen[str], ranks: dict[int, int], victim: str) -> None:
    """Kill a part of a job, so that it cannot clean up."""
    pids = {"all": list(ranks.values()), "launcher": [process.pid]}
    for pid in pids[victim] if victim in pids else [ranks[int(victim[-1])]]:
        os.kill(pid, signal.SIGKILL)


def wait_until_gone(pids: Iterable[int]) -> None:
    """Ranks whose launcher was killed notice it a moment later, and may finish items until then."""
    end = time.monotonic() + 300
    for pid in pids:
        stat = Path(f"/proc/{pid}/stat")
        with suppress(FileNotFoundError, ProcessLookupError):
            while stat.read_text().rsplit(")", 1)[1].split()[0] != "Z":
                assert time.monotonic() < end, pid
                time.sleep(0.02)


def kill_and_restart(bench: Bench, serial: dict[str, str], seed: int, victim: str) -> None:
    """Kill at a random moment of the work; what was finished stays as it is, and the restart ends like a serial run."""
    draw = random.Random(seed)
    recipe = bench.recipe()
    # Work for much longer than the moments are drawn from: nothing ends before it is killed.
    serial = serial | dict.fromkeys(bench.add_copies(20), serial["f0.hbae"])
    process = bench.start(recipe, ranks=2)
    bench.wait_for(draw.randrange(4), process)
    time.sleep(draw.random() * 0.3)
    ranks = bench.ranks_of(process.pid)
    if process.poll() is None and len(ranks) == 2:
        kill(process, ranks, victim)
        done = bench.finish(process)
        assert done.code != 0
        # Of its own death the launcher can tell nothing.
        assert victim == "launcher" or "signal 9" in done.err
        wait_until_gone(ranks.values())
    else:
        bench.finish(process)
    before = bench.finished()
    for name in before:
        assert bench.hashes()[name] == serial[name]
    doc = bench.document(recipe, ranks=2)
    assert (doc["exit"], doc["kept"], doc["done"]) == (0, len(before), len(serial) - len(before)), doc
    assert {n: t for n, t in bench.finished().items() if n in before} == before
    assert bench.hashes() == serial
    assert not list((bench.folder / "out").glob("*.part"))


@pytest.mark.mpi
@pytest.mark.parametrize(("seed", "victim"), list(enumerate(VICTIMS[:2])), ids=VICTIMS[:2])
def test_killed_and_restarted(bench: Bench, serial: dict[str, str], seed: int, victim: str) -> None:
    kill_and_restart(bench, serial, seed, victim)


@pytest.mark.slow
@pytest.mark.mpi
@pytest.mark.parametrize("seed", range(10, 20))
def test_killed_at_ten_random_moments(bench: Bench, serial: dict[str, str], seed: int) -> None:
    kill_and_restart(bench, serial, seed, VICTIMS[seed % len(VICTIMS)])


def test_interrupted_without_mpi(bench: Bench, serial: dict[str, str]) -> None:
    copies = bench.add_copies()
    process = bench.start_held(bench.recipe())
    bench.wait_for(1, process)
    process.send_signal(signal.SIGTERM)
    done = bench.finish(process)
    assert (done.code, done.err) == (143, "hbae: terminated\n")
    assert not list((bench.folder / "out").glob(".*.part"))
    before = bench.finished()
    assert bench.document(bench.recipe())["kept"] == len(before)
    assert 1 <= len(before) < 30
    assert bench.hashes() == serial | dict.fromkeys(copies, serial["f0.hbae"])


FULL_DISK = """
mount -t tmpfs -o size=64k none small || exit 77
head -c 57000 /dev/zero > small/ballast
"$@"; echo "code $?"; ls -A small
rm small/ballast
"$@"; echo "code $?"
mkdir copied && cp small/*.hbae copied
"""


@pytest.mark.mpi
def test_full_disk(bench: Bench, serial: dict[str, str]) -> None:
    if shutil.which("unshare") is None:
        pytest.skip("needs unshare")
    (bench.folder / "small").mkdir()
    recipe = bench.recipe(output="small")
    command = [*bench.launcher(2), *BATCH, recipe]
    done = bench.finish(bench.start_raw("unshare", "-rm", "sh", "-c", FULL_DISK, "sh", *command))
    if done.code == 77 or "unshare" in done.err:
        pytest.skip("may not mount a small file system")
    first, second = done.out.split("code ", 2)[1:]
    assert first[0] == "1", done
    assert ".part" not in first
    assert "No space left on device; make room and start it again" in done.out
    assert second[0] == "0", done
    assert bench.hashes("copied") == serial


def test_too_large_files_fail_one_by_one(bench: Bench) -> None:
    limited = ["sh", "-c", 'ulimit -f 1; exec "$@"', "sh", *BATCH, bench.recipe(method="lossless"), "--json"]
    done = bench.finish(bench.start_raw(*limited))
    assert done.code == 1
    assert "File too large" in done.out
    assert [p.name for p in (bench.folder / "out").iterdir() if p.suffix != ".jsonl"] == [".hbae-batch.lock"]


def other_version(bench: Bench, old: str, new: str) -> dict[str, str]:
    """Copy the package with another version into the folder."""
    shutil.copytree(SOURCE, bench.folder / "other" / "hbae", ignore=shutil.ignore_patterns("__pycache__"))
    init = bench.folder / "other" / "hbae" / "__init__.py"
    init.write_text(init.read_text().replace(f'"{old}"', f'"{new}"'))
    return {"PYTHONPATH": str(init.parent.parent)}


def on_two(bench: Bench, first: list[str], second: list[str], environment: dict[str, str]) -> list[str]:
    """Give the command of a job whose second rank runs something else."""
    words = ["env", *(f"{k}={v}" for k, v in environment.items()), *second]
    return [*bench.launcher(1), *first, ":", "-n", "1", *words]


@pytest.mark.mpi
def test_ranks_of_different_versions_are_refused(bench: Bench) -> None:
    other = other_version(bench, hbae.__version__, "9.9")
    command = [*BATCH, bench.recipe()]
    done = bench.finish(bench.start_raw(*on_two(bench, command, command, other)))
    assert done.code == 1
    assert "rank 1 (" in done.err
    assert f"has hbae 9.9, rank 0 ({os.uname().nodename}) has {hbae.__version__}" in done.err
    assert not (bench.folder / "out").exists()


@pytest.mark.mpi
def test_mpi4py_missing_under_mpirun(bench: Bench) -> None:
    hidden = "import sys; sys.modules['mpi4py'] = None; from hbae.cli.main import main; main()"
    command = [sys.executable, "-c", hidden, "batch", bench.recipe()]
    done = bench.finish(bench.start_raw(*bench.launcher(2), *command))
    assert done.code == 1
    assert "mpi4py is not installed: pip install 'hbae[mpi]'" in done.err
    assert not (bench.folder / "out").exists()


@pytest.mark.mpi
def test_mpi4py_without_an_mpi_library(bench: Bench) -> None:
    """A system whose MPI was removed, or is not on the library path."""
    broken = bench.folder / "broken/mpi4py"
    broken.mkdir(parents=True)
    (broken / "__init__.py").touch()
    (broken / "MPI.py").write_text("raise RuntimeError('cannot load MPI library')")
    found = "import sys; sys.path.insert(0, sys.argv.pop(1)); from hbae.cli.main import main; main()"
    command = [sys.executable, "-c", found, str(broken.parent), "batch", bench.recipe()]
    done = bench.finish(bench.start_raw(*bench.launcher(2), *command))
    assert done.code == 1
    assert "mpi4py finds no MPI library: cannot load MPI library" in done.err
    assert not (bench.folder / "out").exists()


@pytest.mark.mpi
def test_launcher_of_another_mpi_is_refused(bench: Bench) -> None:
    bench.launcher(1)
    bench.environment = {"PMI_SIZE": "2"}
    done = bench.run(bench.recipe())
    assert done.code == 1
    assert "the launcher started 2 ranks, mpi4py sees 1" in done.err
    assert not (bench.folder / "out").exists()


@pytest.mark.mpi
def test_an_input_that_changes_under_way_has_no_archive(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(source: str, *args: Any, **options: Any) -> Report:
        report = hbae.compress(source, *args, **options)
        Path(source).touch()
        return report

    setup = set_up(Solo(), bench.folder / bench.recipe())
    setup.campaign.output.mkdir()
    item = find_items(setup.campaign)[0]
    monkeypatch.setattr("hbae.batch.work.compress", slow)
    outcome = work(item, setup.campaign, setup.seat)
    assert (outcome.status, outcome.error) == ("failed", "the input has changed since the batch began")
    assert not Path(item.archive).exists()


def test_zero_files(bench: Bench) -> None:
    doc = bench.document(bench.recipe(inputs="none*.nc"), ranks=2)
    assert doc["exit"] == 2
    assert doc["error"].startswith("inputs[0]: 'none*.nc' matches no file")
    assert not (bench.folder / "out").exists()


def test_two_batches_on_one_folder(bench: Bench, serial: dict[str, str]) -> None:
    copies = bench.add_copies()
    first = bench.start_held(bench.recipe())
    bench.wait_for(1, first)
    first.send_signal(signal.SIGSTOP)
    second = bench.document(bench.recipe("other.yaml"))
    first.send_signal(signal.SIGCONT)
    assert second["exit"] == 1
    assert f"another batch is writing there (process {first.pid} on " in second["error"]
    assert bench.finish(first).code == 0
    assert bench.hashes() == serial | dict.fromkeys(copies, serial["f0.hbae"])


@pytest.fixture(scope="module")
def model(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a model trained for a moment."""
    pytest.importorskip("torch")
    path = tmp_path_factory.mktemp("model") / "m.hbm"
    command = [sys.executable, "-m", "hbae.cli.main", "train", str(inputs / "f4.nc"), "-o", str(path)]
    subprocess.run([*command, "--budget", "2ep"], check=True, capture_output=True, timeout=300)
    return path


@pytest.mark.slow
@pytest.mark.mpi
def test_a_given_model_gives_the_same_archives(bench: Bench, model: Path) -> None:
    keys = {"model": str(model), "method": "hbae"}
    alone = bench.document(bench.recipe("alone.yaml", output="alone", **keys))
    together = bench.document(bench.recipe(**keys), ranks=2)
    assert (alone["exit"], together["exit"]) == (0, 0)
    assert bench.hashes() == bench.hashes("alone")
    assert len(bench.hashes()) == 5


@pytest.mark.mpi
def test_a_model_that_knows_other_variables_is_left_out(bench: Bench, model: Path) -> None:
    """Method ``auto`` says so and writes what it would have written without the model; ``hbae`` refuses the file."""
    with netCDF4.Dataset(bench.folder / "in" / "f4.nc", "a") as d:
        d.renameVariable("T", "S")
    keys = {"inputs": ["in/f3.nc", "in/f4.nc"], "method": "auto"}
    alone = bench.run(bench.recipe("alone.yaml", output="alone", model=str(model), **keys))
    together = bench.run(bench.recipe(model=str(model), **keys), ranks=2)
    bench.run(bench.recipe("without.yaml", output="without", **keys))
    assert (alone.code, together.code) == (0, 0)
    assert bench.hashes() == bench.hashes("alone")
    assert bench.hashes()["f4.hbae"] == bench.hashes("without")["f4.hbae"]
    said = {line["archive"]: " ".join(line["notes"]) for line in bench.journal() if line["kind"] == "done"}
    assert "bytes was weighed" in said["f3.hbae"]
    assert said["f4.hbae"] == "model m.hbm: T not among the lossy variables: coded without it"
    assert said["f4.hbae"] in together.out
    refused = bench.document(bench.recipe("hbae.yaml", output="refused", model=str(model), **keys | {"method": "hbae"}))
    assert (refused["exit"], refused["done"], refused["failed"]) == (1, 1, 1)
    assert "T not among the lossy variables" in refused["failures"][0]["error"]


@pytest.mark.parametrize(
    "content", [b"", b"\x08\0\0\0\0\0\0\0{}      ", b"no model" * 100], ids=["empty", "bare", "text"]
)
def test_corrupt_model(bench: Bench, content: bytes) -> None:
    pytest.importorskip("torch")
    (bench.folder / "m.hbm").write_bytes(content)
    path = bench.folder / bench.recipe(model="m.hbm", method="hbae")
    with pytest.raises(FormatError, match=r"m\.hbm"):
        set_up(Solo(), path)
    assert not (bench.folder / "out").exists()


@pytest.mark.slow
def test_damaged_model(bench: Bench, model: Path) -> None:
    damaged = bytearray(model.read_bytes())
    damaged[-100] ^= 0xFF
    (bench.folder / "m.hbm").write_bytes(damaged)
    doc = bench.document(bench.recipe(model="m.hbm", method="hbae"))
    assert doc["exit"] in (1, 4)
    assert "m.hbm" in doc["error"]
    assert not (bench.folder / "out").exists()


@pytest.mark.slow
@pytest.mark.mpi
@pytest.mark.parametrize("damage", [True, False], ids=["damaged", "another"])
def test_model_differs_on_one_rank(bench: Bench, model: Path, damage: bool) -> None:
    node = bench.folder / "node1"
    node.mkdir()
    data = bytearray(model.read_bytes())
    (bench.folder / "m.hbm").write_bytes(data)
    if damage:
        data[-100] ^= 0xFF
    (node / "m.hbm").write_bytes(data)
    first = bench.recipe(model="m.hbm", method="hbae")
    second = bench.recipe("node1/r.yaml", model="m.hbm", method="hbae", seed=0 if damage else 1)
    done = bench.finish(bench.start_raw(*on_two(bench, [*BATCH, first], [*BATCH, second], {})))
    assert done.code == 1
    assert "rank 1 (" in done.err
    assert ("m.hbm: " if damage else "has another recipe or model file than rank 0") in done.err
    assert not (bench.folder / "out").exists()
