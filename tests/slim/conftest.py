# SPDX-License-Identifier: MIT
"""A linear problem with a known answer, as callables: most of its weights do nothing."""

from __future__ import annotations

import numpy as np
import pytest

from hbae.arrays import Array
from hbae.slim import Rules, Trial


class Problem:
    """``y = B tanh(A x)`` with sparse A and B; retraining is plain gradient descent on the free weights."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        a, b = rng.normal(size=(12, 20)), rng.normal(size=(6, 12))
        a[rng.random(a.shape) < 0.7] = 0.0
        b[rng.random(b.shape) < 0.5] = 0.0
        self.x = rng.normal(size=(300, 20))
        self.y = np.tanh(self.x @ a.T) @ b.T
        noise = {"a": rng.normal(size=a.shape), "b": rng.normal(size=b.shape)}
        self.start = Trial({"a": a + 0.03 * noise["a"], "b": b + 0.03 * noise["b"]}, 0)
        self.seen: list[Rules] = []

    def score(self, trial: Trial) -> float:
        a, b = trial.weights["a"], trial.weights["b"]
        return float(((np.tanh(self.x @ a.T) @ b.T - self.y) ** 2).mean())

    def retrain(self, trial: Trial, rules: Rules, share: float) -> Trial:
        self.seen.append(rules)
        w = {n: v.copy() for n, v in trial.weights.items()}
        for _ in range(round(share * 200)):
            a, b = (rules[n].apply(w[n]) for n in ("a", "b"))
            h = np.tanh(self.x @ a.T)
            e = (h @ b.T - self.y) / len(self.x)
            w["b"] -= 0.2 * e.T @ h
            w["a"] -= 0.2 * ((e @ b) * (1 - h * h)).T @ self.x
        return Trial(w, trial.state + 1)


@pytest.fixture
def problem() -> Problem:
    return Problem()


def zeros_kept(weights: Array, mask: Array) -> bool:
    """Tell whether all weights outside the mask are exactly 0."""
    return not weights[~mask].any()
