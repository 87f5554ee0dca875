# SPDX-License-Identifier: MIT
"""Slimming of any torch module, with two callables: a training loss and a validation loss."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hbae.arrays import Array
from hbae.errors import ConfigError, ModelMismatchError
from hbae.slim.coded import decode_weights, encode_weights
from hbae.slim.trial import Aim, Rules, Trial, check_weights
from hbae.slim.workflow import SlimConfig, SlimReport, slim

_LONG = 0.25
Loss = Callable[[nn.Module], Tensor]


@dataclass(frozen=True, eq=False)
class SlimModule:
    """A slimmed network: all its tensors as bytes, and what was done."""

    data: bytes
    report: SlimReport


def slim_module(
    net: nn.Module,
    training: Loss,
    validation: Loss,
    *,
    steps: int,
    lr: float = 1e-3,
    tolerance: float = 0.01,
    config: SlimConfig | None = None,
) -> SlimModule:
    """Make a trained network small in place: fewest bytes, validation loss at most ``1 + tolerance`` times today's.

    Parameters with two axes or more are pruned and quantised; other parameters and buffers stay as they are.
    ``training`` gives the loss of the next batch; Adam follows it for ``steps`` steps in all. With callables that
    repeat, and on one thread, the result repeats.

    Raises
    ------
    ConfigError
        When there is nothing to slim, or weights or losses are not finite.
    """
    names = [n for n, p in net.named_parameters() if p.ndim >= 2]
    if steps < 0 or lr <= 0 or tolerance < 0:
        raise ConfigError("slim: steps and tolerance must be at least 0, lr above 0")
    work = _Module(net, names, training, validation, steps, lr)
    start = work.trial()
    check_weights(start.weights)
    made = slim(start, work.score, work.retrain, Aim(limit=work.score(start) * (1 + tolerance)), config)
    work.put(made.trial)
    rest = {n: _array(t) for n, t in net.state_dict().items() if n not in names}
    return SlimModule(encode_weights(made.layers, rest), made.report)


def load_slim(net: nn.Module, data: bytes) -> None:
    """Put the tensors of :func:`slim_module` into a network of the same shape; it then answers as the slimmed one did.

    Raises
    ------
    FormatError
        When the bytes are damaged.
    ModelMismatchError
        When the tensors are not those of the network.
    """
    layers, rest = decode_weights(data)
    arrays = {**{n: q.values for n, q in layers.items()}, **rest}
    state = net.state_dict()
    if {n: tuple(t.shape) for n, t in state.items()} != {n: a.shape for n, a in arrays.items()}:
        raise ModelMismatchError("slim: the tensors are those of another network")
    net.load_state_dict({n: torch.from_numpy(a).to(state[n].dtype) for n, a in arrays.items()})


class _Module:
    """A module as callables."""

    def __init__(
        self, net: nn.Module, names: list[str], training: Loss, validation: Loss, steps: int, lr: float
    ) -> None:
        self.net, self.training, self.validation, self.steps = net, training, validation, steps
        self.lr = lr
        params = dict(net.named_parameters())
        self.layers = {n: params[n] for n in names}
        self.adam = torch.optim.Adam([p for p in net.parameters() if p.requires_grad], lr=lr)

    def trial(self) -> Trial:
        weights = {n: _array(p).astype(np.float64) for n, p in self.layers.items()}
        net = {k: v.clone() for k, v in self.net.state_dict().items()}
        return Trial(weights, (net, copy.deepcopy(self.adam.state_dict())))

    def put(self, trial: Trial) -> None:
        state: tuple[dict[str, Tensor], dict[str, Any]] = trial.state
        self.net.load_state_dict(state[0])
        self.adam.load_state_dict(state[1])
        self._set(trial.weights)  # type: ignore[arg-type]

    def score(self, trial: Trial) -> float:
        self.put(trial)
        self.net.eval()
        with torch.no_grad():
            return float(self.validation(self.net))

    def retrain(self, trial: Trial, rules: Rules, share: float) -> Trial:
        self.put(trial)
        self.net.train()
        steps = round(share * self.steps)
        for i in range(steps):
            # A short retraining takes short steps: it has no time to settle after long ones.
            for group in self.adam.param_groups:
                group["lr"] = self.lr * min(1.0, share / _LONG) * (1 - i / steps)
            free = {n: _array(p).astype(np.float64) for n, p in self.layers.items()}
            # The loss is that of the weights under the rules; the step goes to the free ones.
            self._set({n: rules[n].apply(w) for n, w in free.items()})
            self.adam.zero_grad(set_to_none=True)
            loss = self.training(self.net)
            loss.backward()  # type: ignore[no-untyped-call]
            self._set(free)
            self.adam.step()
            self._set({n: np.where(rules[n].mask, _array(p), 0.0) for n, p in self.layers.items()})
        return self.trial()

    def _set(self, weights: dict[str, Array]) -> None:
        with torch.no_grad():
            for n, w in weights.items():
                self.layers[n].copy_(torch.from_numpy(w))


def _array(t: Tensor) -> Array:
    return np.asarray(t.detach().cpu().numpy()).copy()
