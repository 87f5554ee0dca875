# SPDX-License-Identifier: MIT
"""The training loop: a float phase, then the integer decoder itself, under a budget of seconds or epochs."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hbae.config import Budget
from hbae.errors import ConfigError, TrainingError
from hbae.models.autoencoder import Autoencoder, Noise, Output
from hbae.train.batches import Batches
from hbae.train.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from hbae.train.config import TrainConfig
from hbae.train.log import Row, TrainLog
from hbae.train.optim import load_state_tensors, make_optimisers, state_tensors
from hbae.train.ranks import ALONE, Ranks

Progress = Callable[[int, int, float, float], None]
REPORT_EVERY = 20
CALIBRATION_BLOCKS = 256
FINAL_LR = 0.003
# The decoder is integer for a while before slimming begins.
SETTLED = 1.2
SAVE_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How a run is kept, told and shared; nothing of it goes into the model file.

    ``checkpoint``: written by rank 0 every ``save_seconds`` and resumed from. ``log``: a CSV file, see
    :mod:`hbae.train.log`. ``mixed``: bfloat16 products in the float phase on a GPU. ``folder``: where ranks keep the
    sample that they share, the system's temporary folder by default.
    """

    checkpoint: Path | None = None
    save_seconds: float = SAVE_SECONDS
    log: Path | None = None
    mixed: bool = False
    folder: Path | None = None
    ranks: Ranks = ALONE


DEFAULT_RUN = RunOptions()

log = logging.getLogger("hbae.train")


class Trainer:
    """Trains one :class:`Autoencoder` over :class:`Batches`; the same seed and epochs give the same weights.

    With several ranks each takes its rows of every batch; gradients are added up, so that all take the same step.
    """

    def __init__(
        self,
        net: Autoencoder,
        cfg: TrainConfig,
        batches: Batches,
        *,
        seed: int,
        budget: Budget,
        options: RunOptions = DEFAULT_RUN,
    ) -> None:
        self.share = 1.0 - cfg.slim_share
        self.integer_from = 1.0 - max(cfg.integer_share, SETTLED * cfg.slim_share)
        if budget.seconds is None and budget.epochs is None:
            raise ConfigError("train: the budget needs seconds or epochs")
        self.net, self.cfg, self.batches, self.budget = net, cfg, batches, budget
        self.options, self.ranks = options, options.ranks
        self.seed = seed
        self.optimisers = make_optimisers(net, cfg.lr, cfg.matrix_lr)
        self.base_lr = [o.param_groups[0]["lr"] for o in self.optimisers]
        self.generator = torch.Generator(device=batches.device).manual_seed(seed)
        self.noise = Noise(self.generator, batches.batch, batches.rows)
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

    def run(self, progress: Progress | None) -> None:
        """Train to the end of the budget; leaves a calibrated net.

        Raises
        ------
        TrainingError
            When the loss is not finite, or another rank is lost.
        """
        log = self._open_log()
        start, saved = time.monotonic() - self.spent, time.monotonic()
        self.net.train()
        with log:
            while self.done < 1.0:
                if self.done * self.share >= self.integer_from and not self.integer:
                    self.go_integer()
                self.take_step()
                self.spent = self._clock(time.monotonic() - start)
                if self.step % REPORT_EVERY and self.done < 1.0:
                    continue
                loss, nrmse = self.flush_sums()
                log.write(self._row(loss, nrmse))
                if time.monotonic() - saved >= self.options.save_seconds or self.done >= 1.0:
                    self.save()
                    saved = time.monotonic()
                if progress is not None:
                    progress(self.step, self.total, loss, nrmse)
        if not self.integer:
            self.go_integer()
        self.net.eval()

    def resume(self) -> int:
        """Take the checkpoint's state over, if there is one (rank 0 reads it for all); gives the step reached."""
        path = self.options.checkpoint
        saved = None
        if self.ranks.rank == 0 and path is not None and path.exists():
            saved = load_checkpoint(path)
        saved = self.ranks.share(saved)
        if saved is not None:
            self.restore(saved)
            log.info("going on from step %d of %s", self.step, path)
        self._align()
        return self.step

    def save(self) -> None:
        """Write the checkpoint, on rank 0, where one is asked for."""
        if self.options.checkpoint is not None and self.ranks.rank == 0:
            save_checkpoint(self.options.checkpoint, self.snapshot())

    def go_integer(self) -> None:
        """Calibrate: from here on the decoders are integers."""
        self.net.calibrate(self.batches.sample(CALIBRATION_BLOCKS)[0])
        self._align()
        self.integer = True
        log.info("step %d: the decoder is integer from here on", self.step)

    def take_step(self, lr_factor: float | None = None) -> None:
        """One batch, one step of every optimiser, at the schedule's learning rate or a given one."""
        self._set_lr(lr_factor)
        x, weight = self.batches.next()
        with self._precision():
            out = self.net(x, self.noise)
        loss, error = self._loss(out, x, weight)
        for optimiser in self.optimisers:
            optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self._add_gradients()
        for optimiser in self.optimisers:
            optimiser.step()
        self.step += 1
        with torch.no_grad():
            self._sums += torch.stack((loss, error.clamp_min(0).sqrt().mean())).double()

    def _loss(self, out: Output, x: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
        """Give the loss of the global batch and its error by variable; gradients are those of this rank's part."""
        square, count = square_sums(out.x.float() - x, weight)
        bits = out.bits.sum()
        if self.ranks.size > 1:
            told = self.ranks.add(torch.cat((square.detach(), count, bits.detach()[None])))
            # The values are those of all ranks, to the last bit; the gradients are this rank's.
            square, count = told[:-1].chunk(2)[0] + (square - square.detach()), told[:-1].chunk(2)[1]
            bits = told[-1] + (bits - bits.detach())
        error = (square / count.clamp_min(1.0))[self.batches.counts]
        p = self.cfg.norm_p
        distortion = error.mean() if p == 1 else error.pow(p).mean().pow(1 / p)
        return distortion / self.cfg.target_nrmse**2 + self.cfg.rate * (bits / self.batches.batch), error

    def _add_gradients(self) -> None:
        """Replace every gradient by its sum over the ranks, in one message."""
        if self.ranks.size == 1:
            return
        grads = [p.grad for p in self.net.parameters() if p.grad is not None]
        flat = self.ranks.add(torch.cat([g.flatten() for g in grads]))
        for g, part in zip(grads, torch.split(flat, [g.numel() for g in grads]), strict=True):
            g.copy_(part.view_as(g))

    def _align(self) -> None:
        """Take over rank 0's weights and scales, which another kind of processor may have rounded differently."""
        if self.ranks.size > 1:
            for t in self.net.state_dict().values():
                self.ranks.copy(t)
            self.net.sync()

    def _clock(self, seconds: float) -> float:
        """Give rank 0's time, where all must agree on when it is up."""
        if self.ranks.size == 1 or self.budget.seconds is None:
            return seconds
        return float(self.ranks.copy(torch.tensor([seconds], dtype=torch.float64))[0])

    def _precision(self) -> AbstractContextManager[Any]:
        """Give what the forward pass runs in: bfloat16 products only for floats on a GPU, never for integers."""
        if self.options.mixed and self.batches.device.type == "cuda" and not self.integer:
            return torch.autocast("cuda", torch.bfloat16)
        return nullcontext()

    @property
    def _blocks(self) -> int:
        return self.step * self.batches.batch * self.cfg.model.num_blocks

    def _open_log(self) -> TrainLog:
        path = self.options.log if self.ranks.rank == 0 else None
        return TrainLog.start(path, self.step, self.spent, self._blocks)

    def _row(self, loss: float, nrmse: float) -> Row:
        return Row(
            step=self.step,
            epoch=self.step / self.batches.per_epoch,
            seconds=self.spent,
            phase="integer" if self.integer else "float",
            loss=loss,
            nrmse=nrmse,
            lr=self.optimisers[0].param_groups[0]["lr"],
            blocks=self._blocks,
            ranks=self.ranks.size,
        )

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
        tensors |= {"rng.noise": self.generator.get_state(), "rng.order": self.batches.order_rng.get_state()}
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
            self.generator.set_state(saved.tensors["rng.noise"])
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


class _SquareSum(torch.autograd.Function):
    """Sum of squares over all axes but the last, with a backward pass that touches the values once."""

    @staticmethod
    def forward(ctx: Any, diff: Tensor) -> Tensor:
        ctx.save_for_backward(diff)
        return diff.square().sum((0, 1, 2))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (diff,) = ctx.saved_tensors
        back: Tensor = diff * (2 * grad)
        return back


def square_sums(diff: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
    """Give the sum of squared errors of every variable and the number of valid points, both (V,).

    ``weight`` is 0 at invalid points.
    """
    if weight is None:
        square: Tensor = _SquareSum.apply(diff)  # type: ignore[no-untyped-call]
        return square, torch.full_like(square, diff[..., 0].numel())
    return (diff * weight).square().sum((0, 1, 2)), weight.sum((0, 1, 2))
