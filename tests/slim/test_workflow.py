# SPDX-License-Identifier: MIT
"""Slimming keeps its rules through retraining, keeps what was asked, repeats, and refuses what is no network."""

from __future__ import annotations

import numpy as np
import pytest

from hbae.errors import ConfigError
from hbae.slim import Aim, Rules, SlimConfig, Slimmed, Trial, magnitude_mask, slim
from hbae.slim.quantise import quantise, rule_for
from hbae.slim.trial import Rule

from .conftest import Problem, zeros_kept


def run(p: Problem, aim: Aim | None = None, **config: object) -> Slimmed:
    aim = aim or Aim(limit=1.01 * p.score(p.start))
    return slim(p.start, p.score, p.retrain, aim, SlimConfig(**config))


def test_fewer_bytes_within_the_loss_asked_for(problem: Problem) -> None:
    made = run(problem)
    assert made.report.kept
    assert made.report.bytes_after < 0.5 * made.report.bytes_before
    assert problem.score(made.trial) == made.report.loss_after <= 1.01 * problem.score(problem.start)
    for name, q in made.layers.items():
        assert np.array_equal(q.values, made.trial.weights[name])


def test_nominal_bytes_are_bits_times_density(problem: Problem) -> None:
    report = run(problem, unit=0.01).report
    for r in report.layers.values():
        assert 1 <= r.bits <= 16
        assert r.nominal == r.weights * r.bits * r.density / 8
    assert report.nominal_bytes == sum(r.nominal for r in report.layers.values())
    plain = run(problem, unit=0.01, levels=(0.0,), bits=(16,), rounds=0).report.layers["a"]
    assert plain.bits == int(np.abs(problem.start.weights["a"]).max() / 0.01).bit_length() + 1


def test_masks_survive_retraining(problem: Problem) -> None:
    """Retraining moves every weight; the zeros of the final mask are zeros still."""
    made = run(problem)
    assert len(problem.seen) > 10
    assert any(not rule.mask.all() for rule in made.rules.values())
    for name, rule in made.rules.items():
        assert zeros_kept(made.trial.weights[name], rule.mask)
        assert zeros_kept(made.layers[name].integers, rule.mask)
        assert np.count_nonzero(made.layers[name].integers) <= rule.mask.sum()


def test_the_price_moves_the_balance(problem: Problem) -> None:
    cheap, dear = run(problem, Aim(price=10.0)), run(problem, Aim(price=1e6))
    assert cheap.report.bytes_after < dear.report.bytes_after
    assert cheap.report.loss_after > dear.report.loss_after


def test_same_seed_same_result(problem: Problem) -> None:
    first, second = run(problem, seed=3), run(Problem(), seed=3)
    assert first.report == second.report
    assert all(np.array_equal(q.integers, second.layers[n].integers) for n, q in first.layers.items())


def test_a_unit_makes_whole_multiples(problem: Problem) -> None:
    made = run(problem, unit=0.01)
    for name, q in made.layers.items():
        assert q.unit == 0.01
        assert np.array_equal(np.rint(made.trial.weights[name] / 0.01), q.integers)


def test_the_network_as_it_came_comes_back_when_nothing_costs_less(problem: Problem) -> None:
    def broken(trial: Trial, rules: Rules, share: float) -> Trial:
        return Trial({n: np.full_like(w, 1e9) for n, w in trial.weights.items()}, trial.state)

    made = slim(problem.start, problem.score, broken, Aim(limit=1.01 * problem.score(problem.start)))
    assert not made.report.kept
    assert made.report.bytes_after == made.report.bytes_before
    assert made.report.loss_after == made.report.loss_before
    for name, w in problem.start.weights.items():
        assert np.allclose(made.trial.weights[name], w, rtol=0, atol=np.abs(w).max() / 60000)
        assert made.rules[name].mask.all()


@pytest.mark.parametrize("sparsity", [0.0, 0.2, 0.5, 0.95])
def test_masks_drop_the_smallest(sparsity: float) -> None:
    w = np.random.default_rng(0).normal(size=(7, 9))
    mask = magnitude_mask(w, sparsity)
    assert (~mask).sum() == int(sparsity * w.size)
    assert not (~mask).any() or np.abs(w[~mask]).max() <= np.abs(w[mask]).min()


@pytest.mark.parametrize("kind", ["linear", "kmeans"])
@pytest.mark.parametrize("bits", [16, 8, 6, 4, 3, 2])
@pytest.mark.parametrize("unit", [0.0, 0.001])
def test_levels_hold_zero_and_few_values(kind: str, bits: int, unit: float) -> None:
    w = np.random.default_rng(1).normal(size=(40, 30))
    mask = magnitude_mask(w, 0.3)
    rule, used = rule_for(w, mask, kind, bits, unit=unit)
    q = quantise(w, rule, used)
    assert rule.levels is not None
    assert 0.0 in rule.levels.tolist()
    assert len(rule.levels) <= 2**bits
    assert (np.diff(rule.levels) > 0).all()
    assert zeros_kept(q.values, mask)
    nearest = np.abs(w[mask][:, None] - rule.levels[:: max(1, len(rule.levels) // 4096)]).min(1)
    assert (np.abs(q.values - w)[mask] <= nearest + 1e-12).all()


def test_clusters_beat_equal_steps_at_few_bits() -> None:
    w = np.random.default_rng(2).standard_t(4, size=5000)
    mask = np.ones(w.shape, bool)
    errors = {}
    for kind in ("linear", "kmeans"):
        rule, unit = rule_for(w, mask, kind, 3)
        errors[kind] = float(((quantise(w, rule, unit).values - w) ** 2).mean())
    assert errors["kmeans"] < 0.5 * errors["linear"]


@pytest.mark.parametrize(
    "weights", [np.zeros((4, 5)), np.full((1, 1), 0.7), np.full((3, 3), -2.0)], ids=["zeros", "one", "equal"]
)
def test_odd_layers(problem: Problem, weights: np.ndarray) -> None:
    """A layer of zeros, of one weight, of equal weights, beside real ones."""
    start = Trial({**problem.start.weights, "odd": weights}, 0)

    def retrain(trial: Trial, rules: Rules, share: float) -> Trial:
        after = problem.retrain(trial, rules, share)
        return Trial({**after.weights, "odd": trial.weights["odd"]}, after.state)

    made = slim(start, problem.score, retrain, Aim(price=1e4), SlimConfig(rounds=20))
    assert made.report.kept
    assert made.layers["odd"].integers.shape == weights.shape
    assert made.report.layers["odd"].nbytes < 30
    assert weights.any() or not made.layers["odd"].integers.any()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_no_numbers_are_refused(problem: Problem, bad: float) -> None:
    problem.start.weights["a"][2, 3] = bad
    with pytest.raises(ConfigError, match="layer a has no weights, or weights that are not finite"):
        run(problem, Aim(price=1.0))


def test_nothing_to_slim_is_refused(problem: Problem) -> None:
    for weights in ({}, {"a": np.zeros((0, 3))}):
        with pytest.raises(ConfigError, match="weights"):
            slim(Trial(weights), problem.score, problem.retrain, Aim(price=1.0))
    with pytest.raises(ConfigError, match="loss"):
        slim(problem.start, lambda t: float("nan"), problem.retrain, Aim(price=1.0))


@pytest.mark.parametrize(
    "bad",
    [{"levels": (1.0,)}, {"levels": ()}, {"bits": (1,)}, {"bits": (17,)}, {"kinds": ()}, {"first": 0}, {"unit": -1.0},
     {"kinds": ("kmeans",), "bits": (8,)}, {"shares": (0.5, 0.5, 0.5, 0.5)}, {"rounds": -1}],
)  # fmt: skip
def test_odd_configs_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="slim"):
        SlimConfig(**bad)
    with pytest.raises(ConfigError, match="quantise"):
        rule_for(np.ones(3), np.ones(3, bool), "cubic", 4)


@pytest.mark.parametrize("bad", [{"price": -1.0}, {"price": np.inf}, {"limit": 0.0}, {"limit": np.nan}])
def test_odd_aims_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="limit"):
        Aim(**bad)


def test_rules_take_the_nearest_level() -> None:
    rule = Rule(np.array([True, True, True, False]), np.array([-1.0, 0.0, 2.0]))
    assert rule.apply(np.array([-9.0, 0.9, 1.1, 5.0])).tolist() == [-1.0, 0.0, 2.0, 0.0]
