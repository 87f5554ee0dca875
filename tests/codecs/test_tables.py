# SPDX-License-Identifier: MIT
"""Contexts share tables: every token has a table, and few bits are lost against the best way to share."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

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
