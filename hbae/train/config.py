# SPDX-License-Identifier: MIT
"""How a model is trained."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from hbae.errors import ConfigError
from hbae.models.config import ModelConfig


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Sizes and schedule. Errors are fractions of each variable's range.

    ``target_nrmse``: the error that the model aims at; it sets what a bit of latents is worth, with ``rate`` (per
    hyper-block, in units of the squared target). ``norm_p``: 1 for the mean of the squared errors over variables, more
    to hold the worst variables down. ``batch``: hyper-blocks per step. ``lr``: Adam's, for vectors; ``matrix_lr``: of
    the orthogonalised momentum that matrices follow, 0 for Adam on everything. ``integer_share``: the last part of the
    budget, trained as the integer decoder. ``slim_share``: part of the whole budget for making the decoder's weights
    few and short (room ``slim``), 0 to leave them as they are.

    Raises
    ------
    ConfigError
        For values out of range.
    """

    model: ModelConfig
    preset: str = "auto"
    target_nrmse: float = 5e-3
    rate: float = 5e-4
    norm_p: float = 1.0
    batch: int = 8
    lr: float = 5e-3
    matrix_lr: float = 0.02
    warmup: int = 50
    integer_share: float = 0.2
    slim_share: float = 0.0

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            if f.type == "float" and not (isinstance(value, int | float) and math.isfinite(value) and value >= 0):
                raise ConfigError(f"train: {f.name} must be a finite number of at least 0, not {value!r}")
        if type(self.batch) is not int or type(self.warmup) is not int or self.batch < 1 or self.warmup < 0:
            raise ConfigError("train: batch and warmup must be integers, batch at least 1")
        if self.target_nrmse <= 0 or self.lr <= 0 or self.norm_p < 1 or not 0 < self.integer_share <= 1:
            raise ConfigError("train: target_nrmse and lr must be positive, norm_p >= 1, integer_share in (0, 1]")
        if self.slim_share > 0.9:
            raise ConfigError("train: slim_share must be at most 0.9")

    def to_json(self) -> dict[str, Any]:
        """Give a JSON form."""
        return asdict(self)

    @staticmethod
    def from_json(doc: Mapping[str, Any]) -> TrainConfig:
        """Undo :meth:`to_json`.

        Raises
        ------
        ConfigError
            For missing or unknown keys and bad values.
        """
        try:
            rest = dict(doc)
            return TrainConfig(model=ModelConfig.from_json(rest.pop("model")), **rest)
        except (TypeError, KeyError, ValueError) as e:
            raise ConfigError(f"train config: {e}") from e
