"""Labels that go wrong are told from a world that changes, held back, and a person is asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from homeostat.domain.bundle import Bundle
from homeostat.domain.errors import NotFound
from homeostat.domain.feedback import FeedbackPolicy
from homeostat.domain.policy import DataPolicy, Policy, TrainPolicy
from homeostat.domain.prediction import LabelBatch, LogBatch
from homeostat.domain.schema import Field, Kind, Schema, Task
from homeostat.domain.units import DAY_MS, HOUR_MS
from homeostat.engines.feedback import ACCEPTED, REJECTED
from homeostat.services.alerts import Alerts
from homeostat.services.believed import BelievedLabels
from homeostat.services.feedback import Feedback
from homeostat.services.suspicion import Suspicions
from homeostat.stores.memory import MemoryJournal
from homeostat.stores.memory_log import MemoryLabels, MemoryLog

Array = NDArray[np.float64]
Wrong = Callable[[Array, np.random.Generator], NDArray[np.bool_]]
"""(inputs (n, 2), chance) → whose labels are told the other way round."""
SCHEMA = Schema((Field("a", Kind.NUMBER), Field("b", Kind.NUMBER)), Task.BINARY, "y", (0, 1))
VALUE = Schema(SCHEMA.fields, Task.REGRESSION, "y")
POLICY = Policy("m", Task.BINARY, DataPolicy("x.csv", "y", label_horizon=DAY_MS), TrainPolicy("roc_auc"))
AN_HOUR = 4
START = 40


def right(x: Array, _: np.random.Generator) -> NDArray[np.bool_]:
    return np.zeros(len(x), bool)


def poisoned(x: Array, chance: np.random.Generator) -> NDArray[np.bool_]:
    return chance.random(len(x)) < 0.35


def turned(x: Array, _: np.random.Generator) -> NDArray[np.bool_]:
    return x[:, 0] > 0.5


class World:
    """96 answers a day by a model that errs now and then; each source labels its share of them a day later."""

    def __init__(self, policy: Policy = POLICY, sources: tuple[str, ...] = ("",), schema: Schema = SCHEMA) -> None:
        self.policy, self.sources, self.schema = policy, sources, schema
        self.log, self.labels, self.journal = MemoryLog(), MemoryLabels(), MemoryJournal()
        self.chance, self.now = np.random.default_rng(3), START * DAY_MS
        self.restart()

    def restart(self) -> None:
        self.feedback = Feedback(self.policy, self.log, self.labels, self.journal, self, lambda: self.schema)
        self.alerts = Alerts(self.policy, self.journal, self)
        bundle = Bundle("m", self.schema, 0.5, 2.0, {}, "run", 1, 0)
        asked = (self.feedback, self.alerts)
        self.suspicions = Suspicions(self.policy, self.log, self.labels, self, lambda: bundle, *asked)
        self.believed = BelievedLabels(self.labels, self.policy.feedback, self.feedback.holds)

    def now_ms(self) -> int:
        return self.now

    def timer_ns(self) -> int:
        return 0

    def live(self, days: int, **wrong: Wrong) -> None:
        """`wrong`: of a source ("named" of all)."""
        for _ in range(days * 24):
            self._hour(wrong)
            self.now += HOUR_MS
            if self.now % DAY_MS == 0:
                self.feedback.turn()
                self.suspicions.turn()

    def _hour(self, wrong: dict[str, Wrong]) -> None:
        n, at = AN_HOUR, self.now
        x = self.chance.standard_normal((n, 2))
        score, truth = self._model(x), self._truth(x)
        ids = [f"p{at}-{i}" for i in range(n)]
        said: Any = (
            [1] * n,
            ["champion"] * n,
            ["answer"] * n,
            ["ok"] * n,
            [9] * n,
            score.tolist(),
            [None] * n,
            [None] * n,
        )
        self.log.append(
            LogBatch("m", at, "R1", 0, ids, [None] * n, *said, {"a": x[:, 0].tolist(), "b": x[:, 1].tolist()})
        )
        for number, source in enumerate(self.sources):
            mine = np.arange(n) % len(self.sources) == number
            other = wrong.get(source or "named", right)(x, self.chance) & mine
            told = np.where(other, 1 - truth if self.schema is SCHEMA else -2 * truth, truth)
            texts = [str(int(one)) if self.schema is SCHEMA else repr(float(one)) for one in told[mine]]
            count = int(mine.sum())
            given = [one for one, take in zip(ids, mine, strict=True) if take]
            self.labels.append(LabelBatch(given, texts, [at + DAY_MS] * count, [source] * count))

    def _model(self, x: Array) -> Array:
        total = x.sum(axis=1)
        return total if self.schema is VALUE else 1 / (1 + np.exp(-4 * total))

    def _truth(self, x: Array) -> Array:
        total = x.sum(axis=1) + 0.3 * self.chance.standard_normal(len(x))
        return total if self.schema is VALUE else (total > 0).astype(float)

    def kinds(self) -> list[str]:
        return [event.kind for event in self.journal.read("m")]


@pytest.mark.parametrize("schema", [SCHEMA, VALUE])
def test_a_poisoned_source_is_held_back_until_it_is_well_again(schema: Schema) -> None:
    world = World(schema=schema)
    world.live(25)
    assert world.kinds() == []
    world.live(6, named=poisoned)
    assert world.kinds() == ["feedback.suspected", "alert.opened"]
    (hold,) = world.feedback.holds()
    assert START + 24 <= hold.from_ms // DAY_MS <= START + 26, "labels come a day later"
    assert "accept|reject" in world.alerts.open()[0].evidence
    assert world.believed.read(hold.from_ms, world.now).is_empty()
    assert not world.believed.read(0, hold.from_ms).is_empty()
    told = world.kinds()
    world.restart()
    world.live(7)
    assert world.kinds() == [*told, "feedback.cleared", "alert.closed"]
    (hold,) = world.feedback.holds()
    assert hold.until_ms is not None
    assert START + 31 <= hold.until_ms // DAY_MS <= START + 35
    assert not world.believed.read(hold.until_ms, world.now).is_empty()


def test_a_world_that_changes_is_learned() -> None:
    world = World()
    world.live(25)
    world.live(15, named=turned)
    assert world.kinds() == []


def some(share: float) -> Wrong:
    return lambda x, chance: chance.random(len(x)) < share


@pytest.mark.parametrize("schema", [SCHEMA, VALUE])
@pytest.mark.parametrize(("most", "over", "kinds"), [(0.45, 1, 2), (1.0, 24, 4)])
def test_a_world_that_turns_row_by_row_is_learned_once_most_have(
    schema: Schema, most: float, over: int, kinds: int
) -> None:
    """Until then its labels contradict each other as those of a poisoned source do, and stay held back as long."""
    world = World(schema=schema)
    world.live(25)
    for day in range(24):
        world.live(1, named=some(most * min(1.0, (day + 1) / over)))
    seen = ["feedback.suspected", "alert.opened", "feedback.cleared", "alert.closed"]
    assert world.kinds() == seen[:kinds]
    (hold,) = world.feedback.holds()
    if hold.until_ms is not None:
        assert START + 25 + 13 <= hold.until_ms // DAY_MS <= START + 25 + 22
    world.live(6, named=some(most))
    assert world.kinds() == seen[:kinds], "what is left of the noise is its history now"


def test_of_two_sources_the_one_that_departs_is_held_back() -> None:
    """All its labels are turned: alike rows agree, and only the other source shows that the world has not turned."""
    world = World(sources=("clerk", "crowd"))
    world.live(30)
    world.live(7, crowd=lambda x, _: np.ones(len(x), bool))
    assert [one.source for one in world.feedback.holds()] == ["crowd"]
    assert "more than those of other sources" in world.feedback.holds()[0].reason
    assert set(world.believed.read(world.feedback.holds()[0].from_ms, world.now)["source"]) == {"clerk"}


def test_a_world_that_changes_for_both() -> None:
    world = World(sources=("clerk", "crowd"))
    world.live(30)
    world.live(10, crowd=turned, clerk=turned)
    assert world.kinds() == []


def test_a_person_decides_and_may_decide_otherwise() -> None:
    world = World(replace(POLICY, feedback=FeedbackPolicy(on_suspicious="learn")))
    with pytest.raises(NotFound, match="no labels of no named source are suspicious"):
        world.feedback.decide(ACCEPTED, "", None, "", "me")
    world.live(25)
    world.live(6, named=poisoned)
    assert world.kinds() == ["feedback.suspected", "alert.opened"]
    assert world.feedback.holds() == ()  # the policy says: learn
    start = world.feedback.suspicions()[0].from_ms
    world.feedback.decide(REJECTED, "", None, "a wrong form", "me")
    assert world.feedback.holds()[0].rejected
    world.live(8)
    assert world.kinds()[3:] == ["alert.closed"], "what a person rejected is not cleared by itself"
    assert world.believed.read(start, world.now + DAY_MS).is_empty()
    mended = world.now
    world.feedback.decide(ACCEPTED, "", mended, "mended", "me")
    assert [one.until_ms for one in world.feedback.holds()] == [mended]
    world.live(8, named=poisoned)
    assert world.feedback.holds()[1:] == (), "a new history has begun, and is too short to judge by"
    world.feedback.decide(ACCEPTED, "", start, "they were right", "me")
    assert world.feedback.suspicions() == ()
    assert world.journal.read("m", REJECTED)[0].body["who"] == "me"


def test_of_a_long_horizon_only_the_days_that_hold_the_answers_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(replace(POLICY, data=DataPolicy("x.csv", "y", label_horizon=90 * DAY_MS)))
    world.live(8)
    read, asked = world.log.read, list[int]()

    def counted(model: str, start_ms: int, end_ms: int) -> pl.DataFrame:
        asked.append(start_ms)
        return read(model, start_ms, end_ms)

    monkeypatch.setattr(world.log, "read", counted)
    ids = world.labels.received(world.now - DAY_MS, world.now)["id"]
    found = world.suspicions._answers(ids, world.now - 92 * DAY_MS, world.now)
    assert found.equals(read("m", 0, world.now).filter(pl.col("id").is_in(ids.implode())))
    assert found.height == 24 * AN_HOUR
    assert min(asked) == world.now - 2 * DAY_MS
    nobody = world.suspicions._answers(pl.Series(["of nobody"]), world.now - 5 * DAY_MS, world.now)
    assert (nobody.height, min(asked)) == (0, world.now - 5 * DAY_MS)
