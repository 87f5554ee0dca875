# SPDX-License-Identifier: MIT
"""Recipes give networks in proportion to the data, and configs check themselves."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hbae.errors import ConfigError
from hbae.train.config import TrainConfig
from hbae.train.recipes import BYTES_PER_WEIGHT, FEWEST, MOST, RECIPES, recipe

SHAPES = {
    "s3d": (576, 10, 80, 54),
    "e3sm": (120, 5, 1536, 1),
    "xgc": (16395, 8, 1521, 1),
    "auto": (300, 4, 64, 2),
}


@pytest.mark.parametrize("preset", sorted(RECIPES))
def test_decoder_fits_the_data(preset: str) -> None:
    for shape in SHAPES.values():
        cfg = recipe(preset, shape)
        raw = shape[0] * shape[1] * shape[2] * shape[3] * 4
        smallest = recipe(preset, (1, *shape[1:])).model.decoder_weights
        assert cfg.model.decoder_weights <= max(min(raw / BYTES_PER_WEIGHT, MOST), FEWEST, smallest)
        assert TrainConfig.from_json(cfg.to_json()) == cfg


def test_more_data_more_weights() -> None:
    few, many = recipe("s3d", (50, 10, 80, 54)), recipe("s3d", (50, 10, 80, 54), 5000)
    assert few.model.decoder_weights < many.model.decoder_weights
    with pytest.raises(ConfigError, match="known: s3d"):
        recipe("x", (1, 1, 1, 1))


@pytest.mark.parametrize(
    "change", [{"lr": 0.0}, {"rate": float("nan")}, {"batch": 0}, {"norm_p": 0.5}, {"integer_share": 0.0}]
)
def test_config_rejects_nonsense(change: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="train"):
        replace(recipe("s3d", SHAPES["s3d"]), **change)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="train config"):
        TrainConfig.from_json({"x": 1})
