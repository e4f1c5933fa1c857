from __future__ import annotations

import numpy as np
import pytest

from homeostat.domain.policy import OtherWindow, RetrainPolicy
from homeostat.domain.units import DAY_MS, HOUR_MS
from homeostat.engines.probe import HELPS, gain, halfway, halves, newest
from homeostat.engines.trigger import ladder


@pytest.mark.parametrize(
    ("a_day", "longest_days", "labels"),
    [(48, 7, 144), (24, 7, 100), (4, 7, 28), (1_000, 7, 3_000), (48, 1, 48)],
)
def test_the_newest_labels_are_of_three_days_or_a_hundred_within_the_holdout(
    a_day: int, longest_days: int, labels: int
) -> None:
    times = 40 * DAY_MS + np.arange(30 * a_day) * DAY_MS // a_day
    assert len(times) - newest(times, longest_days * DAY_MS) == labels


def test_labels_from_before_a_change_are_left_out_once_enough_have_come_since() -> None:
    times = 40 * DAY_MS + np.arange(30 * 48) * DAY_MS // 48
    for since, labels in ((68 * DAY_MS, 96), (69 * DAY_MS, 144), (70 * DAY_MS - DAY_MS // 48, 144), (50 * DAY_MS, 144)):
        assert len(times) - newest(times, 7 * DAY_MS, since) == labels


def test_after_a_change_half_of_what_came_is_learned_from_and_half_tells_whether_that_helps() -> None:
    times = 40 * DAY_MS + np.arange(30 * 48) * DAY_MS // 48
    assert halfway(times, 64 * DAY_MS) == 67 * DAY_MS
    assert halfway(times, 66 * DAY_MS) == halfway(times, 0) == 0
    assert halves(times, 62 * DAY_MS) == [62 * DAY_MS, 66 * DAY_MS, 68 * DAY_MS]
    assert not halves(times, 69 * DAY_MS)


def test_fewer_rows_than_labels_wanted_are_all_there_are() -> None:
    assert newest(np.arange(5, dtype=np.int64) * HOUR_MS, 7 * DAY_MS) == 0


def test_a_gain_of_the_mean_is_found_and_luck_is_not() -> None:
    """Ville: at most 1 / HELPS of models that are no better are called better; here in 400 tries of 144 labels."""
    rng = np.random.default_rng(3)
    lucky = found = 0
    for _ in range(400):
        champion = rng.random(144)
        lucky += gain(champion, rng.permutation(champion))[1] >= HELPS
        found += gain(champion, np.clip(champion - 0.1 + rng.normal(0, 0.2, 144), 0, 1))[1] >= HELPS
    assert lucky <= 400 * 0.15
    assert found >= 390


def test_remedies_go_round() -> None:
    policy = RetrainPolicy(remedies=("refit", OtherWindow(DAY_MS), "previous", "person"))
    assert ladder(policy, 0) == ("refit", OtherWindow(DAY_MS), "previous")
    assert ladder(policy, 2) == ("previous", "refit", OtherWindow(DAY_MS))
    assert ladder(policy, 3) == ladder(policy, 0)
    assert ladder(RetrainPolicy(remedies=("person",)), 1) == ()
