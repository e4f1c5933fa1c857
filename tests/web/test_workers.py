"""How many workers there are: the rule, and what it looks at."""

from __future__ import annotations

import pytest

from homeostat.web.workers import HIGH_S, LOW_S, Usage, wanted


@pytest.mark.parametrize(
    ("workers", "lately", "long", "then"),
    [
        (1, 0.85, 0.2, 2),
        (1, 0.75, 0.75, 1),
        (2, 1.7, 1.7, 3),
        (2, 1.0, 0.45, 1),
        (2, 1.0, 0.55, 2),
        (4, 4.0, 4.0, 4),  # no more than four
        (1, 0.0, 0.0, 1),  # no fewer than one
    ],
)
def test_the_number_follows_the_load_between_its_bounds(workers: int, lately: float, long: float, then: int) -> None:
    number, why = wanted(workers, 1, 4, lately, long)
    assert number == then
    assert bool(why) == (then != workers)


def test_usage_counts_what_was_spent_while_it_looked() -> None:
    usage = Usage()
    usage.look(0.0, {1: 100.0})  # spent before
    assert usage.cores(HIGH_S) is None
    for second in range(1, 131):
        seen = {1: 100.0 + second * 0.9}
        if second > 125:
            seen[2] = 50.0 + second * 0.5  # joins later: counts from its second look on
        usage.look(float(second), seen)
    assert usage.cores(LOW_S) == pytest.approx(0.9 + 4 * 0.5 / LOW_S)
    assert usage.cores(HIGH_S) == pytest.approx(0.9 + 4 * 0.5 / HIGH_S)
    usage.look(131.0, {2: 50.0 + 131 * 0.5})  # the first has died
    assert usage.cores(HIGH_S) == pytest.approx((9 * 0.9 + 5 * 0.5) / HIGH_S)
    usage.forget()
    usage.look(132.0, {2: 116.5})
    assert usage.cores(HIGH_S) is None
