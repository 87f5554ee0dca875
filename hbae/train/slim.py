# SPDX-License-Identifier: MIT
"""The rate equation for decoders: fewest bytes of weights, latents and correction together, by slimming."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from hbae.models.quant import DecoderNet, QuantLinear
from hbae.slim import Aim, Rules, SlimConfig, SlimReport, Trial, slim
from hbae.train.loop import Trainer, scheduled_lr

ROUNDS = 40
BITS = (16, 8, 7, 6, 5, 4, 3, 2)
RATE_EQUATION = Aim(price=1.0)
SHARES = (0.1, 0.4, 0.1, 0.4)
STEPS_SHARE = 0.75
LONG = 0.3


def slim_decoder(trainer: Trainer, score: Callable[[], float], aim: Aim = RATE_EQUATION) -> SlimReport:
    """Prune and quantise the decoders of a trained, integer net in place, within what the budget holds for that.

    ``score`` judges the net as it is; with the default aim it gives bytes (:class:`hbae.train.rate.RateEquation`), and
    their sum with the bytes of the decoder's weights is least.

    Raises
    ------
    ConfigError
        When the weights or the score are not finite.
    """
    subject = _Decoders(trainer, score)
    config = SlimConfig(unit=1.0, bits=BITS, shares=SHARES, rounds=ROUNDS, seed=trainer.seed)
    made = slim(subject.start, subject.score, subject.retrain, aim, config, going=subject.going)
    subject.put(made.trial)
    trainer.net.eval()
    return made.report


@dataclass(frozen=True, eq=False)
class _State:
    """All that training from here on depends on, but for the order of batches and the noise."""

    net: Mapping[str, torch.Tensor]
    optimisers: list[Any]


class _Decoders:
    """The layers of both decoders as weights in units of their integers, with scoring and retraining."""

    def __init__(self, trainer: Trainer, judge: Callable[[], float]) -> None:
        self.trainer, self.judge = trainer, judge
        nets = {"hyper": trainer.net.hyper_decoder, "block": trainer.net.block_decoder}
        self.layers = {
            f"{name}.{i}": (layer, net.weight_max)
            for name, net in nets.items()
            if isinstance(net, DecoderNet)
            for i, layer in enumerate(m for m in net.layers if isinstance(m, QuantLinear))
        }
        self.begin, self.before = time.monotonic(), trainer.spent
        self.steps, self.taken = self._steps(), 0
        self.loaded: _State | None = None
        self.start = self._trial()

    def _steps(self) -> int:
        t = self.trainer
        if t.budget.epochs is not None:
            return max(0, t.total - t.step)
        left = (t.budget.seconds or 0.0) - t.spent
        return max(0, int(STEPS_SHARE * left * t.step / max(t.spent, 1e-9)))

    def going(self) -> bool:
        """Tell whether the budget allows more; one in epochs always does."""
        t = self.trainer
        return t.budget.seconds is None or self.before + time.monotonic() - self.begin < t.budget.seconds

    def score(self, trial: Trial) -> float:
        """Judge the net with exactly a trial's weights."""
        self.put(trial)
        self.trainer.net.eval()
        with torch.no_grad():
            return self.judge()

    def retrain(self, trial: Trial, rules: Rules, share: float) -> Trial:
        """Train encoder and decoders on while weights outside the masks stay 0."""
        self.put(trial)
        self.trainer.net.train()
        steps = int(share * self.steps)
        masks = {}
        for name, rule in rules.items():
            layer = self.layers[name][0]
            masks[name] = torch.from_numpy(np.ascontiguousarray(rule.mask)).to(layer.weight)
            if rule.levels is not None:
                layer.levels = torch.from_numpy(rule.levels).to(layer.weight)
        # A short retraining takes short steps: it has no time to settle after long ones.
        slow = min(1.0, share / LONG)
        for _ in range(steps):
            if not self.going():
                break
            self.trainer.take_step(slow * self._lr())
            self.taken += slow == 1.0
            with torch.no_grad():
                for name, mask in masks.items():
                    self.layers[name][0].weight.mul_(mask)
        for layer, _ in self.layers.values():
            layer.levels = None
        self.trainer.spent = self.before + time.monotonic() - self.begin
        return self._trial()

    def _lr(self) -> float:
        share = self.trainer.cfg.slim_share
        return scheduled_lr(1 - share + share * min(1.0, self.taken / self.steps))

    def put(self, trial: Trial) -> None:
        """Bring the net to a trial's state and exactly its weights."""
        if trial.state is not self.loaded:
            self.trainer.net.load_state_dict(trial.state.net)
            for optimiser, state in zip(self.trainer.optimisers, trial.state.optimisers, strict=True):
                optimiser.load_state_dict(state)
            self.loaded = trial.state
        with torch.no_grad():
            for name, w in trial.weights.items():
                layer = self.layers[name][0]
                layer.weight.copy_(torch.from_numpy(w).to(layer.weight) * torch.exp2(-layer.w_exp)[:, None])

    def _trial(self) -> Trial:
        weights = {}
        for name, (layer, top) in self.layers.items():
            scaled = (layer.weight.detach() * torch.exp2(layer.w_exp)[:, None]).clamp(-top, top)
            weights[name] = scaled.cpu().numpy().astype(np.float64)
        net = {k: v.clone() for k, v in self.trainer.net.state_dict().items()}
        self.loaded = _State(net, [copy.deepcopy(o.state_dict()) for o in self.trainer.optimisers])
        return Trial(weights, self.loaded)
