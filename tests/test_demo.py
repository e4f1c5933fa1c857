"""The demo's story, from the journal of its rehearsal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from homeostat.demo import Line, Told, tell, telling
from homeostat.demo.stream import SEASONAL, START_MS, Script, payments
from homeostat.demo.telling import Daily
from homeostat.domain.errors import UsageError
from homeostat.domain.event import Event
from homeostat.domain.gate import GateResult, Verdict
from homeostat.domain.rollout import Status
from homeostat.domain.units import DAY_MS

SCRIPT = Script()


def quiet(_done: int, _total: int, _doing: str) -> None:
    pass


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    return tell(tmp_path_factory.mktemp("demo") / "here", 1, lambda _: None, quiet)


def day(event: Event) -> int:
    return (event.at_ms - START_MS) // DAY_MS + 1


def of(told: Told, kind: str) -> list[Event]:
    return [event for event in told.result.events if event.kind.startswith(kind)]


def test_no_caller_ever_sees_an_error(told: Told) -> None:
    assert told.result.failed_requests == 0
    assert abs(told.result.rows / ((SCRIPT.days - SCRIPT.warmup) * SCRIPT.payments_a_day) - 1) < 0.02
    assert SCRIPT.days - SCRIPT.warmup >= 60


def test_the_turns_come_in_order_and_nothing_else_happens(told: Told) -> None:
    """One training for the change, one rollback for the mistake; no performance alarm before the change."""
    turns = [
        event.kind
        for event in told.result.events
        if event.kind.startswith(("training.", "trigger.fired", "release.promoted", "release.rolled_back"))
        or event.kind == "alert.opened"
    ]
    assert turns == [
        "training.done",
        "release.promoted",
        "alert.opened",  # the season
        "alert.opened",  # the change
        "trigger.fired",
        "training.done",
        "release.promoted",
        "release.rolled_back",
    ]
    assert told.result.settled == 0


def test_the_season_alerts_and_nothing_is_retrained(told: Told) -> None:
    first, last = SCRIPT.season
    alerts = [event for event in of(told, "alert.opened") if day(event) < SCRIPT.concept]
    assert all(first <= day(event) <= last + 7 for event in alerts)
    assert [event.subject for event in alerts] == ["inputs category, hour"]  # by what they matter
    assert [day(event) for event in of(told, "training.")][1] > SCRIPT.concept


def test_the_change_is_found_by_labels_and_repaired(told: Told) -> None:
    fired = of(told, "trigger.fired")
    assert [event.body["kind"] for event in fired] == ["performance"]
    assert SCRIPT.concept < day(fired[0]) <= SCRIPT.concept + 5
    repair = next(release for release in told.result.releases if release.id == "R2")
    assert (repair.status, str(repair.steps[0])) == (Status.PROMOTED, "backtest")
    steps = [event.body["step"] for event in of(told, "release.advanced") if event.subject == "R2"]
    assert steps == ["shadow", "10 %", "50 %", "100 %", "probation"]
    readings = list(telling.daily(told.result.events))
    before = [one for one in readings if one.day < SCRIPT.concept]
    during = [one for one in readings if one.day >= SCRIPT.concept and one.version == 1]
    after = [one for one in readings if one.version == 2]
    assert telling.mean(before).low > 0.8 > 0.4 > telling.mean(during).value
    assert telling.mean(after).low > 0.75
    told_of = next(line.text for line in told.lines if "before the change" in line.text)
    assert all(telling.shown(part) in told_of for part in (before[-7:], during, after[:7]))
    assert told.result.frozen.whole.value < 0.6 < told.result.loop.whole.value


def test_the_broken_version_is_rolled_back_by_recorded_requests_and_answers_nobody(told: Told) -> None:
    broken = next(release for release in told.result.releases if release.candidate.number == told.broken)
    assert broken.status is Status.ROLLED_BACK
    found = next(event for event in of(told, "release.backtest") if event.subject == broken.id)
    quality = next(lane for lane in found.body["result"]["lanes"] if lane["name"] == "quality")
    assert quality["verdict"] == Verdict.HARM
    assert quality["evidence"] >= quality["threshold"] == 50
    assert broken.ended_ms is not None
    assert broken.ended_ms - broken.started_ms <= DAY_MS / 2
    assert told.misled == 0
    assert told.result.releases[-1] == broken
    versions = {event.body["version"] for event in of(told, "monitor.") if event.at_ms > broken.ended_ms}
    assert versions == {2}


def test_everything_is_told_in_order_and_the_report_is_there(told: Told) -> None:
    days = [line.day for line in told.lines if line.kind == "loop"]
    assert days == sorted(days)
    whole = "\n".join(line.text for line in told.lines)
    turns = ("Version 1 on the", "A season begins", "Nothing was retrained", "Fraud changes", "R2: Promoted")
    places = [whole.index(turn) for turn in (*turns, "before the change", "amounts in cents", "R3 rolled back")]
    assert places == sorted(places)
    assert Path(told.report).read_text().startswith("<!doctype html>")


def test_the_same_seed_tells_the_same_story(tmp_path: Path) -> None:
    short = Script(days=26, payments_a_day=150, warmup=14, season=(18, 22), concept=23, broken=24)
    stories: list[list[Line]] = [[], [], []]
    for lines, seed in zip(stories, (3, 3, 4), strict=True):
        tell(tmp_path / "same", seed, lines.append, quiet, short)
    assert stories[0] == stories[1] != stories[2]


def test_the_journals_words_are_written_as_the_reports_write_them() -> None:
    assert telling.plain("roc_auc 0.857 [0.83, 0.9], n = 1.05; 10.5 %.") == "ROC AUC .857 [.83, .9], n = 1.05; 10.5 %"
    assert telling.gates([GateResult("mae at most 0.5", Verdict.OK, "mae 0.4 holds")]) == (
        "MAE at most .5 says ok: MAE .4 holds"
    )
    assert telling.sentence(Event(0, "m", "monitor.drift", "k", "s", "no drift")) is None


def test_the_mean_over_days_has_an_interval_where_there_are_several() -> None:
    """Student's t by hand: values 1, 2, 3 of equal weight: 2 -+ 4.303 / sqrt 3."""
    days = [Daily(number, 1, "roc_auc", float(number), 10) for number in (1, 2, 3)]
    found = telling.mean(days)
    assert (found.value, found.n) == (2.0, 30)
    assert found.high - found.value == pytest.approx(4.3027 / 3**0.5, abs=1e-3)
    assert telling.shown(days[:1]) == "1.00 over 1\N{NO-BREAK SPACE}day, 10\N{NO-BREAK SPACE}labels"
    assert telling.mean([Daily(1, 1, "mae", 1.0, 30), Daily(2, 1, "mae", 5.0, 10)]).value == 2.0


def test_a_folder_in_use_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(UsageError, match="in use"):
        tell(tmp_path, 1, lambda _: None, quiet)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_the_truth_of_the_stream() -> None:
    """The season moves what people buy and not what it says of fraud; the change does the opposite."""
    frame = payments(5, Script(days=60, payments_a_day=2_000, season=(11, 20), concept=41))
    days = (frame["paid_at"].dt.epoch("ms").to_numpy() - START_MS) // DAY_MS + 1
    amount, fraud = frame["amount"].to_numpy(), frame["fraud"].to_numpy()
    season, plain, changed = (days >= 11) & (days <= 20), (days > 20) & (days < 41), days >= 41
    for name in SEASONAL:
        column = frame[name].to_physical() if name == "hour" else (frame[name] == "gifts").cast(int)
        values = column.to_numpy()
        assert values[season].mean() > 1.2 * values[plain].mean()
        assert abs(values[changed].mean() / values[plain].mean() - 1) < 0.05
    large = amount > np.median(amount)
    rates = [[fraud[when & size].mean() for size in (large, ~large)] for when in (plain, season, changed)]
    assert np.allclose(rates[0], rates[1], atol=0.02)
    assert rates[0][0] > 2 * rates[0][1]
    assert rates[2][1] > 2 * rates[2][0]
    assert abs(amount[changed].mean() / amount[plain].mean() - 1) < 0.05
