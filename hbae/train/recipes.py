# SPDX-License-Identifier: MIT
"""One function per preset: geometry and amount of data in, a training config out."""

from __future__ import annotations

from collections.abc import Callable

from hbae.errors import ConfigError
from hbae.models.config import ModelConfig
from hbae.train.config import TrainConfig

BYTES_PER_WEIGHT = 1700
WEIGHT_BITS = 9
FEWEST, MOST = 3_000, 1_500_000
VALUES_PER_STEP = 1_050_000
# Part of the budget for making the decoder small, where that is asked for.
SLIM_SHARE = 0.2


def s3d(num_hyper: int, num_blocks: int, points: int, num_variables: int) -> TrainConfig:
    """Reacting flow with tens of species: blocks of 5 x 4 x 4 points, 10 blocks in time (arXiv 2409.05357)."""
    model = fit_model(num_hyper, num_blocks, points, num_variables, latents=128)
    return _train(model, num_hyper, "s3d", target_nrmse=5e-3)


def e3sm(num_hyper: int, num_blocks: int, points: int, num_variables: int) -> TrainConfig:
    """Climate fields of one or few variables: blocks of 6 x 16 x 16 points, 5 blocks in time."""
    model = fit_model(num_hyper, num_blocks, points, num_variables, latents=64, block_latents=8)
    return _train(model, num_hyper, "e3sm", target_nrmse=3e-3)


def xgc(num_hyper: int, num_blocks: int, points: int, num_variables: int) -> TrainConfig:
    """Histograms of 39 x 39 velocities; the 8 planes of a node are a hyper-block."""
    model = fit_model(num_hyper, num_blocks, points, num_variables, latents=64, block_latents=8)
    return _train(model, num_hyper, "xgc", target_nrmse=3e-3)


def auto(num_hyper: int, num_blocks: int, points: int, num_variables: int) -> TrainConfig:
    """Any other data: latents by the number of values in a hyper-block."""
    values = num_blocks * points * num_variables
    latents = max(8, min(128, values // 48 // 8 * 8))
    block_latents = 0 if num_variables >= 8 else min(8, points * num_variables // 16)
    model = fit_model(num_hyper, num_blocks, points, num_variables, latents=latents, block_latents=block_latents)
    return _train(model, num_hyper, "auto", target_nrmse=5e-3)


RECIPES: dict[str, Callable[[int, int, int, int], TrainConfig]] = {"s3d": s3d, "e3sm": e3sm, "xgc": xgc, "auto": auto}


def recipe(preset: str, shape: tuple[int, int, int, int], stored_hyper: int | None = None) -> TrainConfig:
    """Give the config of a preset for data of shape (N, K, P, V).

    ``stored_hyper``: hyper-blocks that the model will serve, where training sees only a sample.

    Raises
    ------
    ConfigError
        For an unknown preset.
    """
    if preset not in RECIPES:
        raise ConfigError(f"preset: unknown name {preset!r}; known: {', '.join(RECIPES)}")
    n, k, p, v = shape
    return RECIPES[preset](stored_hyper or n, k, p, v)


def fit_model(
    num_hyper: int, num_blocks: int, points: int, num_variables: int, *, latents: int, block_latents: int = 0
) -> ModelConfig:
    """Give the widest networks whose stored weights stay below one per 1,700 raw bytes (3 k to 1.5 M)."""
    room = num_hyper * num_blocks * points * num_variables * 4 / BYTES_PER_WEIGHT
    room = max(FEWEST, min(MOST, room))
    models = []
    for embed in (8, 16, 24, 32, 48, 64, 96, 128, 192, 256):
        few = max(4, min(latents, int(latents * min(1.0, embed / 24)) // 4 * 4))
        models.append(
            ModelConfig(
                num_blocks=num_blocks,
                points=points,
                num_variables=num_variables,
                latents=few,
                embed=embed,
                hidden=max(16, embed * 4 // 3 // 8 * 8),
                channels=max(2, min(8, num_variables // 2)),
                head=max(8, min(64, embed)),
                block_latents=block_latents,
                block_hidden=max(8, embed // 2),
                block_channels=max(1, min(4, num_variables // 4)),
                weight_bits=WEIGHT_BITS,
            )
        )
    return max((m for m in models if m.decoder_weights <= room), key=lambda m: m.embed, default=models[0])


def _train(model: ModelConfig, num_hyper: int, preset: str, target_nrmse: float) -> TrainConfig:
    per_hyper = model.num_blocks * model.points * model.num_variables
    batch = max(4, min(256, num_hyper // 16, VALUES_PER_STEP // per_hyper))
    return TrainConfig(model=model, preset=preset, target_nrmse=target_nrmse, batch=batch)
