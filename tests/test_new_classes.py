"""A class that nobody had seen: told from a typing error, counted as wrong answers, learned, released."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest

import projects
from homeostat.adapters.clock import SimulatedClock
from homeostat.adapters.source import Source
from homeostat.commands import feedback as commands
from homeostat.config import read_policy
from homeostat.domain.errors import NotFound
from homeostat.domain.rehearsal import RehearsalResult
from homeostat.domain.schema import Task
from homeostat.domain.units import DAY_MS, HOUR_MS
from homeostat.engines import metrics
from homeostat.serving.messages import Request
from homeostat.verbs.feedback import FeedbackVerbs
from homeostat.wiring.system import System, rehearsal

APPEARS, DAYS, WARMUP = 12, 26, 10
POLICY = """
name: parcels
task: multiclass
data: {source: rows.parquet, time: at, target: size, label_horizon: 1d}
train: {metric: accuracy, window: 8d, holdout: 2d}
gates: [{metric: accuracy, versus: champion, margin: 0.05}]
release: {max_hold: 3d}
retrain: {when: [performance, {schedule: 6d}], cooldown: 3d}
rehearsal: {warmup: 10d}
"""


def parcels(days: int = DAYS) -> pl.DataFrame:
    """Three sizes by amount; from a day on those of pl are of a fourth, in the middle of the alphabet."""
    rows = projects.rows(days)
    size = pl.when(pl.col("amount") < 25).then(pl.lit("small"))
    size = size.when(pl.col("amount") < 50).then(pl.lit("big")).otherwise(pl.lit("huge"))
    late = pl.col("at") >= pl.from_epoch(pl.lit(projects.START_MS + APPEARS * DAY_MS), "ms")
    return rows.drop("fraud").with_columns(
        size=pl.when(late & (pl.col("country") == "pl")).then(pl.lit("odd")).otherwise(size)
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return projects.make(tmp_path_factory.mktemp("new") / "parcels", parcels(), POLICY)


@pytest.fixture(scope="module")
def life(root: Path) -> tuple[RehearsalResult, System]:
    policy = read_policy(root)
    history = Source(root, policy.data, policy.task)()
    start, end = (projects.START_MS + days * DAY_MS for days in (WARMUP, DAYS))
    staged, system = rehearsal(root, policy, history, start, end)
    return staged.run(lambda *_: None), system


def test_a_rehearsal_survives_it_and_the_loop_learns_it(life: tuple[RehearsalResult, System]) -> None:
    result, system = life
    assert (result.rows, result.failed_requests) == ((DAYS - WARMUP) * 72, 0)
    found = [event for event in result.events if event.kind == "feedback.class"]
    assert [(one.subject, one.body["state"]) for one in found] == [("odd", "found")]
    assert found[0].body["predictions"] >= 20
    alerts = [one for one in system.alerts.all() if one.subject == "class odd"]
    assert [one.causes[0].kind for one in alerts] == ["class"]
    assert alerts[0].closed_ms is not None  # a version knows it
    versions = [system.bundles.load(one.candidate.bundle).schema.classes for one in result.releases]
    assert versions[0] == ("big", "huge", "small")
    learned = result.releases[[("odd" in known) for known in versions].index(True)]
    assert learned.status.value == "promoted"
    last = {name: course.periods[-1][1].value for name, course in (("loop", result.loop), ("frozen", result.frozen))}
    assert last["loop"] > last["frozen"] + 0.15
    assert result.weekly.whole.value > result.frozen.whole.value


def test_on_the_rows_that_both_have_scored_the_one_that_knows_it_is_better(
    life: tuple[RehearsalResult, System],
) -> None:
    result, system = life
    learned = next(one for one in result.releases if "odd" in system.bundles.load(one.candidate.bundle).schema.classes)
    assert learned.champion is not None
    told = system.backtests.between(
        learned.champion, learned.candidate, learned.started_ms, learned.started_ms + 6 * DAY_MS, lambda *_: None
    )
    quality = next(lane for lane in told.result.lanes if lane.name == "quality")
    assert quality.value is not None
    assert quality.value < -0.02


def test_what_is_not_known_is_the_largest_loss() -> None:
    known = pl.DataFrame({"a": [0.2, 1.0, 0.0], "b": [0.8, 0.0, 1.0]}).to_numpy()
    y = np.array([1.0, 2.0, 0.0])
    assert metrics.losses(Task.MULTICLASS, y, known, 1.0).tolist() == pytest.approx([0.04, 1.0, 1.0])
    assert metrics.measure("accuracy", y, known).value == pytest.approx(1 / 3)
    assert metrics.measure("log_loss", y, known).value > 20
    assert metrics.roc_auc(y, metrics.widened(y, known)) == pytest.approx((0.0 + 0.5 + 0.5) / 3)


def say(system: System, label: str, *ids: str) -> int:
    body = {"labels": [{"id": name, "label": label} for name in ids]}
    return system.engine.answer([Request("POST", "/v1/feedback", msgspec.json.encode(body))])[0].status


def test_a_typing_error_waits_until_a_person_says_what_it_is(tmp_path: Path) -> None:
    system = projects.system(projects.make(tmp_path / "parcels", parcels(APPEARS), POLICY))
    system.control.begin()
    system.control.settle()
    system.engine.refresh()
    verbs = FeedbackVerbs("parcels", lambda *_: {}, lambda: system.feedback, lambda: system.classes)
    ids = [f"p{i}" for i in range(60)]
    for label, some in (("small", ids[:30]), ("samll", ids[:1]), ("odd", ids[30:]), ("Huge ", ids[5:29])):
        assert say(system, label, *some) == 200
    assert say(system, " ", "p0") == 422
    assert set(believed(system).values()) == {"small"}  # what a mistyped label corrects still counts
    system.classes.turn()
    assert len(believed(system)) == 60
    assert believed(system)["p30"] == "odd"
    assert {one.subject for one in system.alerts.open()} == {"class odd", "class Huge"}
    told = "\n".join(commands._told(verbs.status()))
    assert "New class 'samll', waiting: labels of 1 prediction name it" in told
    assert "written much like 'small'" in told
    assert "New class 'Huge', waiting" in told  # by its case alone it is no new class, however often it comes
    assert verbs.reject_class("odd", "a wrong form", "ann").text == "New class 'odd': rejected by ann; a wrong form."
    verbs.accept_class("samll")
    assert isinstance(system.clock, SimulatedClock)
    system.clock.move_to(system.clock.now_ms() + HOUR_MS)
    system.classes.turn()
    assert set(believed(system).values()) == {"small", "samll"}
    assert {one.subject for one in system.alerts.open()} == {"class samll", "class Huge"}
    with pytest.raises(NotFound):
        verbs.accept_class("small")


def believed(system: System) -> dict[str, str]:
    return dict(system.labels.read(0, 2**62).select("id", "label").rows())
