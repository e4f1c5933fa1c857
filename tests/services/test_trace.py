"""From a prediction to everything."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import msgspec
import pytest

import projects
from homeostat.domain.errors import NotFound
from homeostat.domain.units import DAY_MS
from homeostat.serving.messages import Request, plain
from homeostat.wiring.system import System

ROW = {"amount": 12.5, "hour": 3, "country": "de", "online": True}


@pytest.fixture
def one(tmp_path: Path) -> System:
    root = projects.make(tmp_path / "cards")
    git = ["git", "-C", str(root), "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "first"]):
        subprocess.run([*git, *command], check=True)
    projects.edited(root, "lib.py", "return 7", "return 9")
    made = projects.system(root)
    made.control.begin()
    made.control.settle()
    made.engine.refresh()
    return made


def ask(one: System, headers: Mapping[str, str] = MappingProxyType({}), **record: object) -> int:
    body = msgspec.json.encode({"records": [{**ROW, **record}]})
    status = one.engine.answer([Request("POST", "/v1/models/cards/predict", body, headers, plain("POST", headers))])[
        0
    ].status
    one.engine.shadow()
    return status


def test_everything_behind_an_answer(one: System) -> None:
    assert ask(one, id="p1", key="card-7") == 200
    found = one.traces.trace("p1")
    assert (found.release, found.key, found.arm, found.inputs) == ("R1", "card-7", "champion", ROW)
    assert [(score.version, score.role, score.status) for score in found.scores] == [(1, "answer", "ok")]
    assert found.label is None
    assert found.rollout is not None
    assert found.run is not None
    assert len(found.run.code.commit) == 40
    assert "+    return 9" in found.run.code.diff
    assert found.run.params["num_leaves"] == "9"
    assert found.run.dataset.rows == 30 * 72
    assert [gate.name for gate in found.run.gates] == ["roc_auc versus champion"]
    assert "lightgbm==" in found.environment
    label = msgspec.json.encode({"labels": [{"id": "p1", "label": 1}]})
    assert one.engine.answer([Request("POST", "/v1/feedback", label)])[0].status == 200
    assert one.traces.trace("p1").label is not None


def test_the_version_beside_it_and_the_refused(one: System) -> None:
    projects.edited(Path(one.code.module("lib").__file__ or "").parent, "lib.py", "return 9", "return 5")
    result = one.runs.run()
    assert result.version is not None
    one.releases.start(result.version)
    one.control.settle()
    one.engine.refresh()
    assert ask(one, id="p2") == 200
    found = one.traces.trace("p2")
    assert [(score.version, score.role) for score in found.scores] == [(1, "answer"), (2, "shadow")]
    assert (found.release, found.run and found.run.params["num_leaves"]) == ("R2", "9")
    assert ask(one, id="p3", amount=-1.0) == 422
    refused = one.traces.trace("p3")
    assert (refused.run, refused.bundle, refused.scores[0].role) == (None, "", "rejected")
    one.clock.move_to(one.clock.now_ms() + DAY_MS)
    one.releases.order("R2", "rollback", "no", "me")
    one.control.settle()
    assert one.traces.trace("p2").rollout == one.releases.history()[1]


def test_a_trace_leads_to_its_predictions(one: System) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    within = {"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
    assert [ask(one, within, id="p5"), ask(one, within, id="p6", amount=-1.0), ask(one, id="p7")] == [200, 422, 200]
    assert ask(one, {"traceparent": within["traceparent"].upper()}, id="p8") == 200  # not trace context
    found = one.traces.trace(trace)
    assert (found.id, found.inputs, found.others) == ("p5", ROW, ("p6",))


def test_an_id_that_was_refused_and_then_answered_is_answered(one: System) -> None:
    assert ask(one, id="p4", amount=-1.0) == 422
    assert ask(one, id="p4") == 200
    found = one.traces.trace("p4")
    assert (found.inputs, found.run is None) == (ROW, False)
    assert {score.role for score in found.scores} == {"answer", "rejected"}


def test_what_a_version_answered_before_it_was_taken_back(one: System) -> None:
    projects.edited(Path(one.code.module("lib").__file__ or "").parent, "lib.py", "return 9", "return 5")
    result = one.runs.run()
    assert result.version is not None
    one.releases.start(result.version)
    one.control.settle()
    record = one.releases.history()[-1]
    one.stores.rollouts.save(replace(record, index=3, step_ms=one.clock.now_ms()))  # a canary at 50 %
    one.control.settle()
    one.engine.refresh()
    names = [f"k{number}" for number in range(40)]
    assert {ask(one, id=name, key=name) for name in names} == {200}
    one.releases.order("R2", "rollback", "no", "me")
    one.control.settle()
    one.engine.refresh()
    found = [one.traces.trace(name) for name in names]
    candidate = [each for each in found if each.arm == "candidate"]
    assert 0 < len(candidate) < 40
    for each in found:
        assert each.run is not None
        assert each.run.params["num_leaves"] == ("5" if each in candidate else "9")
        assert each.rollout is not None
        assert (each.release, each.rollout.status.value) == ("R2", "rolled back")
    assert ask(one, id="after") == 200
    assert (one.traces.trace("after").release, one.traces.trace("after").scores[0].version) == ("R1", 1)


def test_an_unknown_id(one: System) -> None:
    with pytest.raises(NotFound, match="no prediction 'nobody'"):
        one.traces.trace("nobody")
