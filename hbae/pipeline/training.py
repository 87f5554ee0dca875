# SPDX-License-Identifier: MIT
"""Files in, a model file out: the training that ``hbae train`` runs."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import threadpool_limits

from hbae.arrays import Array
from hbae.config import Budget, parse_rule
from hbae.errors import ConfigError, MissingExtraError, ModelMismatchError, OutputExistsError, TrainingError
from hbae.io import open_field
from hbae.pipeline.groups import LossyVariable, judge_variable, lossy_bounds, make_drafts
from hbae.pipeline.inputs import Inputs
from hbae.pipeline.learn import TRAIN_BYTES, fit_model, model_geometry, num_hyper_blocks, tolerances
from hbae.pipeline.options import CompressOptions, Progress
from hbae.pipeline.plan import GroupPlan
from hbae.pipeline.sampling import sample_hyper_blocks

if TYPE_CHECKING:
    from hbae.train.blocks import TrainedModel
    from hbae.train.loop import RunOptions

PathLike = str | os.PathLike[str]
RULE = "nrmse=1e-3"


@dataclass(frozen=True, kw_only=True)
class TrainReport:
    """What training wrote. ``model_size``: the bytes that an archive embeds; ``size``: the file with the encoder.

    ``slim``: what was pruned and quantised (:class:`hbae.slim.SlimReport`), None where nothing was tried.
    """

    path: str
    size: int
    model_size: int
    decoder_id: str
    names: tuple[str, ...]
    sources: tuple[str, ...]
    hyper_blocks: int
    steps: int
    seconds: float
    mean_nrmse: float
    slim: dict[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """Give everything as JSON values."""
        return asdict(self)


def train(
    sources: PathLike | Sequence[PathLike],
    out: PathLike,
    *,
    preset: str = "auto",
    variables: tuple[str, ...] = (),
    budget: str | Budget = "120s",
    device: str = "cpu",
    seed: int = 0,
    overwrite: bool = False,
    slim: bool = False,
    batch: int | None = None,
    threads: int | None = None,
    run: RunOptions | None = None,
    progress: Progress | None = None,
) -> TrainReport:
    """Train a model on the floating-point data variables of one or more files and write it to a model file.

    The largest set of variables on one grid is taken; every file must have them all.

    Parameters
    ----------
    sources : path or sequence of paths
        Files that :mod:`hbae.io` reads.
    out : path
        The model file, ``.hbm``.
    variables : tuple of str
        Globs that limit what is learned.
    budget : str
        ``120s``, ``5m`` or ``40ep``.
    slim : bool
        Spend a fifth of the budget on pruning and quantising the decoder, for the fewest bytes of decoder, latents and
        correction together. Not for several ranks.
    batch : int
        Hyper-blocks in a step, over all ranks; by default the preset's.
    threads : int
        Threads of this process for a budget in seconds; by default its cores. A budget in epochs uses one.
    run : RunOptions
        Checkpoint, log, mixed precision, and the ranks that train together. Rank 0 reads the files and writes the
        model.

    Returns
    -------
    TrainReport
        Size and reach of the model, on every rank.

    Raises
    ------
    ModelMismatchError
        When the files do not hold the same variables.
    OutputExistsError
        When the model file exists and ``overwrite`` is false.
    MissingExtraError
        When torch is absent.
    """
    files = [sources] if isinstance(sources, str | os.PathLike) else list(sources)
    if not files:
        raise ConfigError("train: no files are given")
    if batch is not None and batch < 1:
        raise ConfigError(f"batch: must be at least 1, not {batch}")
    # Checks the options before files are read.
    options = CompressOptions(
        variables=variables, budget=budget, preset=preset, device=device, seed=seed, progress=progress
    )
    parsed = options.parsed_budget or Budget.parse("120s")
    if importlib.util.find_spec("torch") is None:
        raise MissingExtraError("torch", "torch")
    from hbae.train.loop import DEFAULT_RUN

    run = run or DEFAULT_RUN
    if run.ranks.rank == 0:
        check_outputs(Path(out), run, overwrite=overwrite)
    if slim and run.ranks.size > 1:
        raise ConfigError("slim: a decoder is slimmed by one rank alone; train without it, or on one rank")
    draft, x, ok, whole, tolerance = _shared_samples(files, options, run)
    options.tell(f"training a model on {len(draft.paths)} variables", 0.0)
    model = fit_model(
        draft, x, ok, whole, options, parsed, batch=batch, threads=threads, run=run, tolerance=tolerance, slim=slim
    )
    report = None
    if run.ranks.rank == 0:
        report = _saved(model, Path(out), tuple(str(f) for f in files), len(x))
        if run.checkpoint is not None:
            run.checkpoint.unlink(missing_ok=True)
    shared = run.ranks.share(report)
    if shared is None:
        raise TrainingError("training: rank 0 gave no report")
    return shared


def check_outputs(out: Path, run: RunOptions, *, overwrite: bool) -> None:
    """Refuse outputs that exist or cannot be written.

    Raises
    ------
    OutputExistsError
        When the model exists and ``overwrite`` is false, or the log is another file than a log.
    ConfigError
        When a folder is missing, or two outputs are one file.
    """
    from hbae.train.log import check_log

    if os.path.lexists(out) and not overwrite:
        raise OutputExistsError(f"{out} exists; use -f or overwrite=True to replace it")
    for path in (out, run.checkpoint, run.log):
        if path is not None and not path.absolute().parent.is_dir():
            raise ConfigError(f"{path}: there is no such folder")
    named = [p.absolute() for p in (out, run.checkpoint, run.log) if p is not None]
    if len(set(named)) < len(named):
        raise ConfigError("train: model, checkpoint and log must be different files")
    if run.log is not None:
        check_log(run.log)


def _shared_samples(
    files: list[PathLike], options: CompressOptions, run: RunOptions
) -> tuple[GroupPlan, Array, Array | None, int, Array]:
    """Sample on rank 0; the others map what it gives them."""
    from hbae.train.ranks import hosts
    from hbae.train.shared import share_blocks

    if run.ranks.size == 1:
        return _samples(files, options)
    draft = given = whole = allowed = None
    if run.ranks.rank == 0:
        draft, x, ok, whole, allowed = _samples(files, options)
        given = (x, None if ok.all() else ok)
    x, valid = share_blocks(run.ranks, hosts(run.ranks), given, run.folder)
    draft, whole, allowed = run.ranks.share((draft, whole, allowed))
    if draft is None or whole is None or allowed is None:
        raise ConfigError("train: rank 0 gave no sample")
    return draft, x, valid, whole, allowed


def _samples(files: list[PathLike], options: CompressOptions) -> tuple[GroupPlan, Array, Array, int, Array]:
    """Sample hyper-blocks evenly from all files; gives a draft, samples, validity, whole number, errors allowed."""
    first: GroupPlan | None = None
    xs, oks, whole, allowed = [], [], 0, []
    for file in files:
        field = open_field(file)
        wanted = lossy_bounds(field, (parse_rule(RULE),), options.variables)
        with threadpool_limits(1), Inputs([field.variable(p) for p in wanted], options) as inputs:
            inputs.read_all()
            items = [judge_variable(field.variable(p), b, inputs.stats[p], None) for p, b in wanted.items()]
            draft, members = _largest(items, options, file) if first is None else _same(items, first, options, file)
            first = first or draft
            validity = [m.stats.validity for m in members]
            share = TRAIN_BYTES // len(files)
            x, ok = sample_hyper_blocks(draft, inputs, validity, most_bytes=share, seed=options.seed)
        xs.append(x)
        oks.append(ok)
        allowed.append(tolerances(draft, members))
        whole += num_hyper_blocks(draft)
    if first is None:
        raise ConfigError("train: no files are given")
    return first, np.concatenate(xs), np.concatenate(oks), whole, np.max(allowed, axis=0)


def _largest(
    items: list[LossyVariable], options: CompressOptions, file: PathLike
) -> tuple[GroupPlan, list[LossyVariable]]:
    drafts = make_drafts([m for m in items if not m.reason], options, None)
    if not drafts:
        raise ConfigError(f"train: {file} has no floating-point data variable with a range")
    return max(drafts, key=lambda d: sum(m.variable.nbytes for m in d[1]))


def _same(
    items: list[LossyVariable], first: GroupPlan, options: CompressOptions, file: PathLike
) -> tuple[GroupPlan, list[LossyVariable]]:
    """Give the draft of a further file with the first one's variables and blocks."""
    # A variable may be constant in one of the files: the others teach its range.
    found = {m.variable.path: m for m in items if m.stats.valid}
    missing = [n for n in first.paths if n not in found]
    if missing:
        raise ModelMismatchError(f"train: {file} lacks {', '.join(missing[:5])}, which the first file has")
    shapes = {found[n].variable.shape for n in first.paths}
    drafts = make_drafts([found[n] for n in first.paths], options, first.paths)
    block = first.geometry.block
    fits = len(shapes) == 1 and len(block) == len(next(iter(shapes)))
    if len(drafts) != 1 or not fits or any(b > n for b, n in zip(block, next(iter(shapes)), strict=True)):
        raise ModelMismatchError(f"train: the variables of {file} do not lie on one grid of blocks {block}")
    draft, members = drafts[0]
    geometry = model_geometry(
        draft.geometry.shape, block, first.geometry.hyper, len(members), draft.dtype.itemsize, options
    )
    return replace(draft, geometry=geometry), members


def _saved(model: TrainedModel, path: Path, sources: tuple[str, ...], hyper_blocks: int) -> TrainReport:
    from hbae.container import encode_decoder
    from hbae.train.model_file import save_model

    try:
        name = save_model(path, model)
    except BaseException:
        path.with_name(path.name + ".part").unlink(missing_ok=True)
        raise
    reached = model.report
    return TrainReport(
        path=str(path),
        size=path.stat().st_size,
        model_size=len(encode_decoder(model.decoder)),
        decoder_id=name,
        names=model.names,
        sources=sources,
        hyper_blocks=hyper_blocks,
        steps=reached.steps if reached else 0,
        seconds=reached.seconds if reached else 0.0,
        mean_nrmse=reached.mean_nrmse if reached else float("nan"),
        slim=reached.slim.to_json() if reached and reached.slim else None,
    )
