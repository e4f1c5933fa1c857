"""Where the model decides which predictions get a label, a random slice tells how good it is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest

import projects
from homeostat.adapters.clock import SimulatedClock
from homeostat.client.calls import _Answer, _prediction
from homeostat.config import read_policy
from homeostat.domain.bundle import Version
from homeostat.domain.errors import ConfigError
from homeostat.domain.units import DAY_MS
from homeostat.engines import metrics
from homeostat.serving.explore import chosen
from homeostat.serving.messages import Request, Response
from homeostat.wiring.system import System, rehearsal

DECLARED = "feedback: {selective: true, exploration: {share: 20%, answer: 0}}\n"
DAYS, A_DAY = 12, 1_000
NAMES = ("amount", "hour", "country", "online")


def ask(system: System, path: str, body: object) -> Response:
    return system.engine.answer([Request("POST", path, msgspec.json.encode(body))])[0]


class Bank:
    """Cards whose answer is 0 are honoured, and only of these is it ever known whether they were a fraud; and of those
    in the slice."""

    def __init__(self, root: Path) -> None:
        self.system = projects.system(root)
        self.system.control.begin()
        self.system.control.settle()
        self.system.engine.refresh()
        self.rows = projects.rows(DAYS, A_DAY, seed=11)
        self.truth = dict(zip([f"r{i}" for i in range(len(self.rows))], self.rows["fraud"].to_list(), strict=True))
        self.score: dict[str, float] = {}
        self.explored: set[str] = set()
        assert isinstance(self.system.clock, SimulatedClock)
        self.clock, self.first_ms = self.system.clock, self.system.clock.now_ms()

    def live(self) -> None:
        for day in range(DAYS):
            self.clock.move_to(self.first_ms + day * DAY_MS)
            self.serve(range(day * A_DAY, (day + 1) * A_DAY))
        self.clock.move_to(self.first_ms + (DAYS + 2) * DAY_MS)

    def serve(self, rows: range) -> None:
        asked = self.rows[rows.start : rows.stop].select(NAMES).to_dicts()
        records = [{**row, "id": f"r{i}"} for i, row in zip(rows, asked, strict=True)]
        said = json.loads(ask(self.system, "/v1/models/cards/predict", {"records": records}).body)["predictions"]
        self.score |= {one["id"]: one["score"] for one in said}
        self.explored |= {one["id"] for one in said if one.get("explore") is not None}
        honoured = [one["id"] for one in said if one.get("explore", one["label"]) == 0]
        labels = [{"id": name, "label": self.truth[name]} for name in honoured]
        assert ask(self.system, "/v1/feedback", {"labels": labels}).status == 200

    def auc(self, ids: Iterator[str] | list[str]) -> float:
        some = list(ids)
        score = np.array([self.score[name] for name in some])
        return metrics.roc_auc(
            np.array([float(self.truth[name]) for name in some]), np.column_stack([1 - score, score])
        )


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Bank:
    made = Bank(projects.make(tmp_path_factory.mktemp("slice") / "cards", policy=projects.POLICY + DECLARED))
    made.live()
    return made


def test_the_biased_estimate_errs_and_that_of_the_slice_does_not(bank: Bank) -> None:
    system, truth = bank.system, bank.auc(list(bank.score))
    labelled = set(system.labels.read(0, 2**62)["id"])
    biased = bank.auc([name for name in bank.score if name in labelled])
    found = system.analyses.report(30 * DAY_MS).now
    assert found.n == len(bank.explored)
    assert 0.17 < found.n / len(bank.score) < 0.23
    assert found.low < truth < found.high
    assert not found.low < biased < found.high
    assert truth - biased > 0.06 > 4 * abs(truth - found.value)
    performance = system.performances.now()
    assert performance is not None
    assert (performance.change.n, performance.silent) == (found.n, 0)


def test_only_the_slice_decides_between_two_versions(bank: Bank) -> None:
    champion = bank.system.champions.now()
    assert champion is not None
    version = Version("cards", champion.arm.version, champion.arm.bundle, champion.bundle.run)
    ends = bank.first_ms - 1, bank.first_ms + DAYS * DAY_MS
    told = bank.system.backtests.between(version, version, *ends, lambda *_: None)
    assert told.result.recorded.answers == len(bank.score)
    assert told.result.labels == len(bank.explored)


def test_the_mark_is_random_stable_and_told(bank: Bank) -> None:
    slice_ = bank.system.policy.feedback.exploration
    assert slice_ is not None
    assert set(chosen(slice_, "cards", list(bank.score))) == bank.explored
    inside = np.array([bank.score[name] for name in bank.explored])
    outside = np.array([score for name, score in bank.score.items() if name not in bank.explored])
    assert abs(inside.mean() - outside.mean()) < 4 * inside.std() / len(inside) ** 0.5
    one = sorted(bank.explored)[0]
    row = {**bank.rows.select(NAMES).row(0, named=True), "id": one}
    alone = ask(bank.system, "/v1/models/cards/predict", {"records": [row]})
    said = msgspec.json.decode(alone.body, type=_Answer)
    assert _prediction(said, said.predictions[0]).explore == 0
    assert {("x-explore", one), ("x-explore-as", "0")} <= set(alone.headers)
    other = {**row, "id": next(name for name in bank.score if name not in bank.explored)}
    assert b"explore" not in ask(bank.system, "/v1/models/cards/predict", {"records": [other]}).body
    table = {"dataframe_records": [{**row, "id": one}]}
    assert ("x-explore", one) in ask(bank.system, "/v1/models/cards/invocations", table).headers
    assert json.loads(ask(bank.system, "/v1/models/cards/record", row).body)["explore"] == 0
    forged = {"signals": [{"id": "r1", "name": "explore"}]}
    assert ask(bank.system, "/v1/feedback", forged).status == 422
    marks = bank.system.stores.labels.signals(0, 2**62)
    assert set(marks.filter(pl.col("name") == "explore")["value"]) == {0.2}


def test_without_a_slice_a_person_decides(tmp_path: Path) -> None:
    blind = projects.POLICY.replace(", {schedule: 10d}", "") + "feedback: {selective: true}\n"
    root = projects.make(tmp_path / "cards", policy=blind)
    blinded = Bank(root)
    system = blinded.system
    projects.edited(root, "lib.py", "return 7", "return 6")
    candidate = system.runs.run().version
    assert candidate is not None
    system.releases.start(candidate, by="ann")
    for part in range(36):
        blinded.clock.move_to(blinded.first_ms + part * DAY_MS // 4)
        blinded.serve(range(60 * part, 60 * part + 60))
        system.engine.shadow()
        system.control.turn()
        system.engine.refresh()
    assert not system.labels.read(0, 2**62).is_empty()
    assert system.judged.read(0, 2**62).is_empty()
    standing = system.releases.status()
    assert standing is not None
    assert (standing.rollout.status.value, standing.rollout.step.weight) == ("waiting", 1_000)  # for a person
    with pytest.raises(ConfigError, match="so a person decides"):
        read_policy(
            projects.make(
                tmp_path / "b", policy=blind.replace("max_hold: 3d", "max_hold: 3d, on_unknown: best_estimate")
            )
        )
    with pytest.raises(ConfigError, match="add selective: true"):
        read_policy(
            projects.make(
                tmp_path / "c", policy=projects.POLICY + DECLARED.replace("selective: true", "selective: false")
            )
        )
    history = system.source()
    _, inside = rehearsal(root, system.policy, history, projects.START_MS, projects.START_MS + DAY_MS)
    assert not inside.policy.feedback.selective  # every label of history is told
