# SPDX-License-Identifier: MIT
"""A model for a group: read from a MODEL file, or trained when asked for."""

from __future__ import annotations

import hashlib
import importlib.util
import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import threadpool_limits

from hbae.arrays import Array
from hbae.blocks import MAX_VALUES, Geometry, Preset, choose_preset, plan_geometry
from hbae.config import Budget
from hbae.container import encode_decoder
from hbae.errors import ConfigError, MissingExtraError, UnfitModelError
from hbae.exact import BlockDecoder
from hbae.pipeline.encode import BlockEncoder
from hbae.pipeline.groups import LossyVariable, check_geometry, make_drafts
from hbae.pipeline.inputs import Inputs
from hbae.pipeline.options import CompressOptions
from hbae.pipeline.plan import GroupPlan
from hbae.pipeline.sampling import sample_hyper_blocks

if TYPE_CHECKING:
    from hbae.train.blocks import TrainedModel
    from hbae.train.loop import RunOptions

TRAIN_BYTES = 512 << 20
# For method=hbae without a budget of its own.
USUAL_BUDGET = Budget(epochs=20)


@dataclass(frozen=True)
class GroupModel:
    """A model that fits a group: its names in order, geometry for that group, decoder and section bytes."""

    names: tuple[str, ...]
    geometry: Geometry
    encoder: BlockEncoder
    decoder: BlockDecoder
    section: bytes
    sha: str
    trained_seconds: float = 0.0
    notes: tuple[str, ...] = ()


def prepare_model(coded: list[LossyVariable], inputs: Inputs, options: CompressOptions) -> GroupModel | None:
    """Load the model that was named, or train one when the options ask for it.

    Raises
    ------
    MissingExtraError
        When a model is asked for and torch is absent.
    UnfitModelError
        When the model's variables are not all there, lossy together on one grid that holds its blocks.
    """
    if options.method in ("linear", "lossless") or not coded:
        return None
    if options.model is not None:
        return _loaded(Path(options.model), coded, options)
    linear = [m for m in coded if not np.isfinite(m.target.pw_rel)]
    budget = options.parsed_budget
    have_torch = importlib.util.find_spec("torch") is not None
    if budget is None:
        if options.method != "hbae":
            return None
        budget = USUAL_BUDGET
    if not have_torch:
        raise MissingExtraError("torch", "torch")
    if not linear:
        raise ConfigError("no variable is left that a model could code (pw_rel is coded without a model)")
    drafts = make_drafts(linear, options, None)
    draft, members = max(drafts, key=lambda d: sum(m.variable.nbytes for m in d[1]))
    options.tell(f"training a model on {len(members)} variables", 0.0)
    begin = time.monotonic()
    trained = train_on(draft, members, inputs, options, budget)
    seconds = time.monotonic() - begin
    note = f"a model was trained for {seconds:.0f} s on {len(members)} variables"
    return replace(_wrap(trained, draft.geometry, draft.paths), trained_seconds=seconds, notes=(note,))


def train_on(
    draft: GroupPlan, members: list[LossyVariable], inputs: Inputs, options: CompressOptions, budget: Budget
) -> TrainedModel:
    """Train on a seeded sample of a group's hyper-blocks."""
    validity = [m.stats.validity for m in members]
    x, ok = sample_hyper_blocks(draft, inputs, validity, most_bytes=TRAIN_BYTES, seed=options.seed)
    return fit_model(draft, x, ok, num_hyper_blocks(draft), options, budget, tolerance=tolerances(draft, members))


def tolerances(draft: GroupPlan, members: list[LossyVariable]) -> Array:
    """Give the RMSE that each variable's bounds allow, (V,), in units."""
    return np.array([m.target.tolerance(draft.geometry.points) for m in members])


def num_hyper_blocks(draft: GroupPlan) -> int:
    """Count the hyper-blocks of a group's grid."""
    return int(np.prod([-(-n // e) for n, e in zip(draft.geometry.shape, draft.geometry.extent, strict=True)]))


def fit_model(
    draft: GroupPlan,
    x: Array,
    ok: Array | None,
    whole: int,
    options: CompressOptions,
    budget: Budget,
    *,
    batch: int | None = None,
    threads: int | None = None,
    run: RunOptions | None = None,
    tolerance: Array,
    slim: bool = False,
) -> TrainedModel:
    """Train on hyper-blocks (N, K, P, V), a sample of ``whole``, with the recipe of the preset; slimmed or not.

    ``batch``: hyper-blocks per step instead of the recipe's. ``threads``: cores for this process where a budget in
    seconds may use several. ``tolerance``: the RMSE (V,) that archives will allow, in units.
    """
    from hbae.train.blocks import train_blocks
    from hbae.train.loop import DEFAULT_RUN
    from hbae.train.recipes import RECIPES, SLIM_SHARE, recipe

    chosen = choose_preset(options.preset, draft.geometry.shape, draft.num_variables).name
    preset = chosen if chosen in RECIPES else "auto"
    n, k, p, v = x.shape
    config = recipe(preset, (n, k, p, v), whole)
    config = config if batch is None else replace(config, batch=batch)
    config = replace(config, slim_share=SLIM_SHARE) if slim else config
    with _training_threads(budget, threads):
        return train_blocks(
            x,
            None if ok is None or ok.all() else ok,
            names=draft.paths,
            geometry={"block": list(draft.geometry.block), "hyper": list(draft.geometry.hyper), "preset": preset},
            config=config,
            budget=budget,
            seed=options.seed,
            device=options.device,
            options=run or DEFAULT_RUN,
            stored_hyper=whole,
            tolerance=tolerance,
            progress=lambda step, total, loss, nrmse: options.tell(
                f"training, NRMSE {nrmse:.2e}", step / total if total else 0.0
            ),
        )


@contextmanager
def _training_threads(budget: Budget, threads: int | None) -> Iterator[None]:
    """All cores for a budget in seconds, which cannot repeat anyway; one thread for epochs, which must."""
    import torch

    count = 1 if budget.epochs is not None else threads or len(os.sched_getaffinity(0))
    old = torch.get_num_threads()
    with threadpool_limits(count):
        torch.set_num_threads(count)
        try:
            yield
        finally:
            torch.set_num_threads(old)


def _loaded(path: Path, coded: list[LossyVariable], options: CompressOptions) -> GroupModel:
    if importlib.util.find_spec("torch") is None:
        raise MissingExtraError("torch", "torch")
    from hbae.train.model_file import load_model

    model = load_model(path, options.device)
    found = {m.variable.path: m for m in coded}
    missing = [n for n in model.names if n not in found]
    if missing:
        raise UnfitModelError(f"model {path.name}: {', '.join(missing[:5])} not among the lossy variables")
    first = found[model.names[0]].variable
    named = [d for d, _ in make_drafts(coded, options, model.names) if d.paths == model.names]
    if not named or named[0].domain == "log":
        what = "no model codes pw_rel" if named else "its variables are not all lossy together on one grid"
        raise UnfitModelError(f"model {path.name}: {what}")
    block, hyper = tuple(model.geometry["block"]), tuple(model.geometry["hyper"])
    if len(block) != len(first.shape) or any(b > n for b, n in zip(block, first.shape, strict=True)):
        raise UnfitModelError(f"model {path.name}: blocks {block} do not fit variables of shape {first.shape}")
    try:
        geometry = model_geometry(first.shape, block, hyper, len(model.names), first.dtype.itemsize, options)
    except ConfigError as e:
        raise UnfitModelError(f"model {path.name}: {e}") from e
    return _wrap(model, geometry, model.names)


def model_geometry(
    shape: tuple[int, ...], block: Any, hyper: Any, num_variables: int, itemsize: int, options: CompressOptions
) -> Geometry:
    """Give the geometry of a grid with a model's blocks; a short axis pads hyper-blocks rather than shrink them.

    Raises
    ------
    ConfigError
        When one hyper-block holds more than a chunk may.
    """
    preset = Preset("model", tuple(int(b) for b in block), tuple(int(h) for h in hyper))
    g = plan_geometry(shape, num_variables, itemsize, preset, chunk_mib=options.chunk, padded=True)
    check_geometry(g, num_variables)
    return g


def _wrap(model: TrainedModel, geometry: Geometry, names: tuple[str, ...]) -> GroupModel:
    block = model.decoder.block
    rows = math.prod(-(-n // e) for n, e in zip(geometry.chunk, geometry.extent, strict=True))
    latents = max(model.decoder.hyper.num_latents, geometry.num_blocks * (block.num_latents if block else 0))
    if rows * latents > MAX_VALUES:
        raise UnfitModelError(f"model: a chunk would hold more than {MAX_VALUES} latents; give a smaller chunk")
    section = encode_decoder(model.decoder)
    return GroupModel(
        names=names,
        geometry=geometry,
        encoder=model,
        decoder=model.decoder,
        section=section,
        sha=hashlib.sha256(section).hexdigest(),
    )
