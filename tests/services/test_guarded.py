"""A guarded segment through the loop: harm in it takes a release back, and every view tells which one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import polars as pl
import pytest

from homeostat import codec
from homeostat.config import read_policy
from homeostat.domain.bundle import Bundle, Version
from homeostat.domain.errors import ConfigError
from homeostat.domain.gate import Verdict
from homeostat.domain.policy import MonitorPolicy, ReleasePolicy
from homeostat.domain.rollout import Rollout, Route, Status
from homeostat.domain.schema import Field, Kind, Schema, Task
from homeostat.domain.units import DAY_MS
from homeostat.engines.report.release import release_report
from homeostat.project import view
from world import LOG, MODEL, Answer, Log, World, right, unit

COUNTRIES = ("DE", "FR", "IT")
SCHEMA = Schema((Field("country", Kind.TEXT, vocabulary=COUNTRIES),), Task.BINARY, "y", (0, 1))
POLICY = ReleasePolicy(steps=("shadow", "10%", "100%", "probation"), on_unknown="best_estimate")


def country(row: str) -> str:
    return COUNTRIES[int(unit(row, "country") * 3)]


def traded(row: str, truth: int) -> tuple[str, float | None]:
    """Worse than the champion in one country, better in the others, and in the mean."""
    return right(0.75 if country(row) == "FR" else 0.99)(row, truth)


class Guarded(World):
    """One whose rows come from three countries, of which the policy guards each."""

    def __init__(self, segments: tuple[str, ...] = ("country",)) -> None:
        super().__init__(POLICY, per_day=960)
        self.policy = replace(self.policy, monitor=MonitorPolicy(segments=segments))
        self.log = Log({**LOG, "inputs": pl.Struct({"country": pl.String})})
        self.releases = self.restart()

    def version(self, number: int, answer: Answer) -> Version:
        made = super().version(number, answer)
        data = codec.encode(Bundle(MODEL, SCHEMA, 0.5, 1.0, {}, made.run, 0, 0))
        self.stored[made.bundle] = data
        return made

    def _answer(self, row: str, at: int, route: Route) -> list[tuple[Any, ...]]:
        rows = super()._answer(row, at, route)
        return [(*one[:-1], {"country": country(row)} if one[6] == "answer" else None) for one in rows]


def released(answer: Answer, segments: tuple[str, ...] = ("country",), days: int = 12) -> tuple[Guarded, Rollout]:
    world = Guarded(segments)
    world.promote_first()
    world.live(3 * DAY_MS)
    world.releases.start(world.version(2, answer))
    world.live(days * DAY_MS)
    return world, world.releases.history()[-1]


def test_harm_in_one_country_takes_the_release_back_and_says_which() -> None:
    world, ended = released(traded)
    assert ended.status is Status.ROLLED_BACK
    assert ended.reason.startswith("segments: harm where country = FR, 1 of 5 segments: country = FR (E = ")
    shown = view(world.releases.explain(ended.id), 0.005)
    harmed = [lane for seen in shown.snapshots for lane in seen.lanes if lane.verdict is Verdict.HARM]
    assert {lane.name for lane in harmed} == {"segments"}
    page = release_report(shown)
    assert "Is its loss larger for one value of a guarded input?" in page
    assert "harm where country = FR" in page


def test_without_the_guard_its_mean_carries_it() -> None:
    assert released(traded, segments=(), days=16)[1].status is Status.PROMOTED


def test_an_equal_candidate_is_promoted() -> None:
    world, ended = released(right(0.9, "again"), days=16)
    assert ended.status is Status.PROMOTED
    looks = view(world.releases.explain(ended.id), 0.005).course("segments")
    assert {lane.verdict for _, lane in looks} <= {Verdict.UNKNOWN, Verdict.OK}
    assert any(lane.n for _, lane in looks)


def test_a_guarded_input_that_is_none_freezes_the_release() -> None:
    world, waits = released(right(0.9, "again"), ("contry",), days=1)
    assert waits.status is Status.RUNNING
    standing = world.releases.status()
    assert standing is not None
    assert "monitor.segments names contry, which is no input" in standing.move.reason


def test_an_input_that_is_not_logged_cannot_be_guarded(tmp_path: Any) -> None:
    text = "name: m\ntask: binary\ndata: {source: a.csv, target: y}\ntrain: {metric: roc_auc}\n"
    text += "monitor: {segments: [country]}\nlog: {hash: [country]}\n"
    (tmp_path / "homeostat.yaml").write_text(text)
    with pytest.raises(
        ConfigError, match=r"monitor.segments needs country in the log, but log.drop or log.hash hides it"
    ):
        read_policy(tmp_path)
