"""Who leads: by what is seen of the other, on a clock of one's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from homeostat.services.leader import PATIENCE_MS, Leader
from homeostat.stores import sql


class Time:
    now = 0

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Leader, Leader, Time]:
    leases, time = sql.SqlLeases(sql.connect(f"sqlite:///{tmp_path}/state.db")), Time()
    return Leader(leases, "price", "one", time), Leader(leases, "price", "two", time), time


def test_the_first_leads_at_once_and_as_long_as_it_lives(pair: tuple[Leader, Leader, Time]) -> None:
    one, two, time = pair
    assert (one.look(), one.term()) == (True, 1)
    for _ in range(20):
        time.now += PATIENCE_MS - 1
        assert one.look()
        assert not two.look()


def test_the_other_takes_over_when_it_has_seen_no_sign_of_life_for_long_enough(
    pair: tuple[Leader, Leader, Time],
) -> None:
    one, two, time = pair
    assert one.look()
    time.now = 10 * PATIENCE_MS
    assert not two.look()  # it has only begun to watch
    time.now += PATIENCE_MS - 1
    assert not two.look()
    time.now += 1
    assert (two.look(), two.term()) == (True, 2)
    assert one.term() == 1  # it does not know yet
    assert (one.look(), one.term()) == (False, 0)
    assert two.look()


def test_after_an_orderly_end_nobody_waits(pair: tuple[Leader, Leader, Time]) -> None:
    one, two, _ = pair
    assert one.look()
    assert not two.look()
    one.leave()
    assert (two.look(), two.term(), one.term()) == (True, 2, 0)
