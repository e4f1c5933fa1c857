"""`homeostat monitor` on a project that serves in memory: answers, labels, reports, a set to label."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

import homeostat
import projects
from homeostat import cli, codec
from homeostat.commands import monitor
from homeostat.domain.errors import NotFound, PipelineError, UsageError
from homeostat.domain.event import Event
from homeostat.domain.gate import Verdict
from homeostat.domain.monitor import Reading
from homeostat.domain.units import DAY_MS
from homeostat.engines.report import words
from homeostat.engines.report.monitor import (
    delay_sentence,
    explain_report,
    explain_sentence,
    monitor_report,
    monitor_sentence,
    segment_lines,
)
from homeostat.project import Project
from homeostat.services.analysis import Analyses
from homeostat.services.label_set import LabelSets
from homeostat.services.moves import Moves
from homeostat.stores.memory import MemoryJournal
from homeostat.stores.memory_log import MemoryLabels

RUNNER = CliRunner()
DRIFTED = Reading("amount", "level", Verdict.HARM, 0.5, 1e-9, "amount moved")
ROWS = 600


def serving(root: Path) -> Project:
    """In memory, on a clock that stands still."""
    project = homeostat.load(projects.make(root))
    system = projects.system(project.root)
    system.runs.run()
    system.control.begin()
    system.control.settle()
    vars(project)["system"] = system
    return project


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """600 answers, labels for 400 of them; those of large amounts are wrong."""
    project = serving(tmp_path_factory.mktemp("monitored") / "cards")
    rows = projects.rows(30, seed=9).head(ROWS)
    inputs = rows.select("amount", "hour", "country", "online").with_columns(
        id=pl.format("p{}", pl.int_range(pl.len())), key=pl.lit(None, pl.String)
    )
    project.predict(inputs)
    label = pl.when(rows["amount"] > 60).then(1 - rows["fraud"]).otherwise(rows["fraud"])
    project.feedback(inputs.select("id", label=label).head(400))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(monitor, "opened", lambda _: project)
        yield project


def asked(project: Project, *arguments: str) -> tuple[int, str]:
    said = RUNNER.invoke(cli.app, ["monitor", *arguments, "-p", str(project.root)])
    return said.exit_code, said.output


def told(project: Project, *arguments: str) -> Any:
    code, output = asked(project, *arguments, "--json")
    assert code == 0, output
    return json.loads(output)


def test_the_report_names_where_it_fails(served: Project) -> None:
    found = told(served, "report")
    report = found["report"]
    (worst, *_) = report["failures"]["modes"]
    assert "amount" in worst["fields"]
    assert worst["help"] == "newer labels of rows like these"
    assert (report["now"]["n"], report["delays"]["labels"], report["delays"]["answers"]) == (400, 400, ROWS)
    assert report["needs"]["importance"]["amount"] > 0.01
    assert report["calibration"]["metric"] == "ece"
    assert sum(one["answers"] for one in report["windows"]) == ROWS
    page = Path(found["page"]).read_text()
    assert "Where it fails" in page
    assert "concept drift" in report["note"]
    code, output = asked(served, "report")
    assert code == 0
    assert f"Calibration: calibration error {words.number(report['calibration']['value'])} [" in output
    assert f"homeostat trace {worst['examples'][0]}" in output
    assert served.trace(worst["examples"][0]).label is not None


def test_a_window_is_explained(served: Project) -> None:
    now = served.system.clock.now_ms()
    at = pl.select(pl.from_epoch(pl.lit(now - DAY_MS), "ms").dt.to_string("%Y-%m-%dT%H:%M:%S")).item()
    until = pl.select(pl.from_epoch(pl.lit(now + DAY_MS), "ms").dt.to_string("%Y-%m-%dT%H:%M:%S")).item()
    found = told(served, "explain", f"{at}..{until}")["window"]
    assert found["rows"] == 400
    (first, *_) = found["causes"]
    assert (first["kind"], "amount" in first["subject"]) == ("within", True)
    assert first["example"].startswith("p")
    assert sum(part["mix"] + part["within"] for part in found["parts"]) == pytest.approx(found["now"] - found["before"])
    assert [one["subject"] for one in found["causes"] if one["kind"] == "change"]
    assert "worse" in asked(served, "explain", f"{at}..{until}")[1]
    with pytest.raises(NotFound, match="nothing was answered in that window\n1 Jan 1970 00:00 to"):
        served.monitor.explain(0)
    assert asked(served, "explain", "2001-01-02..2001-01-01")[0] == 2


def test_a_window_without_labels_tells_what_drifted(served: Project) -> None:
    """Alerts about drift send people here, before labels come."""
    analyses = served.system.analyses
    now = served.system.clock.now_ms()
    body = {"start_ms": now - 1_000, "end_ms": now + 1_000, "readings": [asdict(DRIFTED)]}
    journal = MemoryJournal()
    journal.append(Event(now, "cards", "monitor.drift", "k", "", "", body))
    moves = Moves(**{**vars(analyses.moves), "journal": journal, "labels": MemoryLabels()})
    found = Analyses(**{**vars(analyses), "moves": moves}).explain(now - 1_000, now + 1_000)
    assert (found.rows, found.parts) == (0, ())
    assert [(one.kind, one.subject) for one in found.causes] == [("drift", "amount")]
    assert explain_sentence(found).startswith("Too few rows to say what moved: 0\N{NO-BREAK SPACE}labels")
    assert json.loads(codec.encode(found))["now"] is None  # 0 would read as a perfect model
    assert "amount moved" in explain_report(found)


def test_of_a_stretch_that_is_too_large_a_sample_is_looked_at(served: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    analyses, now = served.system.analyses, served.system.clock.now_ms()
    body = {"start_ms": now - 1_000, "end_ms": now, "rows": ROWS, "readings": []}
    journal = MemoryJournal()
    journal.append(Event(now, "cards", "monitor.drift", "k", str(min(served.policy.monitor.windows)), "", body))
    moves = Moves(**{**vars(analyses.moves), "journal": journal})
    part = Analyses(**{**vars(analyses), "moves": moves})
    assert codec.encode(part.report(30 * DAY_MS)) == codec.encode(analyses.report(30 * DAY_MS))
    monkeypatch.setattr("homeostat.services.moves.MOST", ROWS // 2)
    found = part.report(30 * DAY_MS)
    assert 150 < found.now.n < 250  # of 400
    assert found.now.n == found.delays.labels == found.failures.rows
    assert 250 < found.delays.answers < 350
    assert monitor_sentence(found).startswith("Of a sample by id, 50\N{NO-BREAK SPACE}% of all: Version 1 has")
    assert delay_sentence(found.delays).startswith("Of a sample by id")
    moved = part.explain(now - 1_000, now + 1_000)
    assert (moved.rows, moved.share) == (found.now.n, 0.5)
    assert explain_sentence(moved).startswith("Of a sample by id")
    assert len(LabelSets(part).choose(30 * DAY_MS, 50)) == 50


def test_windows_begin_with_the_first_answer(served: Project) -> None:
    """A year of windows that hold nothing would make the others long."""
    (one,) = served.system.analyses.report(365 * DAY_MS).windows
    assert one.end_ms - one.start_ms == min(served.policy.monitor.windows)


def test_windows_of_rows_are_told_to_machines(served: Project) -> None:
    policy = replace(served.policy, monitor=replace(served.policy.monitor, rows=(2_000,)))
    found = Analyses(**{**vars(served.system.analyses), "policy": policy}).report(30 * DAY_MS)
    assert json.loads(codec.encode(found))["counted"] == {"2000": []}


def test_a_set_to_label_comes_back_as_labels(served: Project, tmp_path: Path) -> None:
    out = tmp_path / "wanted.csv"
    said = told(served, "label-set", str(out), "--rows", "50")
    assert said["rows"] == 50
    assert set(said["reasons"]) == {"uncertain", "new"}
    rows = pl.read_csv(out)
    assert rows["id"].str.slice(1).cast(pl.Int64).min() >= 400  # those without a label
    assert {"id", "label", "#reason", "#because", "#answer", "#score", "#input amount"} <= set(rows.columns)
    with pytest.raises(UsageError, match="is there already"):
        served.monitor.label_set(out)
    rows.with_columns(label=pl.when(pl.int_range(pl.len()) < 40).then(1)).write_csv(out)
    now_s = served.system.clock.now_ms() / 1_000
    os.utime(out, (now_s, now_s))
    taken = served.feedback.add(out)
    assert (taken.rows, taken.labels, taken.signals) == (50, 40, 0)
    assert told(served, "report")["report"]["now"]["n"] == 440


def test_a_set_asks_for_the_source_where_labels_must_name_it(served: Project) -> None:
    sets = served.system.label_sets
    named = replace(served.policy, feedback=replace(served.policy.feedback, sources={"clerk": 1.0}))
    asked = LabelSets(Analyses(**{**vars(sets.analyses), "policy": named})).choose(30 * DAY_MS, 5)
    assert asked.columns[:3] == ["id", "label", "source"]
    assert asked["source"].null_count() == 5


def test_each_declared_segment_has_its_metric_in_the_report(served: Project) -> None:
    """Also where the model is no worse than elsewhere."""
    policy = replace(served.policy, monitor=replace(served.policy.monitor, segments=("country", "online")))
    found = Analyses(**{**vars(served.system.analyses), "policy": policy}).report(30 * DAY_MS)
    assert {"online is false", "online is true"} < set(found.segments)
    assert found.segments["online is false"].n + found.segments["online is true"].n == found.now.n
    lines = segment_lines(found)
    assert len(lines) == len(found.segments)
    assert f"  {min(found.segments, key=lambda name: found.segments[name].value)}: ROC AUC ." in lines[0]
    assert "Every declared segment" in monitor_report(found)


def test_what_an_answer_is_worth_ranks_the_failures(served: Project) -> None:
    policy = replace(
        served.policy, monitor=replace(served.policy.monitor, value={"true_positive": 10, "false_negative": -50})
    )
    analyses = served.system.analyses
    by_name = Analyses(**{**vars(analyses), "policy": policy})
    found = by_name.report(30 * DAY_MS)
    assert found.value is not None
    assert found.value.low < found.value.value < found.value.high
    assert found.failures.unit == "value"
    (served.root / "worth.py").write_text(
        "def of(y, scores, rows):\n    return (scores[:, 1] - y) * rows['amount'].to_numpy()\n"
    )
    by_function = replace(policy, monitor=replace(policy.monitor, value="worth:of"))
    assert Analyses(**{**vars(analyses), "policy": by_function}).report(30 * DAY_MS).value is not None
    absent = replace(policy, monitor=replace(policy.monitor, value="worth:nothing"))
    with pytest.raises(PipelineError, match="there is no 'nothing'"):
        Analyses(**{**vars(analyses), "policy": absent}).report(30 * DAY_MS)
    for body, said in (
        ("raise ValueError('no price')", r"worth:of failed on 440 answers: ValueError: no price\nworth.py:2"),
        ("return 0 * y / 0", r"worth:of made nan of an answer with amount "),
        ("return scores", r"made \(440, 2\) values of 440 answers"),
    ):
        (served.root / "worth.py").write_text(f"def of(y, scores, rows):\n    {body}\n")
        with pytest.raises(PipelineError, match=said), np.errstate(invalid="ignore"):
            Analyses(**{**vars(analyses), "policy": by_function}).report(30 * DAY_MS)
    with pytest.raises(ValueError, match=r"monitor\.value knows no 'profit'"):
        replace(policy, monitor=replace(policy.monitor, value={"profit": 1.0}))
