"""Error rates and power of each lane's rule: the engine's functions over counters of simulated releases, on seeds of
our own (`bench.evidence` runs the same, more often). A broken rule misses these figures by far."""

from __future__ import annotations

import numpy as np
import pytest
from bench.evidence import peers
from bench.evidence.releases import (
    NEVER,
    Array,
    Ints,
    Kind,
    at,
    bound,
    events,
    first,
    labels,
    paired_path,
    steady,
    swinging,
    with_bursts,
    with_stuck,
)
from numpy.typing import NDArray

from homeostat.engines.evidence import Count, share_evidence

RUNS = 4_000


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def rate(found: NDArray[np.bool_] | Ints) -> float:
    return float(np.mean(found != NEVER))


def false(ratio: float, base: Array, weight: Array, per_minute: int = 600) -> Ints:
    return first(events(rng(7), RUNS, base, weight, per_minute, ratio).path(1.0), 0.01)


def test_tripled_errors_at_10_percent_and_600_a_minute() -> None:
    """Lindon & Malek 2022: conditioning on the events. Assumes rows at random and independent events. Fewer requests
    break it: see below."""
    found = false(3.0, steady(60), at(60))
    missed = int((found == NEVER).sum())
    assert bound(missed, RUNS) <= 0.01, "found in 99 %"
    assert np.median(found[found != NEVER]) <= 17


def test_an_identical_release_within_the_hour() -> None:
    """Ville's inequality: at most .01, however often one looks; .003 measured. Assumes nothing but independent events.
    What breaks it: bursts of one entity."""
    assert bound(int((false(1.0, steady(60), at(60)) != NEVER).sum()), RUNS) <= 0.01


def test_while_the_weight_climbs_and_the_base_rate_swings_by_80_percent() -> None:
    """The same: the weight in force and the base rate cancel, given the event."""
    climbing = np.repeat([100.0, 1_000.0, 5_000.0], 20)
    assert bound(int((false(1.0, swinging(60, period=30), climbing) != NEVER).sum()), RUNS) <= 0.01


def test_a_better_candidate_is_never_harm_and_little_traffic_stays_unknown() -> None:
    assert rate(false(0.5, steady(60), at(60))) <= 0.001
    assert rate(false(3.0, steady(60), at(60), per_minute=60)) <= 0.3


def test_a_burst_counts_as_one_event_a_minute_or_it_breaks_the_rule() -> None:
    """A burst of 30 bad answers of one entity in two minutes, three times an hour. As the lane counts, one event each
    minute, the level holds; with every answer counted it does not."""
    seen = events(rng(13), 1_000, steady(240), at(240))
    counted, every = (first(with_bursts(rng(14), seen, 20, n).path(1.0), 0.01) for n in (1, 15))
    assert bound(int((counted != NEVER).sum()), 1_000) <= 0.03
    assert rate(every) >= 0.2


def test_an_entity_that_breaks_both_versions_every_minute_proves_nothing() -> None:
    """Since either version is scored on the rows of the other's arm. What breaks it: rows that break only whichever
    version answers, always of the same entity; then the candidate's share of the releases is lost."""
    seen = events(rng(15), 1_000, steady(240, 0.0005), at(240))
    both, one = (first(with_stuck(rng(16), seen, 1, breaks).path(1.0), 0.01) for breaks in (True, False))
    assert bound(int((both != NEVER).sum()), 1_000) <= 0.02
    assert rate(one) >= 0.08


def test_the_rules_of_others_on_the_same_minutes() -> None:
    """A fixed objective is too strict or too lax, depending on the base rate; a test that is looked at each minute
    finds what is not there; samples of minutes hold too little. So the same simulation can tell rules apart."""
    same, worse = (events(rng(17), 1_000, steady(60), at(60), ratio=ratio) for ratio in (1.0, 3.0))
    assert rate(peers.objective(same, 0.99, 5)) >= 0.95
    assert rate(peers.objective(worse, 0.95, 5)) <= 0.28
    assert 0.25 <= rate(peers.z_test(same)) <= 0.4
    assert rate(peers.mann_whitney(worse)) <= 0.6


def paired(loss: float, flips: float, runs: int, looks: int, seed: int = 11) -> Array:
    """log E after each of so many labels or so, of two outcomes, all mature."""
    kinds = Kind(0.3, loss, flips), Kind(0.7, loss, flips)
    return paired_path(labels(rng(seed), runs, looks, kinds, 1.0), kinds, horizon=0)


def test_a_loss_of_two_points_in_1_300_paired_labels() -> None:
    """Waudby-Smith & Ramdas 2023: betting on the paired differences. Assumes a mean that does not move. What breaks it:
    labels that come sooner where the candidate is worse, and rows that stand or fall together."""
    found = first(paired(0.02, 0.05, 500, 4_000), 0.02)
    assert np.median(found[found != NEVER]) <= 1_300
    assert bound(int((found == NEVER).sum()), 500) <= 0.04


@pytest.mark.parametrize("flips", [0.05, 0.4])
def test_an_equal_candidate_is_found_worse_in_2_percent_at_most(flips: float) -> None:
    """As above, for any stopping time; however many answers differ."""
    assert bound(int((first(paired(0.0, flips, 600, 3_000), 0.02) != NEVER).sum()), 600) <= 0.04


def test_the_sample_ratio_holds_its_level_and_finds_a_tenth_too_many() -> None:
    """Lindon & Malek 2022, for assignments. Assumes independent ones: each entity counts once."""

    def invalid(share: float, runs: int) -> float:
        seen, drawn = 0, rng(5)
        for _ in range(runs):
            mine = np.cumsum(drawn.binomial(200, share, 50))
            seen += any(
                share_evidence([Count(1_000, int(a), 200 * (t + 1) - int(a))]) >= 1_000 for t, a in enumerate(mine)
            )
        return seen / runs

    assert invalid(0.1, 1_000) <= 0.003
    assert invalid(0.12, 50) >= 0.95
