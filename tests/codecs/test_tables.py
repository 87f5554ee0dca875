# SPDX-License-Identifier: MIT
"""Contexts share tables: every token has a table, and few bits are lost against the best way to share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hbae.codecs import tables
from hbae.codecs.tables import merge_contexts, normalise


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(np.int64, st.tuples(st.integers(1, 30), st.integers(2, 12)), elements=st.integers(0, 60)))
def test_every_context_has_the_table_that_holds_it(counts: np.ndarray) -> None:
    labels, merged = merge_contexts(counts)
    assert ((labels >= 0) == counts.any(axis=1)).all()
    assert set(labels[labels >= 0].tolist()) == set(range(len(merged)))
    for k, table in enumerate(merged):
        assert np.array_equal(table, counts[labels == k].sum(axis=0))


@pytest.mark.parametrize("kinds", [3, 12])
def test_alike_contexts_meet_wherever_they_stand(kinds: int) -> None:
    """Contexts of a few kinds in any order, some hardly used: within 2 % of the bits of the kinds themselves."""
    rng = np.random.default_rng(4)
    truth = rng.dirichlet(np.full(9, 0.5), kinds)
    kind = rng.integers(0, kinds, 400)
    counts = np.array([rng.multinomial(n, truth[k]) for k, n in zip(kind, rng.geometric(1 / 2000, 400), strict=True)])
    labels, merged = merge_contexts(counts)

    def bits(tables: np.ndarray, which: np.ndarray) -> float:
        shares = np.array([np.pad(t, (0, 9 - len(t))) for t in map(normalise, tables)]) / 2**14
        return float(-(counts * np.log2(np.maximum(shares, 1e-12))[which])[counts > 0].sum())

    ideal = bits(np.array([counts[kind == k].sum(axis=0) for k in range(kinds)]), kind)
    assert bits(merged, labels) + 9 * 9 * len(merged) < 1.02 * ideal


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    hnp.arrays(np.int64, st.tuples(st.integers(1, 200), st.integers(1, 40)), elements=st.integers(0, 9)),
    st.integers(0, 30),
)
def test_the_kernel_chooses_as_the_reference(kernel_of: Callable[..., Any], counts: np.ndarray, shift: int) -> None:
    found = []
    for unit in (kernel_of(tables, "_tables"), None):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tables, "_tables", unit)
            found.append(merge_contexts(counts**3 << shift))
    assert np.array_equal(found[0][0], found[1][0])
    assert np.array_equal(found[0][1], found[1][1])


def test_logarithms_are_near_enough() -> None:
    n = np.unique(np.concatenate([np.arange(1, 5000), np.geomspace(5000, 2**42, 5000).astype(np.int64)]))
    assert np.abs(tables._log2(n) / 2**20 - np.log2(n)).max() < 3e-6


def test_the_kernel_refuses_what_does_not_fit(kernel_of: Callable[..., Any]) -> None:
    kernel = kernel_of(tables, "_tables")
    rows, out, bits, logs = np.ones((3, 4), np.int64), np.zeros(3, np.int64), tables._BITS, tables._LOGS
    for call in (
        lambda: kernel.costs(rows, rows[:2], bits, logs, out),
        lambda: kernel.costs(rows, rows, bits, logs[1:], out),
        lambda: kernel.costs(rows, rows, bits[:0], logs, out),
        lambda: kernel.costs(rows[:, :3].copy(), np.zeros(0, np.int64), bits, logs, np.zeros(2, np.int64)),
        lambda: kernel.pair_costs(rows, bits, logs, np.zeros((3, 4), np.int64)),
        lambda: kernel.deal(rows, np.ones((2, 3), np.int64), 1, out),
        lambda: kernel.deal(rows, np.zeros((0, 4), np.int64), 1, out),
    ):
        with pytest.raises(ValueError, match="do not fit"):
            call()
