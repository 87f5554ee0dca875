# SPDX-License-Identifier: MIT
"""What slimming saves: bytes of the decoder at equal validation loss, and of whole files.

``python benchmarks/slim.py FILE --preset s3d --epochs 60 -o RESULT.json`` trains three models for the same epochs from
the same seed: plain, slimmed by the rate equation at each bound, and slimmed to the plain one's training loss. Every
eighth hyper-block is kept from training: half of these score while slimming, the other half judge. The plain model and
the one slimmed for it compress the whole file with ``method=hbae`` at each bound.
"""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from _heading import heading

import hbae
from hbae.arrays import Array
from hbae.config import Budget
from hbae.container import encode_decoder
from hbae.models.autoencoder import Autoencoder
from hbae.models.trained import EncodingModel
from hbae.pipeline.options import CompressOptions
from hbae.pipeline.training import _samples
from hbae.slim import Aim, SlimReport
from hbae.train import TrainedModel, recipe, save_model
from hbae.train.batches import Batches, normalisation
from hbae.train.blocks import judge
from hbae.train.loop import Trainer
from hbae.train.rate import RateEquation
from hbae.train.slim import slim_decoder

HELD_OUT = 8
Blocks = tuple[Array, Array | None]


class Case:
    """One file: hyper-blocks to train on, and others that judge."""

    def __init__(self, source: Path, preset: str, epochs: int, seed: int) -> None:
        options = CompressOptions(preset=preset, budget=f"{epochs}ep", seed=seed)
        self.draft, x, ok, self.whole, _ = _samples([source], options)
        held = np.arange(len(x)) % HELD_OUT == HELD_OUT - 1
        self.x, self.ok = x[~held], None if ok.all() else ok[~held]
        valid = None if ok.all() else ok[held]
        self.scoring = (x[held][::2], None if valid is None else valid[::2])
        self.judging = (x[held][1::2], None if valid is None else valid[1::2])
        self.config = recipe(preset, x.shape, self.whole)
        self.epochs, self.seed, self.preset = epochs, seed, preset

    def train(self, share: float, *, bound: float = 0.0, limit: float = 0.0) -> tuple[dict[str, Any], TrainedModel]:
        """Train one model, slimmed for an NRMSE bound or to a limit of its loss; gives its figures and itself."""
        begin = time.process_time()
        config = replace(self.config, slim_share=share)
        torch.manual_seed(self.seed)
        net = Autoencoder(config.model, *normalisation(self.x, self.ok))
        batches = Batches(net, self.x, self.ok, batch=config.batch, seed=self.seed, device="cpu")
        trainer = Trainer(net, config, batches, seed=self.seed, budget=Budget(epochs=self.epochs))
        trainer.run(None)
        before = self.losses(trainer)
        report = None
        if limit:
            report = slim_decoder(trainer, lambda: self.loss(trainer, self.scoring), Aim(limit=limit))
        elif share:
            report = slim_decoder(trainer, self.rate(trainer, bound, self.scoring))
        geometry = self.draft.geometry
        place = {"block": list(geometry.block), "hyper": list(geometry.hyper), "preset": self.preset}
        model = TrainedModel(
            encoder=EncodingModel(net, self.draft.paths), geometry=place, config=config, seed=self.seed
        )
        return self.figures(trainer, model, report, before, time.process_time() - begin), model

    @staticmethod
    def batches(trainer: Trainer, blocks: Blocks) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Give hyper-blocks as the net sees them."""
        x, ok = blocks
        return Batches(trainer.net, x, ok, batch=len(x), seed=0, device="cpu").sample(len(x))

    def losses(self, trainer: Trainer) -> dict[str, float]:
        """Give the training's loss on both sets that were kept from training."""
        return {"scoring": self.loss(trainer, self.scoring), "judging": self.loss(trainer, self.judging)}

    def loss(self, trainer: Trainer, blocks: Blocks) -> float:
        """Give the training's loss, latents rounded."""
        trainer.net.eval()
        with torch.no_grad():
            distortion, bits, _ = trainer.measure(*self.batches(trainer, blocks), None)
        return float(distortion + self.config.rate * bits)

    def rate(self, trainer: Trainer, bound: float, blocks: Blocks) -> RateEquation:
        """Give the rate equation of the whole file at a bound."""
        tolerance = bound * trainer.net.scale.cpu().numpy()
        place = {"block": self.draft.geometry.block, "hyper": self.draft.geometry.hyper}
        return RateEquation(trainer, self.whole, tolerance, place, self.batches(trainer, blocks))

    def figures(
        self, trainer: Trainer, model: TrainedModel, report: SlimReport | None, before: dict[str, float], seconds: float
    ) -> dict[str, Any]:
        """Give what is known about a trained model."""
        judged = judge(model.encoder, *self.judging)
        return {
            "steps": trainer.step,
            "cpu_seconds": seconds,
            "section_bytes": len(encode_decoder(model.decoder)),
            "loss_before_slimming": before,
            "loss": self.losses(trainer),
            "nrmse": judged.mean_nrmse,
            "slim": None if report is None else report.to_json(),
        }


def compress(source: Path, model: Path, bound: float) -> dict[str, Any]:
    """Compress the file with a model at a bound and check what was written."""
    path = model.with_suffix(".hbae")
    r = hbae.compress(source, path, f"nrmse={bound!r}", model=model, method="hbae", threads=1, overwrite=True)
    checked = hbae.verify(path, against=source)
    path.unlink()
    return {
        "bound": bound,
        "bytes": r.size,
        "cr": r.cr,
        "nrmse": r.mean_nrmse,
        "parts": r.sizes,
        "methods": sorted({v.method for v in r.variables}),
        "verified": bool(checked.ok),
    }


def main(
    source: Path,
    out: Annotated[Path, typer.Option("-o")],
    preset: str = "auto",
    epochs: int = 60,
    share: float = 0.2,
    seed: int = 0,
    bounds: str = "1e-2,1e-3",
) -> None:
    """Measure one file."""
    torch.set_num_threads(1)
    head = heading()
    case = Case(source, preset, epochs, seed)
    values = [float(b) for b in bounds.split(",")]
    plain, model = case.train(0.0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.hbm"
        save_model(path, model)
        plain["files"] = [compress(source, path, b) for b in values]
        slim = []
        for bound in values:
            figures, model = case.train(share, bound=bound)
            save_model(path, model)
            slim.append({"slimmed_for": bound, **figures, "files": [compress(source, path, bound)]})
    equal = case.train(share, limit=plain["loss"]["scoring"])[0]
    result = {
        **head,
        "hyper_blocks": {"training": len(case.x), "judging": len(case.judging[0]), "whole": case.whole},
        "config": case.config.to_json(),
        "plain": plain,
        "slim": slim,
        "slim_at_equal_loss": equal,
    }
    out.write_text(json.dumps(result, indent=1) + "\n")
    for name, d in (("plain", plain), *((f"slim {s['slimmed_for']:g}", s) for s in slim), ("equal loss", equal)):
        files = [(f["bound"], f["bytes"]) for f in d.get("files", [])]
        print(
            f"{name}: decoder {d['section_bytes']:,}, loss {d['loss']['judging']:.4g}, NRMSE {d['nrmse']:.3e}, {files}"
        )


if __name__ == "__main__":
    typer.run(main)
