"""An identical release, looked at 10,000 times: all lanes together take it back in 5 % of runs at most.

Source: Ville's inequality for each lane at its part of the budget, a union bound over the lanes. Assumes what each lane
assumes (`engines/evidence.py`). What breaks it: an entity whose answers are bad for hours (docs/evidence.md).
"""

from __future__ import annotations

import numpy as np
import pytest
from bench.evidence.releases import AT_ONCE, at, bound, identical, steady, swinging, worlds

from homeostat.engines.lanes import ERRORS_ALPHA, QUALITY_ALPHA, SEGMENTS_ALPHA, SLOW_ALPHA

RUNS = 8 * AT_ONCE
WORLDS = worlds(np.random.default_rng(1), RUNS)
FOUND: dict[str, int] = {}


def test_the_budget_of_false_rollbacks() -> None:
    assert pytest.approx(0.05) == ERRORS_ALPHA + SLOW_ALPHA + QUALITY_ALPHA + SEGMENTS_ALPHA


@pytest.mark.parametrize("name", WORLDS)
def test_under_whatever_it_meets(name: str) -> None:
    """Few runs for each world: a rule that this world breaks altogether fails here."""
    lanes = identical(list(WORLDS).index(name), RUNS, WORLDS[name])
    FOUND[name] = int(np.any(list(lanes.values()), axis=0).sum())
    assert FOUND[name] <= 5, {lane: int(found.sum()) for lane, found in lanes.items()}


def test_over_all_of_them() -> None:
    """Fails when the true rate is .10: then 28 of 280 are to be expected, and 6 are too many."""
    assert list(FOUND) == list(WORLDS), "run the whole module"
    assert bound(sum(FOUND.values()), RUNS * len(FOUND)) <= 0.05, FOUND


def test_the_worlds_are_what_they_say() -> None:
    assert swinging(1_440).max() / steady(1)[0] == pytest.approx(1.8)
    assert swinging(1_440).min() / steady(1)[0] == pytest.approx(0.2)
    assert set(np.unique(WORLDS["weights change at random"].weight)) == {100.0, 1_000.0, 5_000.0}
    assert at(1)[0] == 1_000
    for world in WORLDS.values():
        assert sum(kind.share * kind.loss for kind in world.kinds) == pytest.approx(0, abs=1e-12), (
            "no worse in the mean"
        )
        assert world.base.shape[-1] == 10_000
