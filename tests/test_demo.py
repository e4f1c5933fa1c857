"""The demo's story, from the journal of its rehearsal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from homeostat.demo import Line, Told, tell
from homeostat.demo.stream import SEASONAL, START_MS, Script, payments
from homeostat.domain.errors import UsageError
from homeostat.domain.event import Event
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
    assert SCRIPT.days >= 60


def test_the_season_alerts_and_nothing_is_retrained(told: Told) -> None:
    first, last = SCRIPT.season
    alerts = [event for event in of(told, "alert.opened") if first <= day(event) <= last + 1]
    assert alerts
    assert all(event.subject.startswith("inputs drifted") for event in alerts)
    assert any("hour" in event.text for event in alerts)
    trained = [day(event) for event in of(told, "training.")]
    assert not any(first <= one < SCRIPT.concept for one in trained)
    assert not [event for event in of(told, "alert.opened") if day(event) < first]


def test_the_change_is_found_by_labels_and_repaired(told: Told) -> None:
    fired = of(told, "trigger.fired")
    assert {event.body["kind"] for event in fired} == {"performance"}
    assert SCRIPT.concept < day(fired[0]) <= SCRIPT.concept + 5
    repair = next(release for release in told.result.releases if release.id == "R2")
    assert (repair.status, str(repair.steps[0])) == (Status.PROMOTED, "shadow")
    steps = [event.body["step"] for event in of(told, "release.advanced") if event.subject == "R2"]
    assert steps == ["10 %", "50 %", "100 %", "probation"]
    weeks = {
        (event.body["end_ms"] - START_MS) // DAY_MS: event.body["readings"][0]["effect"]
        for event in of(told, "monitor.metric")
        if event.subject == str(7 * DAY_MS)
    }
    assert min(weeks[21], weeks[28], weeks[35]) > 0.8 > weeks[42]
    assert weeks[63] > 0.75
    assert told.result.frozen.whole.value < 0.6 < told.result.loop.whole.value


def test_the_broken_version_is_rolled_back_by_evidence(told: Told) -> None:
    broken = next(release for release in told.result.releases if release.candidate.number == told.broken)
    assert broken.status is Status.ROLLED_BACK
    assert "quality: harm (E = " in broken.reason
    assert broken.ended_ms is not None
    assert broken.ended_ms - broken.started_ms <= 3 * DAY_MS
    assert 0 < told.misled < 0.01 * told.result.rows
    assert told.result.releases[-1] == broken


def test_everything_is_told_in_order_and_the_report_is_there(told: Told) -> None:
    days = [line.day for line in told.lines if line.kind == "loop"]
    assert days == sorted(days)
    whole = "\n".join(line.text for line in told.lines)
    for turn in ("The first", "A season begins", "Nothing was retrained", "Fraud changes", "R2: Promoted"):
        assert turn in whole
    assert Path(told.report).read_text().startswith("<!doctype html>")


def test_the_same_seed_tells_the_same_story(tmp_path: Path) -> None:
    short = Script(days=26, payments_a_day=150, season=(18, 22), concept=23, broken=24)
    stories: list[list[Line]] = [[], [], []]
    for lines, seed in zip(stories, (3, 3, 4), strict=True):
        tell(tmp_path / "same", seed, lines.append, quiet, short)
    assert without_path(stories[0]) == without_path(stories[1]) != without_path(stories[2])


def without_path(lines: list[Line]) -> list[Line]:
    return lines[:-1]


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
