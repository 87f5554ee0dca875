# SPDX-License-Identifier: MIT
"""The training loop: a float phase, then the integer decoder itself, under a budget of seconds or epochs."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hbae.config import Budget
from hbae.errors import ConfigError, TrainingError
from hbae.models.autoencoder import Autoencoder
from hbae.train.batches import Batches
from hbae.train.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from hbae.train.config import TrainConfig
from hbae.train.optim import load_state_tensors, make_optimisers, state_tensors

Progress = Callable[[int, int, float, float], None]
REPORT_EVERY = 20
CALIBRATION_BLOCKS = 256
FINAL_LR = 0.003
# The decoder is integer for a while before slimming begins.
SETTLED = 1.2
SAVE_SECONDS = 60.0

log = logging.getLogger("hbae.train")


class Trainer:
    """Trains one :class:`Autoencoder` over :class:`Batches`; the same seed and epochs give the same weights."""

    def __init__(self, net: Autoencoder, cfg: TrainConfig, batches: Batches, *, seed: int, budget: Budget) -> None:
        self.share = 1.0 - cfg.slim_share
        self.integer_from = 1.0 - max(cfg.integer_share, SETTLED * cfg.slim_share)
        if budget.seconds is None and budget.epochs is None:
            raise ConfigError("train: the budget needs seconds or epochs")
        self.net, self.cfg, self.batches, self.budget = net, cfg, batches, budget
        self.seed = seed
        self.optimisers = make_optimisers(net, cfg.lr, cfg.matrix_lr)
        self.base_lr = [o.param_groups[0]["lr"] for o in self.optimisers]
        self.noise = torch.Generator(device=batches.device).manual_seed(seed)
        self.step = 0
        self.spent = 0.0
        self.integer = False
        self._sums = torch.zeros(2, device=batches.device, dtype=torch.float64)

    @property
    def total(self) -> int:
        """Steps that the whole budget holds; an estimate for a budget in seconds."""
        if self.budget.epochs is not None:
            return self.budget.epochs * self.batches.per_epoch
        return max(self.step, int(self.step / (self.done * self.share))) if self.done > 0 else 0

    @property
    def done(self) -> float:
        """How much of this loop's part of the budget is spent, 0 to 1; what is left belongs to slimming."""
        if self.budget.epochs is not None:
            return self.step / max(1, round(self.share * self.budget.epochs * self.batches.per_epoch))
        return min(1.0, self.spent / ((self.budget.seconds or 1.0) * self.share))

    def run(self, checkpoint: Path | None, progress: Progress | None) -> None:
        """Train to the end of the budget, from the checkpoint if there is one; leaves a calibrated net.

        Raises
        ------
        TrainingError
            When the loss is not finite.
        """
        if checkpoint is not None and checkpoint.exists():
            self.restore(load_checkpoint(checkpoint))
        start, saved = time.monotonic() - self.spent, time.monotonic()
        self.net.train()
        while self.done < 1.0:
            if self.done * self.share >= self.integer_from and not self.integer:
                self.go_integer()
            self.take_step()
            self.spent = time.monotonic() - start
            if self.step % REPORT_EVERY and self.done < 1.0:
                continue
            loss, nrmse = self.flush_sums()
            if checkpoint is not None and (time.monotonic() - saved >= SAVE_SECONDS or self.done >= 1.0):
                save_checkpoint(checkpoint, self.snapshot())
                saved = time.monotonic()
            if progress is not None:
                progress(self.step, self.total, loss, nrmse)
        if not self.integer:
            self.go_integer()
        self.net.eval()

    def go_integer(self) -> None:
        """Calibrate: from here on the decoders are integers."""
        self.net.calibrate(self.batches.sample(CALIBRATION_BLOCKS)[0])
        self.integer = True
        log.info("step %d: the decoder is integer from here on", self.step)

    def take_step(self, lr_factor: float | None = None) -> None:
        """One batch, one step of every optimiser, at the schedule's learning rate or a given one."""
        self._set_lr(lr_factor)
        distortion, bits, error = self.measure(*self.batches.next(), self.noise)
        loss = distortion + self.cfg.rate * bits
        for optimiser in self.optimisers:
            optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        for optimiser in self.optimisers:
            optimiser.step()
        self.step += 1
        with torch.no_grad():
            self._sums += torch.stack((loss, error.clamp_min(0).sqrt().mean())).double()

    def measure(self, x: Tensor, weight: Tensor | None, noise: torch.Generator | None) -> tuple[Tensor, Tensor, Tensor]:
        """Give a batch's distortion over the target's, bits per hyper-block, and the variables' mean squared errors."""
        out = self.net(x, noise)
        error = variable_errors(out.x - x, weight, self.batches.counts)
        p = self.cfg.norm_p
        distortion = error.mean() if p == 1 else error.pow(p).mean().pow(1 / p)
        return distortion / self.cfg.target_nrmse**2, out.bits.mean(), error

    def flush_sums(self) -> tuple[float, float]:
        """Give mean loss and mean NRMSE since the last call."""
        count = self.step % REPORT_EVERY or REPORT_EVERY
        loss, nrmse = (self._sums / count).tolist()
        self._sums.zero_()
        if not math.isfinite(loss):
            raise TrainingError(f"training: the loss is not finite at step {self.step}; lower lr and matrix_lr")
        return loss, nrmse

    def snapshot(self) -> Checkpoint:
        """Give all state that the next step depends on."""
        tensors = {f"net.{k}": v for k, v in self.net.state_dict().items()}
        for i, optimiser in enumerate(self.optimisers):
            tensors |= state_tensors(optimiser, f"opt{i}")
        tensors |= {"rng.noise": self.noise.get_state(), "rng.order": self.batches.order_rng.get_state()}
        tensors["order"] = self.batches.order
        doc: dict[str, Any] = {"step": self.step, "spent": self.spent, "integer": self.integer, "seed": self.seed}
        doc |= {"config": self.cfg.to_json(), "data": self.batches.fingerprint, "at": self.batches.at}
        return Checkpoint(doc, tensors)

    def restore(self, saved: Checkpoint) -> None:
        """Undo :meth:`snapshot`.

        Raises
        ------
        TrainingError
            When the checkpoint is of another run.
        """
        mine = {"config": self.cfg.to_json(), "data": self.batches.fingerprint, "seed": self.seed}
        for key, value in mine.items():
            if saved.doc.get(key) != value:
                raise TrainingError(f"training: the checkpoint is of another run ({key} differs); remove it")
        try:
            self.step, self.spent = int(saved.doc["step"]), float(saved.doc["spent"])
            self.integer, self.batches.at = bool(saved.doc["integer"]), int(saved.doc["at"])
            state = {k[4:]: v for k, v in saved.tensors.items() if k.startswith("net.")}
            self.net.load_state_dict(state)
            self.net.sync()
            for i, optimiser in enumerate(self.optimisers):
                load_state_tensors(optimiser, f"opt{i}", saved.tensors)
            self.noise.set_state(saved.tensors["rng.noise"])
            self.batches.order_rng.set_state(saved.tensors["rng.order"])
            self.batches.order = saved.tensors["order"]
        except (KeyError, ValueError, TypeError, RuntimeError) as e:
            raise TrainingError(f"training: the checkpoint does not fit: {e}") from e

    def _set_lr(self, factor: float | None) -> None:
        if factor is None:
            factor = min(1.0, (self.step + 1) / max(1, self.cfg.warmup)) * scheduled_lr(self.done)
        for optimiser, lr in zip(self.optimisers, self.base_lr, strict=True):
            for group in optimiser.param_groups:
                group["lr"] = lr * factor


def scheduled_lr(spent: float) -> float:
    """Give the factor on learning rates when a share of a schedule is over."""
    return max(FINAL_LR, 0.5 + 0.5 * math.cos(math.pi * spent))


def variable_errors(diff: Tensor, weight: Tensor | None, counts: Tensor) -> Tensor:
    """Give the mean squared error of every variable that counts, (V',); ``weight`` is 0 at invalid points."""
    if weight is None:
        return diff.square().mean((0, 1, 2))[counts]
    total = weight.sum((0, 1, 2)).clamp_min(1.0)
    return ((diff * weight).square().sum((0, 1, 2)) / total)[counts]
