# SPDX-License-Identifier: MIT
"""What slimming saves: bytes of the decoder at equal validation loss, and of whole files.

``python benchmarks/slim.py FILE --preset s3d --epochs 60 -o RESULT.json`` trains three models for the same epochs from the same
seed: plain, slimmed by the rate equation, and slimmed to the plain one's validation loss. Every eighth hyper-block is kept from
training and judges. Then the first two compress the whole file with ``method=hbae`` at each bound.
"""

from __future__ import annotations

import json
import os
import platform
import tempfile
import time
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

import hbae
from hbae.arrays import Array
from hbae.config import Budget
from hbae.container import encode_decoder
from hbae.models.autoencoder import Autoencoder
from hbae.models.trained import EncodingModel
from hbae.pipeline.options import CompressOptions
from hbae.pipeline.training import _samples
from hbae.slim import Aim, SlimReport
from hbae.train import TrainConfig, TrainedModel, recipe, save_model
from hbae.train.batches import Batches, normalisation
from hbae.train.blocks import judge
from hbae.train.loop import Trainer
from hbae.train.slim import other_bytes, slim_decoder

HELD_OUT = 8


class Case:
    """One file: hyper-blocks to train on, and others that judge."""

    def __init__(self, source: Path, preset: str, epochs: int, seed: int) -> None:
        options = CompressOptions(preset=preset, budget=f"{epochs}ep", seed=seed)
        self.draft, x, ok, self.whole = _samples([source], options)
        held = np.arange(len(x)) % HELD_OUT == HELD_OUT - 1
        self.x, self.ok = x[~held], None if ok.all() else ok[~held]
        self.judging, self.judging_ok = x[held], None if ok.all() else ok[held]
        self.config = recipe(preset, x.shape, self.whole)
        self.epochs, self.seed, self.preset = epochs, seed, preset

    def train(self, share: float, aim: Aim | None = None) -> tuple[dict[str, Any], TrainedModel]:
        """Train one model; gives its figures and itself. ``aim``: instead of the rate equation."""
        begin = time.process_time()
        config = replace(self.config, slim_share=share)
        torch.manual_seed(self.seed)
        net = Autoencoder(config.model, *normalisation(self.x, self.ok))
        batches = Batches(net, self.x, self.ok, batch=config.batch, seed=self.seed, device="cpu")
        trainer = Trainer(net, config, batches, seed=self.seed, budget=Budget(epochs=self.epochs))
        trainer.run(None, None)
        before = self.validate(trainer, config)
        report = slim_decoder(trainer, self.whole, aim) if share and aim else None
        if share and not aim:
            report = slim_decoder(trainer, self.whole)
        geometry = self.draft.geometry
        place = {"block": list(geometry.block), "hyper": list(geometry.hyper), "preset": self.preset}
        model = TrainedModel(EncodingModel(net, self.draft.paths), place, config, self.seed)
        return self.figures(trainer, model, report, before, time.process_time() - begin), model

    def validate(self, trainer: Trainer, config: TrainConfig) -> dict[str, float]:
        """Give the losses on the hyper-blocks that were kept from training."""
        held = Batches(
            trainer.net, self.judging, self.judging_ok, batch=len(self.judging), seed=0, device="cpu"
        )
        trainer.net.eval()
        with torch.no_grad():
            distortion, bits, _ = trainer.measure(*held.sample(len(self.judging)), None)
        loss = other_bytes(float(distortion), float(bits), config.rate, self.whole)
        return {"distortion": float(distortion), "bits_per_hyper_block": float(bits), "other_bytes": loss}

    def figures(
        self, trainer: Trainer, model: TrainedModel, report: SlimReport | None, before: dict[str, float], seconds: float
    ) -> dict[str, Any]:
        """Give what is known about a trained model."""
        judged = judge(model.encoder, self.judging, self.judging_ok)
        return {
            "steps": trainer.step,
            "cpu_seconds": seconds,
            "section_bytes": len(encode_decoder(model.decoder)),
            "validation_before_slimming": before,
            "validation": self.validate(trainer, model.config),
            "validation_nrmse": judged.mean_nrmse,
            "slim": None if report is None else report.to_json(),
        }


def compress(source: Path, model: Path, bounds: list[float]) -> list[dict[str, Any]]:
    """Compress the file with a model at each bound and check what was written."""
    out = []
    for bound in bounds:
        path = model.with_suffix(".hbae")
        r = hbae.compress(source, path, f"nrmse={bound!r}", model=model, method="hbae", threads=1, overwrite=True)
        checked = hbae.verify(path, against=source)
        out.append({"bound": bound, "bytes": r.size, "cr": r.cr, "nrmse": r.mean_nrmse, "parts": r.sizes})
        out[-1] |= {"methods": sorted({v.method for v in r.variables}), "verified": bool(checked.ok)}
        path.unlink()
    return out


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
    case = Case(source, preset, epochs, seed)
    plain, plain_model = case.train(0.0)
    slim, slim_model = case.train(share)
    loss = plain["validation"]["other_bytes"]
    equal, _ = case.train(share, Aim(limit=loss))
    values = [float(b) for b in bounds.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        for name, model, doc in (("plain", plain_model, plain), ("slim", slim_model, slim)):
            save_model(Path(folder) / f"{name}.hbm", model)
            doc["files"] = compress(source, Path(folder) / f"{name}.hbm", values)
    result = {
        "command": f"python benchmarks/slim.py {source} --preset {preset} --epochs {epochs} --share {share} --bounds {bounds} -o {out}",
        "date": str(date.today()),
        "machine": {"cores": len(os.sched_getaffinity(0)), "platform": platform.platform()},
        "versions": {"hbae": hbae.__version__, "torch": torch.__version__, "numpy": np.__version__},
        "hyper_blocks": {"training": len(case.x), "judging": len(case.judging), "whole": case.whole},
        "config": case.config.to_json(),
        "plain": plain,
        "slim": slim,
        "slim_at_equal_loss": equal,
    }
    out.write_text(json.dumps(result, indent=1) + "\n")
    for name in ("plain", "slim", "slim_at_equal_loss"):
        d = result[name]
        print(name, d["section_bytes"], round(d["validation"]["other_bytes"]), f"{d['validation_nrmse']:.3e}",
              [f["bytes"] for f in d.get("files", [])])  # fmt: skip


if __name__ == "__main__":
    typer.run(main)
