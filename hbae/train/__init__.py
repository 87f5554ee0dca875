# SPDX-License-Identifier: MIT
"""Training: recipes, the loop, checkpoints, and the model file."""

from hbae.train.blocks import Report, TrainedModel, train_blocks
from hbae.train.config import TrainConfig
from hbae.train.loop import RunOptions
from hbae.train.model_file import decoder_id, load_model, save_model
from hbae.train.recipes import RECIPES, recipe

__all__ = [
    "RECIPES",
    "Report",
    "RunOptions",
    "TrainConfig",
    "TrainedModel",
    "decoder_id",
    "load_model",
    "recipe",
    "save_model",
    "train_blocks",
]
