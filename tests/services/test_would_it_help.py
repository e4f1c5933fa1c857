"""Probes over a real project: its own training function, and versions that serve."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

import projects
from homeostat.adapters.source import Source
from homeostat.config import read_policy
from homeostat.domain.bundle import Version
from homeostat.domain.dataset import EVENT_MS
from homeostat.domain.rollout import Arm, ReleaseStep, Rollout, Route, Status, StepKind
from homeostat.domain.units import DAY_MS, iso
from homeostat.wiring.system import System

DAYS, A, B = 40, 14, 28
"""The truth turns round on day A, and back on day B."""


class Seasons:
    """A project whose rows come day by day."""

    def __init__(self, root: Path) -> None:
        frame = projects.rows(DAYS, 72, A)
        again = (pl.col("at") >= projects.rows(B + 1, 1)["at"][-1]).cast(pl.Int64)
        frame = frame.with_columns(fraud=pl.when(again == 1).then(1 - pl.col("fraud")).otherwise("fraud"))
        policy = projects.POLICY.replace("window: 20d", "window: 10d")
        projects.make(root, frame, policy)
        read = read_policy(root)
        self.rows, self.day = Source(root, read.data, read.task)(), 0
        self.system: System = projects.system(root, source=self.until)

    def until(self) -> pl.DataFrame:
        return self.rows.filter(pl.col(EVENT_MS) < projects.START_MS + self.day * DAY_MS)

    def serve(self, day: int) -> Version:
        """A version that was trained on that day serves from then on."""
        self.day = day
        made, stores = self.system.runs.run().version, self.system.stores
        assert made is not None
        number, now = made.number, self.system.clock.now_ms()
        steps = (ReleaseStep(StepKind.FULL, 10_000),)
        record = Rollout(f"R{number}", "cards", None, made, steps, 0, Status.PROMOTED, now, now, "", 0)
        stores.rollouts.save(record)
        routing, route = stores.router.read(), Route(record.id, Arm(number, made.bundle))
        stores.router.publish(replace(routing, version=routing.version + 1, routes={"cards": route}))
        return made


@pytest.fixture
def seasons(tmp_path: Path) -> Seasons:
    return Seasons(tmp_path / "cards")


def test_a_fit_helps_once_it_has_seen_what_changed(seasons: Seasons) -> None:
    system, window = seasons.system, 10 * DAY_MS
    seasons.day = 10
    assert system.probes.refit(window).reason == "nothing is served yet"
    seasons.serve(10)
    early = system.probes.refit(window)
    assert not early.helps
    assert early.reason.startswith("the champion has learned from all but 0 of the newest labels")
    seasons.day = A
    calm = system.probes.refit(window)
    assert not calm.helps
    assert (calm.n, calm.rows) == (3 * 72, 10 * 72 - 3 * 72)
    assert calm.cost == f"Cost: {calm.rows} rows fitted."
    seasons.day = A + 7
    changed = system.probes.refit(window)
    assert changed.helps
    assert changed.gain > 0.2
    assert system.probes.refit(window) == changed
    change = projects.START_MS + A * DAY_MS
    alone = system.probes.refit(window, changed_ms=change - 2 * DAY_MS, forgot_ms=projects.START_MS)
    assert change - 2 * DAY_MS < alone.since_ms <= change + DAY_MS, "losses may rise a little before"
    assert alone.rows > changed.rows
    assert alone.gain > changed.gain
    assert alone.reason.startswith(f"a model fitted on the rows since {iso(alone.since_ms)} alone is better")
    assert not system.data.versions()[1:], "a probe makes no version of the data"


def test_a_probe_is_paid_for_once(seasons: Seasons, tmp_path: Path) -> None:
    """Asked again about the same rows, its fit is a cached step: the project's code does not run."""
    seasons.serve(10)
    seasons.day = A + 7
    first = seasons.system.probes.refit(10 * DAY_MS)
    ran = tmp_path / "ran.txt"
    projects.edited(tmp_path / "cards", "lib.py", "    return 7", f"    open({str(ran)!r}, 'a').close()\n    return 7")
    changed = seasons.system.probes.refit(10 * DAY_MS)  # other code, so that it is fitted anew
    assert ran.exists()
    ran.unlink()
    assert seasons.system.probes.refit(10 * DAY_MS) == changed == first
    assert not ran.exists()


def test_the_version_of_an_earlier_season_is_remembered(seasons: Seasons) -> None:
    summer = seasons.serve(12)
    seasons.serve(26)
    seasons.day, back = B, projects.START_MS + B * DAY_MS
    assert seasons.system.probes.remembered(0, 0.0) is None
    seasons.day = B + 1  # one of the three days that a probe is tested on
    early = seasons.system.probes.remembered(0, 0.0)
    since = seasons.system.probes.remembered(back, 0.3)
    assert since is not None
    assert seasons.system.probes.remembered(back, 0.9) is None
    assert (since.version, since.probed.n) == (summer, 72)
    assert early is None or early.probed.gain < since.probed.gain / 2
    seasons.day = B + 4
    found = seasons.system.probes.remembered(0, 0.0)
    assert found is not None
    assert found.version == summer
    assert found.probed.reason.startswith("version 1, which served before, is better on the newest")
    stores = seasons.system.stores
    worst = replace(stores.rollouts.all("cards")[0], id="R9", status=Status.ROLLED_BACK, revision=0)
    stores.rollouts.save(worst)
    assert seasons.system.probes.remembered(0, 0.0) is None  # a bundle that was refused since stays so
