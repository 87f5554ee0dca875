# SPDX-License-Identifier: MIT
"""Hyper-blocks in, a trained model out."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from hbae.arrays import Array
from hbae.config import Budget
from hbae.errors import ModelMismatchError
from hbae.exact.backend import get_backend
from hbae.exact.block_decoder import BlockDecoder
from hbae.models.autoencoder import Autoencoder
from hbae.models.quant import OUT_EXP
from hbae.models.trained import EncodingModel, one_thread
from hbae.slim import SlimReport
from hbae.train.batches import Batches, counted_variables, normalisation
from hbae.train.config import TrainConfig
from hbae.train.loop import DEFAULT_RUN, Progress, RunOptions, Trainer
from hbae.train.rate import RateEquation
from hbae.train.slim import slim_decoder

JUDGED = 512

log = logging.getLogger("hbae.train")


@dataclass(frozen=True, kw_only=True)
class Report:
    """What training reached, judged with the exact decoder on (a sample of) the training data.

    ``nrmse``: of every variable, NaN for one without a range. ``latent_bytes``: zero-order entropy of the latents of
    all training data. ``weights``: integers that the decoder stores. ``slim``: what slimming did to them.
    """

    steps: int
    seconds: float
    blocks_per_second: float
    nrmse: tuple[float, ...]
    latent_bytes: float
    weights: int
    slim: SlimReport | None = None

    @property
    def mean_nrmse(self) -> float:
        """Mean over the variables that have a range; 0 if none has."""
        known = [e for e in self.nrmse if e == e]
        return float(np.mean(known)) if known else 0.0


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """A :class:`hbae.models.base.BlockModel` with what a model file keeps: geometry, config, seed, report."""

    encoder: EncodingModel
    geometry: Mapping[str, Any]
    config: TrainConfig
    seed: int = 0
    report: Report | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the V variables."""
        return self.encoder.names

    @property
    def decoder(self) -> BlockDecoder:
        """The exact decoder."""
        return self.encoder.decoder

    def encode(self, x_NKPV: Array) -> tuple[Array, Array | None]:
        """Give latents; see :meth:`EncodingModel.encode`."""
        return self.encoder.encode(x_NKPV)


def train_blocks(
    x_NKPV: Array,
    valid: Array | None,
    *,
    names: tuple[str, ...],
    geometry: Mapping[str, Any],
    config: TrainConfig,
    budget: Budget,
    seed: int = 0,
    device: str = "cpu",
    options: RunOptions = DEFAULT_RUN,
    progress: Progress | None = None,
    stored_hyper: int | None = None,
    tolerance: Array | None = None,
) -> TrainedModel:
    """Train HBAE and BAE on hyper-blocks (N, K, P, V) in physical units.

    With a budget in epochs the same seed gives the same weights on one machine and thread count; several ranks, each
    given the same blocks, give those of one process up to the order of float sums. ``progress(step, total, loss,
    nrmse)`` is called now and then. Only rank 0's model has a report. ``stored_hyper``: hyper-blocks that an archive
    will hold, where ``x_NKPV`` is a sample, and ``tolerance``: the RMSE (V,) that it will allow, in the variables'
    units: what slimming, for one rank alone, weighs the decoder's bytes against.

    Raises
    ------
    TrainingError
        Without data, or when the loss is not finite.
    ModelMismatchError
        When config, names and data do not fit.
    """
    model = config.model
    if x_NKPV.shape[1:] != (model.num_blocks, model.points, model.num_variables) or len(names) != model.num_variables:
        raise ModelMismatchError(f"training: data of shape {x_NKPV.shape} or names do not fit the config")
    offset, scale = normalisation(x_NKPV, valid)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = Autoencoder(model, offset, scale).to(device)
    batches = Batches(net, x_NKPV, valid, batch=config.batch, seed=seed, device=device, ranks=options.ranks)
    trainer = Trainer(net, config, batches, seed=seed, budget=budget, options=options)
    begin, first = time.monotonic(), trainer.resume()
    trainer.run(progress)
    slimmed = None
    if config.slim_share:
        score = RateEquation(trainer, stored_hyper or len(x_NKPV), tolerance, geometry)
        slimmed = slim_decoder(trainer, score)
    speed = (trainer.step - first) * batches.batch * model.num_blocks / max(time.monotonic() - begin, 1e-9)
    encoder = EncodingModel(net, names)
    report = None
    if options.ranks.rank == 0:
        report = judge(encoder, x_NKPV, valid, steps=trainer.step, seconds=trainer.spent, speed=speed, slim=slimmed)
        log.info("trained %d steps, mean NRMSE %.3g, %.0f blocks/s", report.steps, report.mean_nrmse, speed)
    return TrainedModel(encoder=encoder, geometry=dict(geometry), config=config, seed=seed, report=report)


def judge(
    encoder: EncodingModel,
    x: Array,
    valid: Array | None,
    *,
    steps: int = 0,
    seconds: float = 0.0,
    speed: float = 0.0,
    slim: SlimReport | None = None,
) -> Report:
    """Measure a model with its exact decoder; errors on up to 512 hyper-blocks, latents on all."""
    with one_thread():
        z, zb = encoder.encode(x)
        pick = np.arange(0, len(x), max(1, len(x) // JUDGED))
        y = encoder.decoder.decode(z[pick], None if zb is None else zb[pick], get_backend("cpu"))
    cfg = encoder.net.cfg
    offset, scale = encoder.net.offset.cpu().numpy(), encoder.net.scale.cpu().numpy()
    square, count = np.zeros(cfg.num_variables), np.zeros(cfg.num_variables)
    for i, row in enumerate(pick):
        truth = (x[row].astype(np.float64) - offset) / scale
        ok = np.isfinite(truth) if valid is None else np.isfinite(truth) & valid[row]
        diff = np.where(ok, y[i] * 2.0**-OUT_EXP - np.where(ok, truth, 0.0), 0.0)
        square += (diff**2).sum((0, 1))
        count += ok.sum((0, 1))
    nrmse = np.where(counted_variables(x, valid), np.sqrt(square / np.maximum(count, 1)), np.nan)
    latent_bytes = entropy_bytes(z) + (0.0 if zb is None else entropy_bytes(zb.reshape(-1, zb.shape[-1])))
    return Report(
        steps=steps,
        seconds=seconds,
        blocks_per_second=speed,
        nrmse=tuple(float(e) for e in nrmse),
        latent_bytes=latent_bytes,
        weights=cfg.decoder_weights,
        slim=slim,
    )


def entropy_bytes(z: Array) -> float:
    """Give the zero-order entropy of integers (R, L), a law per column, in bytes."""
    bits = 0.0
    for column in z.T:
        n = np.unique(column, return_counts=True)[1]
        bits -= float((n * np.log2(n / n.sum())).sum())
    return bits / 8
