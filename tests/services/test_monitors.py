from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray
from watching import A_DAY, MODEL, POLICY, Labels, World

from homeostat.domain.errors import PipelineError
from homeostat.domain.gate import Verdict
from homeostat.domain.monitor import Alert, Window
from homeostat.domain.policy import LogPolicy, MonitorPolicy, TrainPolicy
from homeostat.domain.units import DAY_MS, HOUR_MS
from homeostat.engines import metrics
from homeostat.engines.drift.profile import Profile
from homeostat.engines.drift.refused import REQUESTS
from homeostat.services import windows
from homeostat.services.drifts import Drifts


def lived(restarts: bool) -> World:
    """Ten calm days, then two in which the input moved, four calm ones, then the errors rise."""
    world = World()
    for shift, wrong, days in ((0.0, 0.1, 10), (2.0, 0.1, 2), (0.0, 0.1, 4), (0.0, 0.45, 4)):
        for _ in range(days):
            if restarts:
                world.restart()
            world.day(wrong, shift)
    return world


@pytest.fixture(scope="module")
def world() -> World:
    return lived(restarts=False)


def test_each_whole_window_is_judged_once(world: World) -> None:
    windows = [(e.body["start_ms"], e.body["rows"]) for e in world.journal.read(MODEL, "monitor.drift")]
    assert windows == [(day * DAY_MS, 96) for day in range(30, 50)]
    metric = [e.body["readings"][0]["subject"] for e in world.journal.read(MODEL, "monitor.metric")]
    assert metric == ["accuracy"] * 19
    assert all(e.text.endswith("n = 96 of 96") for e in world.journal.read(MODEL, "monitor.metric"))
    assert world.monitors.watch() == ()


def test_an_alert_opens_once_a_cause_and_closes_when_it_is_gone(world: World) -> None:
    drift = world.journal.read(MODEL, "alert.", "inputs amount")
    assert [(e.kind, e.at_ms // DAY_MS) for e in drift] == [("alert.opened", 41), ("alert.closed", 43)]
    assert "amount" in drift[0].text
    assert "hour" not in drift[0].text
    assert [alert.title for alert in world.alerts.open()] == ["performance"]
    assert (drift[0].body["severity"], drift[0].body["columns"]) == ("info", ["amount"])
    example = world.log.find(drift[0].body["example"])
    assert example["at_ms"][0] in range(40 * DAY_MS, 41 * DAY_MS)
    assert example["inputs"].struct.field("amount")[0] > 2.5  # amid what it gained, which its last prediction is not
    assert not world.journal.read(MODEL, "alert.", "predictions")


def test_harm_is_found_on_mature_labels_only(world: World) -> None:
    performance = world.performances.now()
    assert performance is not None
    assert performance.change.verdict is Verdict.HARM
    assert performance.change.n == 19 * 96
    assert performance.change.since == 46
    opened = world.journal.read(MODEL, "alert.opened", "performance")[0].at_ms
    assert 48 * DAY_MS <= opened <= 50 * DAY_MS
    (alert,) = world.alerts.open()
    assert (alert.causes[0].kind, alert.example[:1]) == ("within", "p")
    assert "its rows changed for the worse" in alert.causes[0].words


def test_labels_that_come_at_this_very_moment_count() -> None:
    world = World()
    world.day()
    world.clock.now = 32 * DAY_MS
    world.labels.frame = world.labels.frame.with_columns(at_ms=pl.lit(world.clock.now, pl.Int64))
    (metric,) = [reading for reading in world.monitors.watch() if reading.test == "metric"]
    assert metric.verdict is Verdict.OK
    (event,) = world.journal.read(MODEL, "monitor.metric")
    assert event.body["rows"] == 96
    performance = world.performances.now()
    assert performance is not None
    assert performance.change.n == 96


def test_a_restart_changes_no_outcome(world: World) -> None:
    again = lived(restarts=True)
    assert again.journal.read(MODEL) == world.journal.read(MODEL)
    world.restart()
    first = again.performances.now()
    assert first == world.performances.now()


def test_between_windows_the_logs_are_left_alone() -> None:
    world = World()
    world.day()
    reads = world.log.reads
    world.clock.now += HOUR_MS
    world.monitors.watch()
    assert world.log.reads == reads
    assert world.performances.now() is not None


def test_without_a_champion_there_is_nothing_to_watch() -> None:
    world = World()
    world.router.publish(type(world.router.read())(2, {}))
    assert world.monitors.watch() == ()
    assert world.performances.now() is None
    assert world.triggers.check() is None


def test_what_the_log_does_not_hold_is_not_watched() -> None:
    world = World(replace(POLICY, log=LogPolicy(drop=("amount",))))
    world.day()
    world.day()
    (event, *_) = world.journal.read(MODEL, "monitor.drift")
    assert {reading["subject"] for reading in event.body["readings"]} == {"hour", "@prediction"}
    assert world.alerts.open() == ()


def test_a_log_in_trouble_is_one_alert_as_long_as_it_lasts() -> None:
    world = World()
    world.troubles = {"log not written": "no room"}
    for _ in range(3):
        world.monitors.watch()
        world.clock.now += 1
    world.restart()
    world.monitors.watch()
    (alert,) = world.alerts.open()
    assert (alert.title, alert.evidence) == ("log not written", "no room")
    world.troubles = {"log not written": "no room, and more is lost"}
    assert world.alerts.open()[0].evidence == "no room, and more is lost"
    world.troubles = {"log not compacted": "dead"}
    world.monitors.watch()
    assert [alert.title for alert in world.alerts.open()] == ["log not compacted"]
    world.troubles = {}
    world.restart()  # and the alert is closed by whoever comes next
    world.monitors.watch()
    assert world.alerts.open() == ()
    assert world.kinds("alert.") == ["alert.opened", "alert.closed", "alert.opened", "alert.closed"]


def test_a_longer_window_is_made_of_the_shorter_ones_and_reads_no_row_again() -> None:
    world = World(replace(POLICY, monitor=MonitorPolicy((DAY_MS,))))
    world.day()
    world.day()
    days = [event.body for event in world.journal.read(MODEL, "monitor.drift", str(DAY_MS))]
    assert [day["rows"] for day in days] == [96, 96]
    both = replace(POLICY, monitor=MonitorPolicy((DAY_MS, 2 * DAY_MS)))
    drifts = Drifts(both, world.log, world.counted, world.journal, world.blobs)  # after a restart: from their blobs
    before, champion = world.log.reads, world.champions.now()
    assert champion is not None
    longer = drifts.judge(champion, Window(days[0]["start_ms"], days[1]["end_ms"]))
    assert longer is not None
    assert world.log.reads == before
    parts = [Profile.from_bytes(world.blobs.get(day["profile"])) for day in days]
    assert world.blobs.get(longer.profile) == Profile.total(parts).to_bytes()


def test_a_window_that_nobody_counted_is_read_a_stretch_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """An hour first, then as long as has about `AT_ONCE` rows: memory does not grow with a window's."""
    world = World()
    world.day()
    (day,) = (event.body for event in world.journal.read(MODEL, "monitor.drift"))
    monkeypatch.setattr("homeostat.services.drifts.AT_ONCE", 8)
    lengths: list[int] = []
    read = world.log.read

    def measured(model: str, start_ms: int, end_ms: int) -> pl.DataFrame:
        rows = read(model, start_ms, end_ms)
        lengths.append(len(rows))
        return rows

    monkeypatch.setattr(world.log, "read", measured)
    champion = world.champions.now()
    assert champion is not None
    again = Drifts(POLICY, world.log, world.counted, world.journal, world.blobs)
    judged = again.judge(champion, Window(day["start_ms"], day["end_ms"]))
    assert judged is not None
    assert (judged.rows, judged.profile) == (96, day["profile"])
    assert lengths == [4, *[8] * 11, 4]


def test_a_slow_drift_is_found_by_days_together_of_which_none_shows_it() -> None:
    """A fifth of a standard deviation in 96 rows a day; the days before a restart are read from their blobs."""
    world = World()
    for day in range(15):
        if day % 2:
            world.restart()
        world.day(shift=0.2 if day > 4 else 0.0)
    read = [one for event in world.journal.read(MODEL, "monitor.drift") for one in event.body["readings"]]
    levels = [one for one in read if (one["subject"], one["test"], one["verdict"]) == ("amount", "level", "harm")]
    assert levels
    assert {one["windows"] for one in levels} == {4}
    assert "over the last 4 windows" in levels[0]["reason"]


def test_each_window_has_an_estimate_that_a_changed_concept_does_not_move(world: World) -> None:
    told = [(e.body["start_ms"] // DAY_MS, e.body["estimate"]) for e in world.journal.read(MODEL, "monitor.estimate")]
    assert [day for day, _ in told] == list(range(30, 50))
    assert all(one["low"] <= 0.9 <= one["high"] for _, one in told)
    measured = [e.body["readings"][0]["effect"] for e in world.journal.read(MODEL, "monitor.metric")]
    assert min(measured[-3:]) < 0.7 < min(one["value"] for _, one in told[-3:])
    champion = world.champions.now()
    assert champion is not None
    assert world.estimates.dropped(champion) is None
    texts = [event.text for event in world.journal.read(MODEL, "monitor.estimate")]
    assert all(text.startswith("estimated accuracy") for text in texts)


def test_an_estimated_drop_counts_only_where_an_input_that_matters_drifted() -> None:
    """Scores near .5 are right half of the time, as the holdout knows."""
    world = World()
    for shift, names in ((0.0, ()), (2.0, ("amount",))):
        world.unsure = True
        world.day(shift=shift)
        champion = world.champions.now()
        assert champion is not None
        (event,) = world.journal.read(MODEL, "monitor.estimate")[-1:]
        assert event.body["readings"][0]["verdict"] == "harm"
        assert tuple(event.body["drifted"]) == names
        dropped = world.estimates.dropped(champion)
        assert (dropped is not None) == bool(names)
    assert dropped is not None
    assert "estimated accuracy" in dropped.reason
    assert dropped.reason.endswith("amount drifted")


SMALL = replace(POLICY, monitor=MonitorPolicy((DAY_MS,), rows=(150,)))


def counted(restarts: bool) -> World:
    """Three calm days, then three in which the input moved, then calm ones; 96 answers a day."""
    world = World(SMALL)
    for day in range(10):
        if restarts and day % 3:
            world.restart()
        world.day(shift=2.0 if 3 <= day < 6 else 0.0)
    return world


def test_windows_of_so_many_rows_follow_each_other_whatever_the_clock_says() -> None:
    world = counted(False)
    events = world.journal.read(MODEL, "monitor.drift", "150 rows")
    windows = [(one.body["start_ms"], one.body["end_ms"]) for one in events]
    assert [one.body["rows"] for one in events] == [150] * (10 * 96 // 150)
    assert windows[0][0] == 30 * DAY_MS
    assert all(before[1] == after[0] for before, after in pairwise(windows))
    measured = [one.body for one in world.journal.read(MODEL, "monitor.metric", "150 rows")]
    assert [(one["start_ms"], one["end_ms"]) for one in measured] == windows[: len(measured)]
    assert all(one.at_ms >= one.body["end_ms"] + DAY_MS for one in world.journal.read(MODEL, "monitor.metric"))
    assert {one["rows"] for one in measured} == {150}
    assert len(world.journal.read(MODEL, "monitor.estimate", "150 rows")) == len(events)
    alerts = [one for one in world.alerts.all() if "amount" in one.columns]
    assert len(alerts) == 1  # whichever window saw it first: the other tells it no second time
    assert alerts[0].closed_ms is not None
    assert len(world.journal.read(MODEL, "monitor.drift", str(DAY_MS))) == 10
    assert counted(restarts=True).journal.read(MODEL) == world.journal.read(MODEL)


def test_an_alert_of_a_count_of_rows_closes_by_the_same_count() -> None:
    world = World(replace(POLICY, monitor=MonitorPolicy((7 * DAY_MS,), rows=(48,))))
    for shift in (0.0, 2.0, 2.0, 0.0, 0.0):
        world.day(shift=shift)
    (alert,) = [one for one in world.alerts.all() if "amount" in one.columns]
    assert (alert.window_rows, "(window of 48 rows)" in alert.evidence) == (48, True)
    assert alert.closed_ms is not None
    assert alert.closed_ms - alert.opened_ms <= 2 * DAY_MS


def test_a_slow_drift_is_found_by_counts_of_rows_together() -> None:
    world = World(replace(POLICY, monitor=MonitorPolicy((7 * DAY_MS,), rows=(96,))))
    for day in range(15):
        world.day(shift=0.2 if day > 4 else 0.0)
    read = [one for event in world.journal.read(MODEL, "monitor.drift", "96 rows") for one in event.body["readings"]]
    assert {one["windows"] for one in read if (one["subject"], one["verdict"]) == ("amount", "harm")} & {4, 16}


def test_of_a_large_window_a_sample_by_id_is_looked_at_and_said_to_be_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drift is judged on all rows; up to `MOST` nothing is left out."""
    whole, twin = World(), World()
    monkeypatch.setattr(windows, "MOST", 96)
    for _ in range(3):
        whole.day()
    monkeypatch.setattr(windows, "MOST", 48)
    for day in range(3):
        if day:
            twin.restart()
        twin.day()
    assert twin.journal.read(MODEL, "monitor.drift") == whole.journal.read(MODEL, "monitor.drift")
    assert not any("sample" in event.text for event in whole.journal.read(MODEL))
    for kind in ("monitor.estimate", "monitor.metric"):
        for event in twin.journal.read(MODEL, kind):
            assert event.text.endswith("(a sample by id, 50.00%)")
    estimated = [one.body["estimate"]["n"] for one in twin.journal.read(MODEL, "monitor.estimate")]
    measured = [one.body["rows"] for one in twin.journal.read(MODEL, "monitor.metric")]
    assert estimated[: len(measured)] == measured  # the same rows
    assert all(30 <= n <= 66 for n in estimated)


def test_no_more_labels_are_held_than_a_window_has_rows() -> None:
    """Of all that came since it began, however many these are."""
    world, held = World(), list[int]()

    class Spied(Labels):
        def read(self, start_ms: int, end_ms: int, ids: pl.Series | None = None) -> pl.DataFrame:
            found = world.labels.read(start_ms, end_ms, ids)
            held.append(found.height)
            return found

    world.monitors.labels = Spied()
    for _ in range(6 * A_DAY):  # a standstill: its windows are judged together
        world._answer(0.1, 0.0, False, False)
        world.clock.now += DAY_MS // A_DAY
    world.monitors.watch()
    assert held == [A_DAY] * 5


def test_a_metric_of_the_projects_own_that_has_no_value_stops_nothing() -> None:
    """A day without a label, one on which it divides by zero, one on which it fails: each is unknown."""
    asked = list[int]()

    def cost(y: NDArray[np.float64], _: object) -> float:
        asked.append(len(y))
        if y.sum() == 1:
            raise RuntimeError("no price")
        return 1 / int(y.sum())

    metrics.own("metrics:cost", cost)
    world = World(replace(POLICY, train=TrainPolicy("metrics:cost")))
    only = pl.when(pl.int_range(pl.len()) == 0).then(pl.lit("1")).otherwise(pl.lit("0"))
    for label in (pl.col("label"), None, pl.lit("0"), only):
        n = world.labels.frame.height
        world.day()
        before, told = world.labels.frame.head(n), world.labels.frame.slice(n)
        world.labels.frame = pl.concat([before, told.clear() if label is None else told.with_columns(label=label)])
    world.day()
    said = [event.text for event in world.journal.read(MODEL, "monitor.metric")]
    assert said[0].startswith("metrics:cost ")
    assert said[1:] == [
        "metrics:cost can't be measured on 0 labels of 96 answers",
        "metrics:cost can't be measured on 96 labels of 96 answers",
        "metrics:cost can't be measured on 96 labels of 96 answers: "
        "metrics:cost failed on 96 rows: RuntimeError: no price",
    ]
    assert 0 not in asked
    assert len(world.journal.read(MODEL, "monitor.drift")) == 5
    with pytest.raises(PipelineError, match="no price"):
        metrics.measure("metrics:cost", np.eye(96)[0], np.zeros((96, 2)))


def test_a_version_that_was_made_before_says_that_it_knows_no_windows_of_so_many_rows() -> None:
    world = World()
    world.policy = replace(POLICY, monitor=MonitorPolicy((DAY_MS,), rows=(96,)))
    world.restart()
    world.day(shift=3.0)
    world.day(shift=3.0)
    event, _ = world.journal.read(MODEL, "monitor.drift", "96 rows")
    assert event.text == "@prediction: version 1 was made before windows of 96 rows were watched; train anew"
    assert {reading["verdict"] for reading in event.body["readings"]} == {"unknown"}


def test_an_alert_about_refused_requests_names_one_of_them() -> None:
    world = World()
    for _ in range(3):
        world.day()
    for row in range(A_DAY):
        world._answer(0.1, 0.0, False, cents=row % 4 == 0)
        world.clock.now += DAY_MS // A_DAY
    world.monitors.watch()
    (alert,) = world.alerts.open()
    assert (alert.title, alert.columns) == ("requests are refused", (REQUESTS,))
    (found,) = world.log.find(alert.example).to_dicts()
    assert (found["role"], found["at_ms"]) == ("rejected", world.clock.now - 4 * DAY_MS // A_DAY)


@pytest.mark.parametrize("restarts", [False, True])
def test_requests_that_go_on_being_refused_go_on_being_told(restarts: bool) -> None:
    """What raised an alarm is no "before" for the next windows, also after a restart."""
    world = World()
    for _ in range(3):
        world.day()
    for day in range(5):
        if restarts:
            world.restart()
        for row in range(A_DAY):
            world._answer(0.1, 0.0, False, cents=row % 4 == 0)
            world.clock.now += DAY_MS // A_DAY
        world.monitors.watch()
        assert [one.name for one in world.alerts.open()] == ["A1"], day


@pytest.mark.parametrize("held", [False, True])
def test_labels_that_are_held_back_have_one_alert(held: bool) -> None:
    world = World()
    for _ in range(3):
        world.day()
    if held:
        suspicious = Alert("", "labels of crowd are suspicious", "", world.clock.now, subject="labels of crowd")
        world.alerts.raised(suspicious)
    kept = world.labels.frame
    for _ in range(5):
        world.day()
        world.labels.frame = kept
    assert [one.subject for one in world.alerts.open()] == ["labels of crowd" if held else "labels"]
