# SPDX-License-Identifier: MIT
"""train: files to a model, and the model's use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import hbae
from hbae.errors import ConfigError, ModelMismatchError, OutputExistsError
from hbae.pipeline.training import train
from hbae.slim import Aim

if TYPE_CHECKING:
    from conftest import Run

pytest.importorskip("torch")


def test_model_of_two_files_codes_a_third(run: Run, tmp_path: Path, make_fields: Callable[..., None]) -> None:
    for i, name in enumerate("abc"):
        make_fields(tmp_path / f"{name}.nc", shift=0.1 * i, times=12 + 4 * i)
    done = run("train", "a.nc", "b.nc", "-o", "m.hbm", "--budget", "2ep", "--seed", "4", "--slim", "--json")
    assert done.code == 0, done.err
    assert done.doc["names"] == ["T", "U", "V"]
    assert done.doc["size"] == (tmp_path / "m.hbm").stat().st_size
    assert done.doc["sources"] == ["a.nc", "b.nc"]
    slim = done.doc["slim"]
    assert slim["bytes_after"] <= slim["bytes_before"]
    assert sum(r["nbytes"] for r in slim["layers"].values()) == slim["bytes_after"] < done.doc["model_size"]
    again = run("train", "a.nc", "-o", "m.hbm", "--budget", "1ep")
    assert again.code == 2
    assert "exists" in again.err
    args = ("--bound", "nrmse=1e-3", "--model", "m.hbm", "--method", "hbae", "--json")
    used = run("compress", "c.nc", "-o", "c.hbae", *args)
    assert used.code == 0, used.out
    assert 0 < used.doc["model_size"] < used.doc["size"]
    shared = run("compress", "c.nc", "-o", "d.hbae", *args, "--no-embed").doc
    assert shared["model_shared"]
    assert shared["size"] < used.doc["size"] - used.doc["model_size"] // 2
    assert run("verify", "d.hbae", "--against", "c.nc").code == 0


def test_a_budget_trains_on_the_way(run: Run, files: Path) -> None:
    done = run("compress", "a.nc", "-o", "b.hbae", "--bound", "nrmse=1e-3", "--budget", "1ep", "--json")
    assert done.code == 0, done.out
    assert done.doc["seconds"]["train"] > 0
    assert run("verify", "b.hbae", "--against", "a.nc").code == 0


def test_files_must_agree(tmp_path: Path, make_fields: Callable[..., None]) -> None:
    make_fields(tmp_path / "a.nc")
    make_fields(tmp_path / "b.nc", names="TU")
    with pytest.raises(ModelMismatchError, match="lacks V"):
        train([tmp_path / "a.nc", tmp_path / "b.nc"], tmp_path / "m.hbm", budget="1ep")
    with pytest.raises(ConfigError, match="no floating-point"):
        train(tmp_path / "a.nc", tmp_path / "m.hbm", budget="1ep", variables=("flag",))
    (tmp_path / "m.hbm").touch()
    with pytest.raises(OutputExistsError, match="exists"):
        train(tmp_path / "a.nc", tmp_path / "m.hbm", budget="1ep")


def test_slimmed_and_plain_models_hold_every_bound(
    run: Run, tmp_path: Path, make_fields: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even a decoder of 2-bit weights, half of them 0, only costs bytes."""
    from hbae.train import slim

    make_fields(tmp_path / "a.nc")
    plain = train(tmp_path / "a.nc", tmp_path / "plain.hbm", budget="2ep")
    assert plain.slim is None
    real = slim.slim

    def forced(start, score, retrain, aim, config, **kw):  # type: ignore[no-untyped-def]
        return real(start, score, retrain, Aim(limit=1e30), replace(config, levels=(0.5,), bits=(2,)), **kw)

    monkeypatch.setattr(slim, "slim", forced)
    small = train(tmp_path / "a.nc", tmp_path / "small.hbm", budget="2ep", slim=True)
    assert small.slim is not None
    assert small.slim["kept"]
    assert all(r["density"] <= 0.5 for r in small.slim["layers"].values() if r["weights"] > 1)
    assert small.model_size < 0.6 * plain.model_size
    for model in ("plain", "small"):
        bound = "T:abs=0.05,block_nrmse=1e-2", "U:nrmse=1e-3", "V:nrmse=1e-3"
        report = hbae.compress(
            tmp_path / "a.nc",
            tmp_path / "a.hbae",
            list(bound),
            model=tmp_path / f"{model}.hbm",
            method="hbae",
            overwrite=True,
        )
        assert report.model_size
        assert run("verify", "a.hbae", "--against", "a.nc").code == 0


def test_same_seed_same_model(tmp_path: Path, make_fields: Callable[..., None]) -> None:
    make_fields(tmp_path / "a.nc")
    ids = [
        train(tmp_path / "a.nc", tmp_path / f"{i}.hbm", budget="1ep", seed=s).decoder_id
        for i, s in enumerate((1, 1, 5))
    ]
    assert ids[0] == ids[1]
    assert ids[0] != ids[2]
