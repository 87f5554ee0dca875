# SPDX-License-Identifier: MIT
"""A network on trial: its weights by layer, what they may be, and what is asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from hbae.arrays import Array
from hbae.errors import ConfigError


@dataclass(frozen=True, eq=False)
class Trial:
    """Weights by layer (float64, any shape), and whatever else the caller's callables need to go on from there."""

    weights: Mapping[str, Array]
    state: Any = None


@dataclass(frozen=True, eq=False)
class Rule:
    """What the weights of one layer may be: 0 where ``mask`` is False, and one of ``levels`` where those are given.

    ``levels`` ascend and hold 0.
    """

    mask: Array
    levels: Array | None = None

    def apply(self, weights: Array) -> Array:
        """Give the nearest weights that keep the rule."""
        if self.levels is not None:
            middles = (self.levels[1:] + self.levels[:-1]) / 2
            weights = self.levels[np.searchsorted(middles, weights)]
        out: Array = np.where(self.mask, weights, 0.0)
        return out


Rules = Mapping[str, Rule]
Score = Callable[[Trial], float]
"""Gives the validation loss with exactly ``trial.weights`` in place."""
Retrain = Callable[[Trial, Rules, float], Trial]
"""Trains on under rules for a share (0 to 1) of the caller's retraining budget."""


@dataclass(frozen=True)
class Aim:
    """What is least: bytes plus ``price`` times loss, with the loss at most ``limit``.

    ``price``: bytes that one unit of loss costs elsewhere (0: only the limit counts).

    Raises
    ------
    ConfigError
        When the price is below 0 or infinite, or the limit not above 0.
    """

    price: float = 0.0
    limit: float = math.inf

    def __post_init__(self) -> None:
        if not (0 <= self.price < math.inf and self.limit > 0):
            raise ConfigError("slim: the price must be at least 0 and finite, the limit above 0")

    def cost(self, loss: float, nbytes: float) -> float:
        """Give the cost; a loss over the limit costs a hundred times its excess, one that is no number infinity."""
        if not math.isfinite(loss):
            return math.inf
        over = max(0.0, loss / self.limit - 1)
        return (nbytes + self.price * loss) * (1 + 100 * over)


def keep_rules(trial: Trial, rules: Rules) -> Trial:
    """Give the trial with weights that keep the rules, whatever retraining did."""
    return Trial({n: rules[n].apply(w) if n in rules else w for n, w in trial.weights.items()}, trial.state)


def check_weights(weights: Mapping[str, Array]) -> None:
    """Check that there are weights and all are finite.

    Raises
    ------
    ConfigError
        When not; the message names the layer.
    """
    if not weights:
        raise ConfigError("slim: the network has no layer of weights")
    for name, w in weights.items():
        if w.size == 0 or not np.isfinite(w).all():
            raise ConfigError(f"slim: layer {name} has no weights, or weights that are not finite")
