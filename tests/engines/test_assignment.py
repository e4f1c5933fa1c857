from __future__ import annotations

import numpy as np
from scipy.stats import chisquare

from homeostat.engines.routing import assign, to_candidate

KEYS = [f"key-{i}" for i in range(20_000)]


def test_buckets_are_stable_and_even() -> None:
    assert assign("R1", ["a", "b", ""]).tolist() == [1023, 9525, 8557]  # a change would move every caller
    counts = np.bincount(assign("R1", KEYS) // 100, minlength=100)
    assert chisquare(counts).pvalue > 1e-3
    assert len(counts) == 100


def test_releases_are_independent() -> None:
    first, second = assign("R1", KEYS) < 5_000, assign("R2", KEYS) < 5_000
    assert abs(float(np.mean(first & second)) - 0.25) < 0.02


def test_who_is_in_stays_in() -> None:
    before = np.zeros(len(KEYS), bool)
    for weight in (0, 100, 1_000, 5_000, 10_000):
        now = to_candidate("R1", KEYS, weight)
        assert not (before & ~now).any()
        assert abs(now.mean() * 10_000 - weight) < 150
        before = now
    assert before.all()
