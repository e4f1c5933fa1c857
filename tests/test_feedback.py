"""What callers tell, from files: all or nothing, told again, corrected, contradicted, of nobody."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

import homeostat
import projects
from homeostat import cli
from homeostat.domain.errors import DataError, NotFound
from homeostat.domain.units import DAY_MS, HOUR_MS
from homeostat.project import Project

SOURCES = "feedback: {sources: {clerk: 1, crowd: 60%}, signals: {rating: [1, 5]}}\n"
ROWS = {"amount": [90.0, 4.0, 5.0], "hour": [3, 4, 4], "country": ["de", None, "de"], "online": [True, False, True]}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Its first version answers; the predictions are a, b and c."""
    root = projects.make(tmp_path_factory.mktemp("told") / "cards")
    policy = root / "homeostat.yaml"
    policy.write_text(policy.read_text() + SOURCES)
    made = homeostat.load(root)
    made.run()
    made.system.plane = made.system.engine
    made.system.control.begin()
    made.system.control.settle()
    made.predict(pl.DataFrame({"id": ["a", "b", "c"], "key": ["k1", "k2", "k3"], **ROWS}))
    return made


def labels(project: Project) -> dict[str, str]:
    """What the loop believes."""
    return dict(project.system.labels.read(0, 2**62).select("id", "label").rows())


def written(path: Path, text: str, hours_ago: int) -> Path:
    path.write_text(text)
    now = int(time.time()) // 3_600 * 3_600
    os.utime(path, (now - hours_ago * 3_600,) * 2)
    return path


def test_a_life_of_labels(project: Project, tmp_path: Path) -> None:
    feedback, told = project.feedback, tmp_path / "told.csv"
    wide = "id,label,source,rating,thumbs\na,0,clerk,4.5,up\nb,1,crowd,,down\nc,,,1,\n"
    for _ in range(2):  # the same file again changes nothing
        taken = feedback.add(written(told, wide, 9))
        assert (taken.rows, taken.labels, taken.signals) == (3, 2, 4)
    signals = project.system.stores.labels.signals(0, 2**62)
    assert sorted(signals.select("id", "name", "value").rows())[:2] == [("a", "rating", 4.5), ("a", "thumbs", 1.0)]
    assert signals.height == 4
    assert labels(project) == {"a": "0", "b": "1"}
    feedback.add(written(told, "id,label,source\na,1,clerk\n", 8))  # corrected
    feedback.add(written(told, "id,label,source\na,0,crowd\n", 7))  # contradicted by somebody less trusted
    feedback.add(written(told, "id,label,source\na,0,clerk\n", 12))  # an old file, found late
    feedback.add(written(told, "id,label,source\nzz,1,crowd\n", 6))  # of an unknown id
    assert labels(project) == {"a": "1", "b": "1", "zz": "1"}
    said = feedback.status(DAY_MS)
    clerk, crowd = said.sources
    assert (clerk.source, clerk.trust, clerk.labels, clerk.ids, clerk.unknown) == ("clerk", 1.0, 3, 1, 0)
    assert (clerk.corrected, clerk.repeated) == (1, 1)
    assert (crowd.ids, crowd.shared, crowd.agreed, crowd.overruled, crowd.unknown) == (3, 1, 0, 1, 1)
    assert [(one.name, one.signals) for one in said.events] == [("rating", 2), ("thumbs", 2)]
    assert feedback.status(HOUR_MS).sources[0].labels == 0
    out = CliRunner().invoke(cli.app, ["feedback", "status", "--last", "1d", "-p", str(project.root)]).output
    assert "agrees with other sources on 0% of 1; overruled in 1" in out
    raw = CliRunner().invoke(cli.app, ["feedback", "status", "--json", "-p", str(project.root)]).output
    assert [one["name"] for one in json.loads(raw)["events"]] == ["rating", "thumbs"]
    _decide(project)


def _decide(project: Project) -> None:
    """What is rejected counts no more, until it is accepted."""

    def asked(*words: str) -> tuple[int, str]:
        done = CliRunner().invoke(cli.app, ["feedback", *words, "-p", str(project.root)])
        project.system.feedback.turn()
        return done.exit_code, done.output

    code, said = asked("reject", "clerk", "--from", "2026-01-01", "--reason", "a wrong form")
    assert (code, "Labels of clerk from 2026-01-01T00:00:00Z on: rejected by" in said) == (0, True)
    assert labels(project) == {"a": "0", "b": "1", "zz": "1"}
    assert "Rejected: clerk from 2026-01-01T00:00:00Z on: a wrong form" in asked("status")[1]
    assert asked("accept", "clerk", "--json")[0] == 0
    assert labels(project) == {"a": "1", "b": "1", "zz": "1"}
    assert isinstance(
        CliRunner().invoke(cli.app, ["feedback", "accept", "x", "-p", str(project.root)]).exception, NotFound
    )


@pytest.mark.parametrize(
    ("name", "text", "wrong"),
    [
        ("l.csv", "id,label,source\na,1,clerk\nb,7,clerk\n", "must be one of 0, 1|l.csv, row 2 (the first is 1)"),
        ("l.csv", "id,label,source\na,1,boss\n", "'boss' is no source of labels; feedback.sources has: clerk, crowd"),
        ("l.csv", "id,label\na,1\n", "a label must name its source"),
        ("l.csv", "id,label,rating,source\na,1,5,clerk\nb,,6,clerk\n", "rating must be from 1 to 5|row 2"),
        ("l.csv", "id,label,source\na,1,clerk\n,1,clerk\n", "missing required field `id`|row 2"),
        ("l.csv", "key,bought\nk1,1\n", "needs its time"),
        ("l.csv", "label\n1\n", "the column 'id' is missing"),
        ("l.jsonl", '{"id": "a", "name": "rating", "value": 3}\n{"id": "b", "name": "rating", "value": "x"}', "row 2"),
        ("l.jsonl", '{"id": "a", "name": "rating", "value": "x"}', "a value is a number, true or false, up or down"),
        ("l.csv", "id,label,source,at\na,1,clerk,4102444800000\n", "at lies in the future|row 1"),
        ("l.csv", "id,rating,at\na,3,soon\n", "a time is a date-time|row 1"),
        ("l.csv", "id,label\na,\n", "holds no label and no signal"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_written(
    project: Project, tmp_path: Path, name: str, text: str, wrong: str
) -> None:
    before = (
        project.system.stores.labels.received(0, 2**62).height,
        project.system.stores.labels.events(0, 2**62).height,
    )
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(DataError) as error:
        project.feedback.add(path)
    assert all(part in str(error.value) for part in wrong.split("|")), str(error.value)
    after = project.system.stores.labels.received(0, 2**62).height, project.system.stores.labels.events(0, 2**62).height
    assert before == after
