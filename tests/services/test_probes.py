"""Five failed probes in a row are a hard stop, for a candidate that was ready before."""

from __future__ import annotations

import pytest

from homeostat.domain.policy import ReleasePolicy
from homeostat.domain.rollout import Rollout, Status
from homeostat.domain.units import HOUR_MS
from homeostat.services.release_seen import PROBE_MS, PROBES
from world import World, right


@pytest.fixture
def canary() -> World:
    """A canary of 10 % under way."""
    world = World(ReleasePolicy(steps=("10%", "100%"), min_time=240 * HOUR_MS), per_day=480)
    world.promote_first()
    world.live(72 * HOUR_MS)
    world.releases.start(world.version(2, right(0.9)))
    world.live(4 * HOUR_MS)
    assert world.route is not None
    assert world.route.weight == 1_000
    return world


def last(world: World) -> Rollout:
    return world.releases.history()[-1]


def probed(world: World, times: int) -> Rollout:
    for _ in range(times):
        world.now += PROBE_MS
        world.settle()
    return last(world)


def test_the_fifth_in_a_row_takes_the_release_back(canary: World) -> None:
    canary.loaded.discard(last(canary).candidate.bundle)
    assert probed(canary, PROBES - 1).status is Status.RUNNING
    assert canary.route is not None
    assert canary.route.weight == 0, "no traffic from the first failure on"
    ended = probed(canary, 1)
    assert ended.status is Status.ROLLED_BACK
    assert ended.reason == "5 probes in a row failed: version 2 was ready before"


def test_one_that_answers_in_between_begins_the_count_anew(canary: World) -> None:
    bundle = last(canary).candidate.bundle
    for _ in range(3):
        canary.loaded.discard(bundle)
        assert probed(canary, PROBES - 1).status is Status.RUNNING
        canary.loaded.add(bundle)
        assert probed(canary, 1).status is Status.RUNNING


def test_what_fails_both_versions_is_not_the_candidates_fault(canary: World) -> None:
    canary.loaded.clear()
    assert probed(canary, 3 * PROBES).status is Status.RUNNING


def test_looking_more_often_is_not_probing_more_often(canary: World) -> None:
    canary.loaded.discard(last(canary).candidate.bundle)
    for _ in range(3 * PROBES):
        canary.settle()
    assert last(canary).status is Status.RUNNING


def test_a_candidate_that_was_never_ready_is_waited_for() -> None:
    world = World(ReleasePolicy(steps=("10%", "100%")), per_day=480)
    world.promote_first()
    world.live(72 * HOUR_MS)
    world.releases.start(world.version(2, right(0.9)))
    assert probed(world, 3 * PROBES).status is Status.RUNNING
