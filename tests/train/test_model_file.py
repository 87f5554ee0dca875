# SPDX-License-Identifier: MIT
"""Model files come back the same, and bad ones are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hbae.arrays import Array
from hbae.container.sections import encode_decoder
from hbae.errors import FormatError, HbaeError, ModelMismatchError
from hbae.train.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from hbae.train.config import TrainConfig
from hbae.train.model_file import decoder_id, load_model, save_model

from .test_blocks import train


@pytest.fixture
def saved(blocks: Array, config: TrainConfig, tmp_path: Path) -> tuple[Path, Any]:
    model = train(blocks, config, 2)
    path = tmp_path / "m.hbm"
    assert save_model(path, model) == decoder_id(encode_decoder(model.decoder))
    return path, model


def test_round_trip(saved: tuple[Path, Any], blocks: Array) -> None:
    path, model = saved
    back = load_model(path)
    assert (back.names, back.geometry, back.config, back.seed) == (
        model.names,
        model.geometry,
        model.config,
        model.seed,
    )
    assert encode_decoder(back.decoder) == encode_decoder(model.decoder)
    for a, b in zip(model.encode(blocks), back.encode(blocks), strict=True):
        assert np.array_equal(a, b)
    again = path.with_name("again.hbm")
    save_model(again, back)
    assert again.read_bytes() == path.read_bytes()


def change(path: Path, doc: dict[str, Any] | None = None, tensors: dict[str, Any] | None = None) -> None:
    state = load_checkpoint(path)
    merged = {k: v for k, v in {**state.tensors, **(tensors or {})}.items() if v is not None}
    save_checkpoint(path, Checkpoint({**state.doc, **(doc or {})}, merged))


@pytest.mark.parametrize(
    "doc",
    [
        {"format": "x"},
        {"version": 2},
        {"names": ["a"]},
        {"names": None},
        {"config": {}},
        {"offset": ["nan"]},
        {"scale": ["0x0p+0"] * 6},
        {"geometry": 3},
        {"seed": "a"},
        {"decoder_id": "0"},
    ],
)
def test_bad_descriptions(saved: tuple[Path, Any], doc: dict[str, Any]) -> None:
    change(saved[0], doc)
    with pytest.raises((FormatError, ModelMismatchError), match="m"):
        load_model(saved[0])


def test_bad_tensors(saved: tuple[Path, Any]) -> None:
    original = saved[0].read_bytes()
    weight = "hyper_encoder.latent.weight"
    for tensors in (
        {"decoder": None},
        {"decoder": torch.zeros(5)},
        {"decoder": torch.zeros(50, dtype=torch.uint8)},
        {weight: None},
        {weight: torch.zeros(2, 2)},
        {"extra": torch.zeros(1)},
    ):
        saved[0].write_bytes(original)
        change(saved[0], None, tensors)
        with pytest.raises((FormatError, ModelMismatchError), match="m"):
            load_model(saved[0])


def test_huge_sizes_are_refused_before_allocation(saved: tuple[Path, Any]) -> None:
    config = json.loads(json.dumps(load_checkpoint(saved[0]).doc["config"]))
    config["model"] |= {"hidden": 1 << 20}
    change(saved[0], {"config": config})
    with pytest.raises(FormatError, match="m"):
        load_model(saved[0])


def test_random_damage_never_crashes(saved: tuple[Path, Any]) -> None:
    data = saved[0].read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(60):
        hurt = bytearray(data)
        for _ in range(3):
            hurt[rng.integers(len(hurt))] ^= 1 << rng.integers(8)
        saved[0].write_bytes(bytes(hurt[: rng.integers(1, len(hurt) + 1)] if rng.random() < 0.4 else hurt))
        try:
            load_model(saved[0])
        except HbaeError:
            continue


def test_descriptions_of_many_values_are_refused(saved: tuple[Path, Any]) -> None:
    change(saved[0], {"more": [0] * (1 << 20)})
    with pytest.raises(FormatError, match="not a file of hbae"):
        load_model(saved[0])


def test_odd_descriptions_never_crash(saved: tuple[Path, Any]) -> None:
    """Any value of the description may be anything."""
    doc = json.loads(json.dumps(load_checkpoint(saved[0]).doc))
    odd = [None, True, 0, -1, 2**31, 2**70, 1e308, float("nan"), "", "x", [], [[]], {}, {"a": 1}]
    places = [(k,) for k in doc] + [("config", k) for k in doc["config"]]
    places += [("config", "model", k) for k in doc["config"]["model"]]
    for i, place in enumerate(places):
        for value in odd[i % 2 :: 2]:
            spoiled = json.loads(json.dumps(doc))
            inner = spoiled
            for key in place[:-1]:
                inner = inner[key]
            inner[place[-1]] = value
            change(saved[0], spoiled)
            try:
                load_model(saved[0])
            except HbaeError:
                continue
