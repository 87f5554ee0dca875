# SPDX-License-Identifier: MIT
"""Ranks train the model of one process, go on after a kill, and refuse to train different things."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import netCDF4
import numpy as np
import pytest

from hbae.batch.machine import make_card
from hbae.batch.training import Applicant, agree, check_asked, deal_devices, torchrun_size
from hbae.errors import BatchError, ConfigError, OutputExistsError, TrainingError
from hbae.ranks import Solo

if TYPE_CHECKING:
    from conftest import Bench, Done

pytest.importorskip("torch")

from hbae.pipeline.training import check_outputs
from hbae.train.log import COLUMNS, TrainLog
from hbae.train.loop import RunOptions
from hbae.train.ranks import RankGroup, own_rows

KEPT = ["--budget", "25ep"]
TRAIN = [sys.executable, "-m", "hbae.cli.main", "train"]
HERE = Path(__file__).parent
DYING = """
import os
import signal
from hbae.cli.main import main
from hbae.train.loop import Trainer

real = Trainer.take_step

def take_step(self, *args, **kwargs):
    if self.step == 50:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(self, *args, **kwargs)

Trainer.take_step = take_step
main()
"""


def write_waves(path: Path, times: int = 50) -> None:
    """Write ten smooth variables on a grid of hyper-blocks of 50 x 4 x 4."""
    x, y, z = np.meshgrid(np.arange(times) / 9, np.arange(16) / 9, np.arange(16) / 9, indexing="ij")
    with netCDF4.Dataset(path, "w") as d:
        for name, size in zip(("time", "lat", "lon"), x.shape, strict=True):
            d.createDimension(name, size)
        for i in range(10):
            wave = np.sin(x + i / 3) * np.cos(y * (1 + i / 5)) + 0.3 * np.sin(z * i)
            d.createVariable(f"Y{i}", "f4", ("time", "lat", "lon"))[:] = wave


@dataclass
class School:
    """A folder with ``a.nc``, where ``hbae train`` runs."""

    bench: Bench
    done: Done | None = None

    @property
    def folder(self) -> Path:
        """Where it runs."""
        return self.bench.folder

    def start(self, *args: str, ranks: int = 0) -> subprocess.Popen[str]:
        """Start ``hbae train a.nc ARGS``, under mpirun where ranks are given."""
        return self.bench.start_raw(*self.bench.launcher(ranks), *TRAIN, "a.nc", *args)

    def run(self, *args: str, ranks: int = 0) -> Done:
        """Run it to its end."""
        return self.bench.finish(self.start(*args, ranks=ranks))

    def log(self, name: str) -> list[dict[str, Any]]:
        """Give the lines of a log; numbers as numbers."""
        with (self.folder / name).open() as f:
            return [{k: v if k == "phase" else float(v) for k, v in row.items()} for row in csv.DictReader(f)]


@pytest.fixture
def school(tmp_path: Path, make_bench: Callable[[Path], Bench]) -> School:
    """Give a test's own folder."""
    write_waves(tmp_path / "a.nc")
    return School(make_bench(tmp_path))


@pytest.mark.mpi
def test_ranks_take_the_steps_of_one_process(school: School) -> None:
    """Uneven shares of a batch, masks, the norm over variables, and a sample sent from host to host."""
    (school.folder / "scratch").mkdir()
    program = [sys.executable, str(HERE / "train_together.py"), "scratch"]
    done = school.bench.finish(school.bench.start_raw(*school.bench.launcher(3), *program))
    assert done.code == 0, done
    told = json.loads(next(line for line in done.out.splitlines() if line.startswith("[")))
    assert told[0] == told[1] == told[2]
    # Orthogonal steps blow the rounding of small singular values up.
    limits = {"gradient": 1e-5, "weights": 5e-2, "loss": 1e-4}
    for name, distance in told[0].items():
        assert distance < limits[name.split(": ")[1]], told[0]
    assert not list((school.folder / "scratch").iterdir())


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, make_bench: Callable[[Path], Bench]) -> School:
    """Give a folder where two ranks have trained ``m.hbm`` with the log ``m.csv``, rank 1 in a folder of its own."""
    school = School(make_bench(tmp_path_factory.mktemp("whole")))
    write_waves(school.folder / "a.nc")
    for name in ("scratch", "rank1"):
        (school.folder / name).mkdir()
    words = [*TRAIN, str(school.folder / "a.nc"), "-o", "m.hbm", *KEPT, "--log", "m.csv", "--checkpoint", "c"]
    words += ["--save-every", "0", "--json", "--scratch", str(school.folder / "scratch")]
    apart = [":", "-n", "1", "-wdir", str(school.folder / "rank1"), *words]
    school.done = school.bench.finish(school.bench.start_raw(*school.bench.launcher(1), *words, *apart))
    assert school.done.code == 0, school.done
    return school


@pytest.mark.mpi
def test_command_on_ranks(school: School, whole: School) -> None:
    """The same model but for rounding; what the log says; only rank 0 writes, and only what was asked for."""
    assert whole.done is not None
    one = school.run("-o", "m.hbm", *KEPT, "--log", "m.csv", "--json")
    assert one.code == 0, one.err
    docs = [json.loads(done.out) for done in (one, whole.done)]
    assert docs[0]["steps"] == docs[1]["steps"]
    assert docs[0]["mean_nrmse"] == pytest.approx(docs[1]["mean_nrmse"], rel=0.02)
    logs = [school.log("m.csv"), whole.log("m.csv")]
    for a, b in zip(*logs, strict=True):
        assert (a["step"], a["epoch"], a["phase"], a["lr"]) == (b["step"], b["epoch"], b["phase"], b["lr"])
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-2)
        assert a["blocks_per_second"] == a["blocks_per_second_per_rank"] > 0
        assert b["blocks_per_second"] == pytest.approx(2 * b["blocks_per_second_per_rank"], rel=1e-2)
    assert [r["step"] for r in logs[1]] == [*range(20, docs[1]["steps"], 20), docs[1]["steps"]]
    assert {r["ranks"] for r in logs[1]} == {2}
    phases = [r["phase"] for r in logs[1]]
    assert phases == sorted(phases)
    assert set(phases) == {"float", "integer"}
    assert {p.name for p in whole.folder.iterdir()} == {"a.nc", "scratch", "rank1", "m.hbm", "m.csv"}
    assert not list((whole.folder / "scratch").iterdir())
    assert not list((whole.folder / "rank1").iterdir())


@pytest.mark.mpi
def test_killed_rank_and_restart(school: School, whole: School) -> None:
    """The job ends, and the same command goes on from the checkpoint to the model of a run that nobody killed."""
    again = ["-o", "m.hbm", *KEPT, "--log", "m.csv", "--checkpoint", "m.ckpt", "--save-every", "0", "-v"]
    other = [":", "-n", "1", sys.executable, "-c", DYING, "train", "a.nc", *again]
    command = [*school.bench.launcher(1), *TRAIN, "a.nc", *again, *other]
    assert school.bench.finish(school.bench.start_raw(*command)).code != 0
    assert not (school.folder / "m.hbm").exists()
    before = school.log("m.csv")
    assert [r["step"] for r in before] == [20, 40]
    done = school.run(*again, ranks=2)
    assert done.code == 0, done.err
    assert "going on from step 40 " in done.err
    after = school.log("m.csv")
    assert after[:2] == before[:2]
    assert [(r["step"], r["loss"]) for r in after] == [(r["step"], r["loss"]) for r in whole.log("m.csv")]
    assert (school.folder / "m.hbm").read_bytes() == (whole.folder / "m.hbm").read_bytes()
    assert not (school.folder / "m.ckpt").exists()
    assert not list(school.folder.glob("*.part"))


@pytest.mark.mpi
@pytest.mark.parametrize(
    ("change", "message"),
    [(["--seed", "2"], "has seed: 2; rank 0"), (["--budget", "3ep"], "has budget: 3ep; rank 0")],
    ids=["seed", "budget"],
)
def test_ranks_with_other_options_are_refused(school: School, change: list[str], message: str) -> None:
    common = [*TRAIN, "a.nc", "-o", "m.hbm", "--budget", "2ep"]
    launcher = school.bench.launcher(1)
    words = [*launcher, *common, ":", "-n", "1", *common, *change]
    done = school.bench.finish(school.bench.start_raw(*words))
    assert done.code == 1
    assert message in done.err
    assert not (school.folder / "m.hbm").exists()


@pytest.mark.mpi
def test_an_output_that_exists_is_told_once(school: School) -> None:
    (school.folder / "m.hbm").touch()
    done = school.run("-o", "m.hbm", "--budget", "2ep", ranks=2)
    assert (done.code, done.err.count("m.hbm exists")) == (2, 1), done


@pytest.mark.slow
def test_torchrun(school: School) -> None:
    """Same ranks, other launcher: the same bytes."""
    args = ["a.nc", "-o", "m.hbm", "--budget", "2ep", "--log", "m.csv"]
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "--", "hbae.cli.main"]
    done = school.bench.finish(school.bench.start_raw(*launch, "train", *args))
    assert done.code == 0, done.err
    assert school.run("-o", "n.hbm", "--budget", "2ep", ranks=2).code == 0
    assert (school.folder / "m.hbm").read_bytes() == (school.folder / "n.hbm").read_bytes()
    refused = school.bench.finish(school.bench.start_raw(*launch, "train", *args))
    assert refused.code != 0
    assert "m.hbm exists" in refused.err


def test_outputs_are_checked_before_any_work(tmp_path: Path) -> None:
    own, out = tmp_path / "notes.csv", tmp_path / "m.hbm"
    own.write_text("my,own\n1,2\n")
    with pytest.raises(OutputExistsError, match="no log of hbae train"):
        check_outputs(out, RunOptions(log=own), overwrite=True)
    with pytest.raises(ConfigError, match="different files"):
        check_outputs(out, RunOptions(checkpoint=out), overwrite=True)
    with pytest.raises(ConfigError, match="no such folder"):
        check_outputs(out, RunOptions(checkpoint=tmp_path / "no" / "c"), overwrite=True)
    own.write_text(",".join(COLUMNS) + "\n20,1,1,float,1,1,1,1,1,1\n40,2,2,float,1,1,1,1,1,1\n60,3,")
    check_outputs(out, RunOptions(log=own), overwrite=True)
    with TrainLog.start(own, 20):
        assert [line.split(",")[0] for line in own.read_text().splitlines()] == ["step", "20"]


def test_what_differs_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    assert agree(Solo(), "cuda", [tmp_path / "a"], {}).device == "cuda"
    cards = [make_card(r, None) for r in range(3)]
    asked = [{"seed": "1"}, {"seed": "1"}, {"seed": "1", "a.nc": "5 bytes of 7"}]
    with pytest.raises(BatchError, match=r"rank 2 .* has a\.nc: 5 bytes of 7; rank 0 .* has nothing"):
        check_asked([Applicant(c, a) for c, a in zip(cards, asked, strict=True)])
    failed = make_card(1, None, ConfigError("a.nc: No such file or directory"))
    with pytest.raises(BatchError, match=r"rank 1 .*: a\.nc: No such file"):
        check_asked([Applicant(cards[0], asked[0]), Applicant(failed, {})])


def test_batches_are_shared_out() -> None:
    ranks = [RankGroup(r, 3) for r in range(3)]
    assert [own_rows(8, r) for r in ranks] == [slice(0, 2), slice(2, 5), slice(5, 8)]
    with pytest.raises(TrainingError, match="a batch of 2 hyper-blocks is too small for 3 ranks"):
        own_rows(2, ranks[0])


def test_gpus_are_dealt_out() -> None:
    cards = [replace(make_card(r, None), host=h, gpus=2) for r, h in enumerate("aabb")]
    assert deal_devices(cards, "cuda") == ["cuda:0", "cuda:1"] * 2
    assert deal_devices(cards, "cpu") == ["cpu"] * 4
    with pytest.raises(ConfigError, match="finds 1 GPUs"):
        deal_devices([replace(c, gpus=1) for c in cards], "cuda")
    with pytest.raises(ConfigError, match="say cuda"):
        deal_devices(cards, "cuda:1")


def test_torchrun_is_found_by_its_variables() -> None:
    names = {"TORCHELASTIC_RUN_ID": "x", "RANK": "0", "WORLD_SIZE": "4", "MASTER_ADDR": "h", "MASTER_PORT": "1"}
    assert torchrun_size(names) == 4
    assert torchrun_size({k: v for k, v in names.items() if k != "MASTER_PORT"}) == 1
