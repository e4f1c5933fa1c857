"""Which labels the loop believes, and those that rules make of events."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import projects
from homeostat.config import read_policy
from homeostat.domain.errors import ConfigError
from homeostat.domain.event import Event
from homeostat.domain.feedback import FeedbackPolicy, Hold, LabelRule
from homeostat.domain.policy import DataPolicy, Policy, TrainPolicy
from homeostat.domain.prediction import LabelBatch, LogBatch, SignalBatch
from homeostat.domain.schema import Field, Kind, Schema, Task
from homeostat.domain.units import DAY_MS
from homeostat.services.believed import BelievedLabels
from homeostat.services.feedback import Feedback
from homeostat.stores import predictions
from homeostat.stores.archive import SegmentArchive
from homeostat.stores.days import DayTables
from homeostat.stores.memory import MemoryJournal
from homeostat.stores.memory_log import MemoryLabels, MemoryLog
from homeostat.stores.predictions import SegmentLabels

SCHEMA = Schema((Field("x", Kind.NUMBER),), Task.BINARY, "y", (0, 1))
RULES = (LabelRule(True, "chargeback", 30 * DAY_MS), LabelRule(True, "bought", DAY_MS), LabelRule(False, after=DAY_MS))
POLICY = Policy(
    "m",
    Task.BINARY,
    DataPolicy("x.csv", "y", label_horizon=30 * DAY_MS),
    TrainPolicy("roc_auc"),
    feedback=FeedbackPolicy(rules=RULES),
)


class World:
    """One prediction a day, of one card: p0, p1, …"""

    def __init__(self) -> None:
        self.log, self.labels, self.now = MemoryLog(), MemoryLabels(), 0

    def now_ms(self) -> int:
        return self.now

    def timer_ns(self) -> int:
        return 0

    def live(self, days: int) -> None:
        for day in range(self.now // DAY_MS, self.now // DAY_MS + days):
            said: tuple[Any, ...] = ([1], ["champion"], ["answer"], ["ok"], [9], [0.5], ["0"], [None], {"x": [1.0]})
            self.log.append(LogBatch("m", day * DAY_MS, "R1", 0, [f"p{day}"], ["card"], *said))
        self.now += days * DAY_MS

    def happens(self, name: str, at: float, prediction: str = "", value: float = 1.0) -> None:
        key = None if prediction else "card"
        self.labels.append_signals(SignalBatch([prediction], [name], [value], [int(at * DAY_MS)], [key]))

    def feedback(self, policy: Policy = POLICY, journal: MemoryJournal | None = None) -> Feedback:
        return Feedback(policy, self.log, self.labels, journal or MemoryJournal(), self, lambda: SCHEMA)

    def told(self) -> dict[str, str]:
        return dict(self.labels.read(0, 2**60).select("id", "label").rows())


def test_events_become_labels_and_late_ones_correct_them() -> None:
    world = World()
    world.live(3)
    world.happens("bought", 0.5, "p0")
    assert world.feedback().derive() == 3  # and of p2 nothing is known yet
    assert world.told() == {"p0": "1", "p1": "0", "p2": "0"}
    assert world.feedback().derive() == 0
    world.live(20)
    world.happens("chargeback", 1.4)  # by the card: p1, 20 days later
    world.happens("bought", 2.5, "p2", 0.0)
    assert world.feedback().derive() == 20 + 1
    assert {name: label for name, label in world.told().items() if label == "1"} == {"p0": "1", "p1": "1"}
    assert set(world.labels.received(0, 2**60)["source"]) == {"rules"}
    fewer = replace(POLICY, feedback=FeedbackPolicy(rules=RULES[1:]))
    assert world.feedback(fewer).derive() == 1
    assert world.told()["p1"] == "0"


def test_thumbs_and_ratings_say_whether_the_answer_was_right() -> None:
    world = World()
    world.live(6)  # each is answered 0
    rules = (
        LabelRule(event="thumbs", within=DAY_MS, at_most=0, answer="wrong"),
        LabelRule(event="thumbs", within=DAY_MS, at_least=1, answer="right"),
        LabelRule(event="rating", within=DAY_MS, at_most=2, answer="wrong"),
    )
    world.happens("thumbs", 0.1, "p0", 0.0)
    world.happens("thumbs", 1.1, "p1", 0.0)
    world.happens("thumbs", 1.2, "p1", 1.0)  # they changed their mind
    world.happens("rating", 2.1, "p2", 2.0)
    world.happens("rating", 3.1, "p3", 3.0)
    world.happens("thumbs", 4.1, value=0.0)  # by the card
    world.happens("thumbs", 6.5, "p5", 0.0)  # too late
    policy = replace(POLICY, feedback=FeedbackPolicy(rules=rules))
    assert world.feedback(policy).derive() == 4
    assert world.told() == {"p0": "1", "p1": "0", "p2": "1", "p4": "1"}
    with pytest.raises(ValueError, match="two classes"):
        replace(policy, task=Task.MULTICLASS)


def test_once_an_hour() -> None:
    world = World()
    feedback = world.feedback()
    world.live(2)
    feedback.turn()
    world.happens("chargeback", 0.1)
    world.now += 59 * 60_000
    feedback.turn()
    assert world.told()["p0"] == "0"
    world.now += 60_000
    feedback.turn()
    assert world.told()["p0"] == "1"


def test_no_prediction_is_passed_over_between_two_looks() -> None:
    """The rules are shorter than the hour between two looks; and the control plane is gone for a week."""
    quick = FeedbackPolicy(rules=(LabelRule(False, after=600_000),))
    policy = replace(POLICY, data=DataPolicy("x.csv", "y", label_horizon=600_000), feedback=quick)
    world, journal = World(), MemoryJournal()
    world.live(1)
    feedback = world.feedback(policy, journal)
    feedback.turn()
    world.live(1)  # p1 is answered now, and is a day old at the next look
    feedback.turn()
    assert set(world.told()) == {"p1"}
    journal.append(Event(world.now, "m", "monitor.drift", "k", "", "", {}))
    world.live(7)
    world.feedback(policy, journal).turn()
    assert set(world.told()) == {f"p{day}" for day in range(1, 9)}


def test_a_label_that_the_model_does_not_know() -> None:
    policy = replace(POLICY, feedback=FeedbackPolicy(rules=(LabelRule("fraud", after=DAY_MS),)))
    with pytest.raises(ConfigError, match=r"one of 0, 1(.|\n)*feedback.rules\[0\].label"):
        World().feedback(policy).derive()


def test_a_rule_must_not_be_longer_than_the_horizon(tmp_path: Path) -> None:
    root = projects.make(tmp_path / "cards")
    policy = root / "homeostat.yaml"
    said = "feedback: {rules: [{event: chargeback, within: 90d, label: true}]}\n"
    policy.write_text(policy.read_text() + said)
    with pytest.raises(
        ConfigError, match=r"feedback.rules\[0\] \(chargeback within 90 d\) is longer than data.label_hor"
    ):
        read_policy(root)


def test_the_most_trusted_counts_and_what_is_held_does_not() -> None:
    labels = MemoryLabels()
    labels.append(LabelBatch(["a", "a", "b"], ["1", "0", "0"], [10, 20, 20], ["clerk", "crowd", "crowd"]))
    labels.append(LabelBatch(["c", "c"], ["0", "1"], [30, 29], ["bot", "bot"]))
    policy, holds = FeedbackPolicy(sources={"clerk": 1.0, "crowd": 0.6, "bot": 0.6}), list[Hold]()
    believed = BelievedLabels(labels, policy, lambda: holds)
    assert believed.read(0, 99).select("id", "label").rows() == [("a", "1"), ("b", "0"), ("c", "0")]
    holds += [Hold("clerk", 10, 11, ""), Hold("bot", 30, None, "")]
    assert believed.read(0, 99).select("id", "label").rows() == [("a", "0"), ("b", "0"), ("c", "1")]
    assert believed.received(0, 99).height == 5


@pytest.mark.parametrize("stored", [False, True])
def test_what_is_kept_between_two_reads_is_what_a_whole_read_says(
    stored: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predictions, "_LATE_NS", 0)
    tables, rng, now = DayTables(tmp_path / "tables"), np.random.default_rng(4), 0
    labels = SegmentLabels(tmp_path / "log", "w", tables) if stored else MemoryLabels()
    archive = SegmentArchive(tmp_path / "log", tables)
    holds, classes = list[Hold](), set("0123")
    for policy in (FeedbackPolicy(), FeedbackPolicy(sources={"a": 1.0, "b": 0.5})):
        rules = policy, lambda: holds, lambda: frozenset(classes)
        kept = BelievedLabels(labels, *rules)
        for step in range(60):
            n = int(rng.integers(0, 6))
            ids, texts, who = (rng.choice(list(some), n).tolist() for some in ("pqrstuvw", "01234", "ab"))
            labels.append(LabelBatch(ids, texts, (now + rng.integers(-50, 9, n)).tolist(), who))
            if stored and step % 20 == 13:
                labels.close()
                archive.compact()
            if step % 25 == 24:
                holds.append(Hold("a", now - 20, now - 10, ""))
                classes.add("4")
            now += int(rng.integers(0, 7))
            for start in (0, now // 100 * 100, now // 7 * 7, 60):
                whole = BelievedLabels(labels, *rules).read(start, now + 1)
                assert kept.read(start, now + 1).sort("id").equals(whole.sort("id"))
                assert whole["id"].is_unique().all()
                some = pl.Series(list("prtz"))
                alone = whole.filter(pl.col("id").is_in(some.implode()))
                assert kept.read(start, now + 1, some).sort("id").equals(alone.sort("id"))
        assert len(kept._kept) <= 4
    monkeypatch.setattr("homeostat.services.believed.KEPT_ROWS", 3)
    assert kept.read(0, now + 1).height > 3
    assert not kept._kept
    labels.close() if isinstance(labels, SegmentLabels) else None
