"""The terminal: plain where nobody looks on, the same words as the reports."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from homeostat import terminal
from homeostat.domain.bundle import Version
from homeostat.domain.errors import ConfigError, Refused
from homeostat.domain.event import Event
from homeostat.domain.experiment import Compared, Conclusion, Effect, Experiment, Guard, Plan, Result
from homeostat.domain.gate import GateResult, Measurement, Verdict
from homeostat.domain.policy import ExperimentPolicy, SignalPolicy
from homeostat.domain.rollout import Lane, ReleaseStep, Rollout, Status, StepKind
from homeostat.domain.units import HOUR_MS
from homeostat.engines.report import ReleaseView, Snapshot
from homeostat.services.experiments import Found
from homeostat.terminal import releases


def shown(thing: object, *, tty: bool = False) -> str:
    colours = "truecolor" if tty else "auto"
    console = Console(file=io.StringIO(), width=120, theme=terminal.theme(), force_terminal=tty, color_system=colours)
    console.print(thing)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_verdict_has_a_mark_a_word_and_a_colour_where_there_are_any(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert [shown(terminal.verdict(v)).strip() for v in Verdict] == ["● ok", "▲ harm", "○ unknown", "✕ invalid"]
    dark = shown(terminal.verdict(Verdict.OK), tty=True)
    monkeypatch.setenv("COLORFGBG", "0;15")
    light = shown(terminal.verdict(Verdict.OK), tty=True)
    assert "38;2;47;191;151" in dark
    assert "38;2;0;121;90" in light
    monkeypatch.setenv("NO_COLOR", "1")
    assert "38;2" not in shown(terminal.verdict(Verdict.OK), tty=True)


def test_tables_show_values_with_intervals_and_text_as_it_is() -> None:
    auc = Measurement("roc_auc", 0.842, 0.836, 0.848, 1_185)
    assert shown(terminal.measurements([auc])).split("\n")[1].split() == [
        "ROC",
        "AUC",
        ".842",
        ".836",
        "to",
        ".848",
        "1,185",
    ]
    assert "[red]mine[/red]" in shown(terminal.gates([GateResult("recall", Verdict.HARM, "[red]mine[/red]", auc)]))
    lane = Lane("errors", Verdict.UNKNOWN, "too few", 12, 2.1, 100.0, 1.1, 0.7, 1.9)
    assert "1.10 [.700, 1.90]" in shown(terminal.lanes([lane]))


def test_progress_is_silent_in_a_pipe() -> None:
    console = Console(file=io.StringIO())
    with terminal.progress(console) as show:
        show(1, 2, "training")
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().strip() == ""


def test_an_error_says_what_where_and_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(file=io.StringIO(), width=20, theme=terminal.theme())
    monkeypatch.setattr(terminal, "err", console)
    error = ConfigError("unknown key 'widnow'", where="homeostat.yaml, line 12", way_out="Did you mean 'window'?")
    assert terminal.fail(error) == 2
    assert terminal.fail(Refused("a release is under way")) == 1
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().splitlines() == [
        "✕ unknown key 'widnow'",
        "  homeostat.yaml, line 12",
        "  Did you mean 'window'?",
        "✕ a release is under way",
    ]


def test_json_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.emit(GateResult("recall", Verdict.OK, "fine"))
    printed = capsys.readouterr().out
    assert printed.count("\n") == 1
    assert json.loads(printed) == {"measurement": None, "name": "recall", "reason": "fine", "verdict": "ok"}


def test_an_experiment_is_told_in_sentences(capsys: pytest.CaptureFixture[str]) -> None:
    metric = SignalPolicy("amount", bounds=(0, 100))
    sides = Version("m", 1, "b1", "r1"), (Version("m", 4, "b4", "r4"),)
    running = Experiment("E1", "checkout", "m", ExperimentPolicy(metric), *sides, 5_000, "s", 0)
    guard = Guard("errors", Verdict.UNKNOWN, "3 bad answers of the variant")
    compared = Compared(4, Effect(9, 1, 1, 0, -1, 1), Conclusion.UNKNOWN, "Version 4: not yet known.", (guard,))
    releases.experiment(Found(running, Result(metric, 1_200, 7, (compared,), cut=3)))
    assert [line.strip() for line in capsys.readouterr().out.splitlines()] == [
        "Experiment E1, checkout: under way.",
        "1,200 entities counted, 7 more are in their window.",
        "Version 4: not yet known.",
        "○ unknown version 4, errors: 3 bad answers of the variant",
        "3 signals were cut to the bounds.",
    ]
    ended = replace(running, ended_ms=5, outcome="ann ended it. Version 4: not yet known.")
    releases.experiment(Found(ended, Result(metric, 1_200, 0, (), invalid="uneven")))
    assert capsys.readouterr().out.count("not yet known") == 1
    releases.planned(Plan("checkout", 1, 5.0, 3.0, 0.5, 12_345))
    releases.planned(Plan("checkout", 1, 5.0, 3.0, 0.5, 12_345, 1_000.0, 13.3))
    told = capsys.readouterr().out
    assert "after 12,345 entities in all arms" in told
    assert "The log goes back less than a day" in told
    assert "At 1,000 entities a day that takes 13.3 days." in told


def test_a_release_is_explained_from_the_sentence_to_the_report(monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(file=io.StringIO(), width=160, theme=terminal.theme())
    for place in (terminal, releases):
        monkeypatch.setattr(place, "out", console)
    looks = [
        Snapshot(k * HOUR_MS, 1_000, 9, (Lane("quality", verdict, f"look {k}", k, e, 50.0, 0.001, -0.1, 0.1),))
        for k, (verdict, e) in enumerate([(Verdict.UNKNOWN, 0.01), (Verdict.UNKNOWN, 1.0), (Verdict.HARM, 60.0)])
    ]
    record = Rollout("R4", "price", None, Version("price", 4, "b", "r"), (ReleaseStep(StepKind.CANARY, 1_000),), 0,
                     Status.ROLLED_BACK, 0, 0, "s", 0, "quality: look 2", 3 * HOUR_MS)  # fmt: skip
    history = [Event(0, "price", "release.rolled_back", "k", "R4", "[red]quality[/red]")]
    releases.explained(ReleaseView(record, looks, history), "r.html")
    assert isinstance(console.file, io.StringIO)
    said = console.file.getvalue().replace("\N{NO-BREAK SPACE}", " ")
    assert said.startswith("Release R4. Version 4 was rolled back after 3 h: quality: look 2.")
    assert "▁▅█" in said
    assert "○ unknown 1 Jan 1970 00:00" in said
    assert "▲ harm 1 Jan 1970 02:00" in said
    assert "Nothing: harm stands." in said
    assert "rolled back   [red]quality[/red]" in said
    assert said.endswith("Report: r.html\n")
