# SPDX-License-Identifier: MIT
"""Pruning, quantisation and fine-tuning of a network, one after the other, for the fewest bytes on disk.

The workflow is that of arXiv 2403.02429 (per-layer sparsity by search, linear and non-linear quantisation, fine-tuning
without gradients); search, codebooks and what is counted are ours.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from hbae.arrays import Array
from hbae.errors import ConfigError
from hbae.slim.quantise import BITS, Quantised, layer_bytes, quantise, rule_for
from hbae.slim.search import Option, Picks, Search, rules_of, search, with_rises
from hbae.slim.sparsity import LEVELS, magnitude_mask
from hbae.slim.trial import Aim, Retrain, Rule, Score, Trial, check_weights, keep_rules
from hbae.slim.tune import tune

# Above so many bits equal steps are as good as clusters.
_BOOK_BITS = 6

log = logging.getLogger("hbae.slim")


@dataclass(frozen=True, kw_only=True)
class SlimConfig:
    """What is tried. ``unit``: all weights become whole multiples of it (0: of each layer's own unit).

    ``levels``: sparsities. ``kinds``, ``bits``: quantisers. ``counted_bits``: width at which the sparsity search counts
    bytes. ``first``, ``children``: vectors of the population and changes of the best, in both searches. ``rounds``: of
    fine-tuning without gradients. ``worth``: layers with a smaller share of the bytes are neither pruned nor narrowed.
    ``shares``: of the retraining budget for the sparsity search, retraining under masks, the search for quantisers,
    retraining under levels.

    Raises
    ------
    ConfigError
        For values out of range.
    """

    unit: float = 0.0
    levels: tuple[float, ...] = LEVELS
    kinds: tuple[str, ...] = ("linear", "kmeans")
    bits: tuple[int, ...] = BITS
    counted_bits: int = 6
    first: int = 5
    children: int = 4
    rounds: int = 100
    worth: float = 0.02
    shares: tuple[float, float, float, float] = (0.25, 0.3, 0.2, 0.25)
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.levels or not all(0 <= s < 1 for s in self.levels):
            raise ConfigError("slim: levels of sparsity must be at least 0 and below 1")
        if not self.bits or not all(2 <= b <= 16 for b in (*self.bits, self.counted_bits)) or self.unit < 0:
            raise ConfigError("slim: bits must be 2 to 16, the unit at least 0")
        if "linear" not in self.kinds and not any(k == "kmeans" and min(self.bits) <= _BOOK_BITS for k in self.kinds):
            raise ConfigError(f"slim: kinds are linear and kmeans; kmeans alone needs bits of at most {_BOOK_BITS}")
        if self.first < 1 or min(self.children, self.rounds) < 0:
            raise ConfigError("slim: first must be at least 1, children and rounds at least 0")
        if len(self.shares) != 4 or min(self.shares) < 0 or sum(self.shares) > 1 + 1e-9:
            raise ConfigError("slim: shares are four numbers of at least 0, together at most 1")


@dataclass(frozen=True, kw_only=True)
class LayerReport:
    """What became of a layer: ``density`` is the share of weights other than 0, ``nbytes`` are coded, book included."""

    weights: int
    sparsity: float
    kind: str
    bits: int
    density: float
    nbytes: int

    @property
    def nominal(self) -> float:
        """Bytes by bits x density, the usual figure, with neither mask nor book."""
        return self.weights * self.bits * self.density / 8


@dataclass(frozen=True, kw_only=True)
class SlimReport:
    """What slimming did: losses and coded bytes of the layers before and after, and each layer's choice.

    ``kept``: false when nothing tried cost less than the network as it came.
    """

    loss_before: float
    loss_after: float
    bytes_before: int
    bytes_after: int
    nominal_bytes: float
    kept: bool
    trials: int
    moves: int
    moves_kept: int
    layers: Mapping[str, LayerReport]

    def to_json(self) -> dict[str, Any]:
        """Give everything as JSON values."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Slimmed:
    """The network as it is stored: integers by layer, the trial that holds exactly these weights, and the report."""

    layers: Mapping[str, Quantised]
    trial: Trial
    rules: Mapping[str, Rule]
    report: SlimReport


def slim(
    start: Trial,
    score: Score,
    retrain: Retrain,
    aim: Aim,
    config: SlimConfig | None = None,
    *,
    going: Callable[[], bool] = lambda: True,
) -> Slimmed:
    """Make a network small: the same callables, seed and config give the same result.

    The network as it came, with 16-bit weights (or whole multiples of the unit), is a candidate too: what comes back
    never costs more than that. ``going``: asked before everything optional; false ends searches and tuning.

    Raises
    ------
    ConfigError
        Without weights, or for weights or a first loss that are not finite.
    """
    cfg = config or SlimConfig()
    check_weights(start.weights)
    rng = np.random.default_rng(cfg.seed)
    plain = _plain(start, cfg)
    before = {n: layer_bytes(q.integers) for n, q in plain.items()}
    loss = score(Trial({n: q.values for n, q in plain.items()}, start.state))
    if not np.isfinite(loss):
        raise ConfigError("slim: the loss of the network as it came is not finite")
    tried = {n for n in before if before[n] >= cfg.worth * sum(before.values())}
    trial, picks, found = _prune(start, (score, retrain), aim, cfg, rng, going, tried)
    trial, picks, more = _quantise(trial, picks, (score, retrain), aim, cfg, rng, going, tried)
    tuned = tune(trial, picks, score, aim, rng, rounds=cfg.rounds, going=going)
    layers = {n: quantise(w, picks[n].rule, picks[n].unit) for n, w in tuned.trial.weights.items()}
    after = {n: layer_bytes(q.integers) for n, q in layers.items()}
    kept = aim.cost(tuned.loss, sum(after.values())) < aim.cost(loss, sum(before.values()))
    rules: Mapping[str, Rule] = rules_of(picks)
    final = tuned.trial
    if not kept:
        layers, after = plain, before
        final = Trial({n: q.values for n, q in plain.items()}, start.state)
        rules = {n: Rule(np.ones(w.shape, bool)) for n, w in start.weights.items()}
    reports = {n: _layer_report(q, picks[n].kind, int(picks[n].number), after[n], kept) for n, q in layers.items()}
    report = SlimReport(
        loss_before=loss,
        loss_after=tuned.loss if kept else loss,
        bytes_before=sum(before.values()),
        bytes_after=sum(after.values()),
        nominal_bytes=sum(r.nominal for r in reports.values()),
        kept=kept,
        trials=found + more,
        moves=tuned.tried,
        moves_kept=tuned.kept,
        layers=reports,
    )
    log.info(
        "slim: %d -> %d bytes, loss %.4g -> %.4g", report.bytes_before, report.bytes_after, loss, report.loss_after
    )
    return Slimmed(layers, final, rules, report)


_Callables = tuple[Score, Retrain]


def _prune(
    start: Trial,
    callables: _Callables,
    aim: Aim,
    cfg: SlimConfig,
    rng: np.random.Generator,
    going: Callable[[], bool],
    tried: set[str],
) -> tuple[Trial, Picks, int]:
    """Search the sparsity of every layer, then retrain under the masks of the best vector."""

    def size(w: Array) -> int:
        rule, unit = rule_for(w, w != 0, "linear", cfg.counted_bits, unit=cfg.unit)
        return layer_bytes(quantise(w, rule, unit).integers)

    def option(w: Array, sparsity: float) -> Option:
        rule = Rule(magnitude_mask(w, sparsity))
        return Option("sparsity", sparsity, rule, cfg.unit, size(rule.apply(w)))

    levels = {n: cfg.levels if n in tried else (min(cfg.levels),) for n in start.weights}
    tables = {n: [option(w, s) for s in levels[n]] for n, w in start.weights.items()}
    loss = callables[0](start)
    tables = with_rises(start, tables, callables[0], loss)
    plan = _plan(cfg, cfg.shares[0], going)
    found = search(start, tables, callables, aim, lambda t, _: sum(map(size, t.weights.values())), plan, rng)
    rules = rules_of(found.picks)
    return keep_rules(callables[1](found.trial, rules, cfg.shares[1]), rules), found.picks, found.tried


def _quantise(
    trial: Trial,
    pruned: Picks,
    callables: _Callables,
    aim: Aim,
    cfg: SlimConfig,
    rng: np.random.Generator,
    going: Callable[[], bool],
    tried: set[str],
) -> tuple[Trial, Picks, int]:
    """Search the quantiser of every layer, then retrain under the levels; the trial keeps the unquantised weights."""
    loss = callables[0](trial)
    ways = [(k, b) for b in cfg.bits for k in cfg.kinds if k == "linear" or b <= _BOOK_BITS]

    def option(w: Array, mask: Array, kind: str, bits: int) -> Option:
        rule, unit = rule_for(w, mask, kind, bits, unit=cfg.unit)
        return Option(kind, bits, rule, unit, layer_bytes(quantise(w, rule, unit).integers))

    widest = [max(ways, key=lambda way: way[1])]
    tables = {
        n: [option(w, pruned[n].rule.mask, k, b) for k, b in (ways if n in tried else widest)]
        for n, w in trial.weights.items()
    }

    def size(t: Trial, picks: Picks) -> float:
        return sum(layer_bytes(quantise(w, picks[n].rule, picks[n].unit).integers) for n, w in t.weights.items())

    measured = with_rises(trial, tables, callables[0], loss)
    found = search(trial, measured, callables, aim, size, _plan(cfg, cfg.shares[2], going), rng)
    return callables[1](found.trial, rules_of(found.picks), cfg.shares[3]), found.picks, found.tried


def _plan(cfg: SlimConfig, share: float, going: Callable[[], bool]) -> Search:
    return Search(first=cfg.first, children=cfg.children, effort=share / (cfg.first + cfg.children), going=going)


def _plain(start: Trial, cfg: SlimConfig) -> dict[str, Quantised]:
    out = {}
    for n, w in start.weights.items():
        if cfg.unit:
            out[n] = quantise(w, Rule(np.ones(w.shape, bool)), cfg.unit)
        else:
            rule, unit = rule_for(w, np.ones(w.shape, bool), "linear", 16)
            out[n] = quantise(w, rule, unit)
    return out


def _layer_report(q: Quantised, kind: str, bits: int, nbytes: int, kept: bool) -> LayerReport:
    # Weights in whole units may need fewer bits than they were allowed.
    needed = int(np.abs(q.integers).max(initial=0)).bit_length() + 1
    return LayerReport(
        weights=q.integers.size,
        sparsity=1 - q.density,
        kind=kind if kept else "linear",
        bits=min(bits if kept else 16, needed),
        density=q.density,
        nbytes=nbytes,
    )
