"""The pages: what they say, that they are sound HTML, that data can't become markup, that nothing is fetched."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser

import pytest
import report_samples as samples

from homeostat import terminal
from homeostat.domain.event import Event
from homeostat.domain.failures import Failures
from homeostat.domain.gate import GateResult, Verdict
from homeostat.domain.moved import Ranked
from homeostat.domain.rollout import Status
from homeostat.domain.units import HOUR_MS
from homeostat.engines.report import (
    backtest_report,
    backtest_sentence,
    rehearsal_report,
    rehearsal_sentence,
    release_markdown,
    release_report,
    release_sentence,
    run_report,
    run_sentence,
)
from homeostat.engines.report.monitor import explain_report, explain_sentence, monitor_report, monitor_sentence
from homeostat.engines.report.outlook import brief
from homeostat.project import Comparison

VOID = {"meta", "br", "hr"}


class Outline(HTMLParser):
    """The open tags, the tags seen, and every attribute's value; an end tag must close the last one opened."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


PAGES = {
    "rehearsal": lambda: rehearsal_report(samples.rehearsal()),
    "run": lambda: run_report(*samples.run()),
    "release": lambda: release_report(samples.canary()),
    "backtest": lambda: backtest_report(samples.backtest()),
    "release after its backtest": lambda: release_report(samples.tried(passed=True)),
    "release ended by its backtest": lambda: release_report(samples.tried(passed=False)),
    "monitor": lambda: monitor_report(samples.failing()),
    "window": lambda: explain_report(samples.moved()),
    "release under way": lambda: release_report(samples.held()),
}


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_whole_and_fetches_nothing(name: str) -> None:
    page = PAGES[name]()
    outline = Outline(page)
    assert not outline.open
    assert not outline.tags & {"script", "link", "img", "iframe", "object"}
    assert not {key for key, _ in outline.attributes} & {"src", "href", "onclick", "onload"}
    assert "url(" not in page
    assert "@import" not in page
    assert "nan" not in [value for _, value in outline.attributes]
    assert page == PAGES[name]()


def test_the_headline_of_a_rehearsal() -> None:
    view = samples.rehearsal()
    said = rehearsal_sentence(view).replace("\N{NO-BREAK SPACE}", " ")
    assert said == (
        "The loop kept ROC AUC at .842; a model left alone would have fallen to .748. "
        "31 trainings, 2 rollbacks, nothing asked of you."
    )
    assert "won 89.5 % of that gain" in rehearsal_report(view).replace("\N{NO-BREAK SPACE}", " ")


def test_a_loop_that_did_not_help_says_so() -> None:
    view = samples.rehearsal()
    worse = replace(view, loop=view.frozen, frozen=view.loop, settled=3, failed_requests=1)
    said = rehearsal_sentence(worse).replace("\N{NO-BREAK SPACE}", " ")
    assert said.startswith("The loop had ROC AUC .748; a model left alone would have had .842.")
    assert said.endswith("3 decisions left to the best estimate, 1 failed request.")


@pytest.mark.parametrize("higher", [True, False])
def test_a_rehearsal_without_events_or_points_is_still_a_page(higher: bool) -> None:
    view = samples.rehearsal()
    bare = replace(view, higher_is_better=higher, events=(), releases=(), loop=replace(view.loop, periods=()))
    bare = replace(bare, frozen=replace(view.frozen, periods=()), weekly=replace(view.weekly, periods=()))
    assert "No release." in rehearsal_report(bare)


def _renamed(found: Failures, name: str) -> Failures:
    return replace(found, modes=tuple(replace(mode, segment=name, examples=(name,)) for mode in found.modes))


def test_the_headline_of_a_monitor_report() -> None:
    found = samples.failing()
    said = monitor_sentence(found).replace("\N{NO-BREAK SPACE}", " ")
    assert said == (
        "Version 4 has ROC AUC .840 [.810, .870], 4,000 rows; .860 when it was made. It fails most where "
        "amount from 500 on and country is pl (10.3 % of the rows); what would help: more rows like these."
    )
    page = monitor_report(found)
    assert "(estimated), 8 Aug 1996" in page
    assert "concept drift" in page
    late = replace(
        found, now=replace(found.now, value=float("nan"), n=0), failures=Failures((), 0, 0, 0.0, fault="none")
    )
    assert "is estimated at .845 [.810, .880], which can't see concept drift" in monitor_sentence(late)
    blank = replace(late, windows=())
    assert monitor_sentence(blank).startswith("ROC AUC is unknown: no label came.")
    assert "half come within 2 d" in page.replace("\N{NO-BREAK SPACE}", " ")


def test_the_headline_of_a_window() -> None:
    said = explain_sentence(samples.moved()).replace("\N{NO-BREAK SPACE}", " ")
    assert said.startswith("The mean loss rose from .0600 on the holdout to .155. Most of it: amount from 500 on")
    moved = samples.moved()
    part = explain_sentence(replace(moved, causes=(replace(moved.causes[0], size=moved.move / 3),)))
    assert "The largest part of it that is sure: amount from 500 on" in part.replace("\N{NO-BREAK SPACE}", " ")
    few = explain_sentence(replace(samples.moved(), parts=(), causes=())).replace("\N{NO-BREAK SPACE}", " ")
    assert "Too few rows to say what moved: 200 labels in the window, 3,000" in few


def test_policies_side_by_side_fit_a_narrow_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terminal.out, "width", 80)
    terminal.compared(Comparison({"calm": samples.rehearsal(), "eager": samples.rehearsal()}, "policies.html"))
    said = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["calm", "eager"] in said
    assert ["trainings", "31", "31"] in said


def test_data_cannot_become_markup() -> None:
    evil = '<script>alert("x")</script>'
    view = samples.rehearsal()
    event = Event(view.from_ms, "price", "alert.opened", "k", evil, evil)
    result, extra = samples.run()
    gates = (*result.gates, GateResult(evil, Verdict.OK, evil, result.measurements[0]))
    canary = samples.canary()
    lanes = tuple(replace(lane, name=evil, reason=evil) for lane in canary.snapshots[-1].lanes)
    seen = [*canary.snapshots, replace(canary.snapshots[-1], lanes=lanes)]
    pages = [
        rehearsal_report(replace(view, model=evil, events=[event])),
        run_report(replace(result, id=evil, gates=gates), extra),
        release_report(replace(canary, snapshots=seen, history=[event])),
        backtest_report(replace(samples.backtest(), sentence=evil)),
        monitor_report(replace(samples.failing(), failures=_renamed(samples.failing().failures, evil))),
        explain_report(replace(samples.moved(), causes=(Ranked("within", evil, 0.1, evil),))),
    ]
    for page in pages:
        assert "script" not in Outline(page).tags
        assert "&lt;script&gt;" in page
    assert "&#39;&lt;b&gt;2&lt;/b&gt;&#39;" in run_report(result, extra)


def test_a_release_tells_of_its_backtest() -> None:
    """Where it ended there, its lanes stand first; where it went on, live evidence does. What it can't know is told."""
    ended, passed = samples.tried(passed=False), samples.tried(passed=True)
    assert [lane.name for lane in ended.latest] == ["quality", "slow"]
    assert passed.latest == samples.held().latest
    for view in (ended, passed):
        page = release_report(view)
        assert "Backtest: before any live request" in page
        assert page.index("Backtest: before any live request") > page.index("what was seen")
        assert "Who is right on 90 requests: their labels are not there." in page
        assert "rolled back at shadow, expected after 3" in page
        assert "It cannot know:" in release_markdown(view)
    assert "rolled back after" in release_sentence(ended)
    assert "quality: harm (E = 212)" in release_sentence(ended)


def test_the_headline_of_a_backtest() -> None:
    made = samples.backtest()
    assert made.sentence.replace("\N{NO-BREAK SPACE}", " ") == (
        "Harm over 990 recorded requests: quality: harm (E = 212). They differ most where country = pl: "
        "by .700 in 410 requests, 3 failures, by .0100 elsewhere."
    )
    none = replace(made.result, recorded=replace(made.result.recorded, answers=0, replayed=0))
    assert "there is none" in backtest_sentence(none, made.latency)


def test_the_headline_of_a_run() -> None:
    result, _ = samples.run()
    assert run_sentence(result) == "Version 7 is registered: recall says unknown and latency says invalid."
    passed = run_sentence(replace(result, gates=result.gates[:2])).replace("\N{NO-BREAK SPACE}", " ")
    assert passed == "Version 7 is registered: all 2 gates ok, ROC AUC .842 [.836, .848], 1,185 rows."
    harmed = replace(result, gates=(GateResult("mae", Verdict.HARM, "Worse."),), version=None)
    assert run_sentence(harmed) == "Nothing was registered: MAE says harm."


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (Status.RUNNING, "Hold at 10 %: quality is not settled. Expected 10 Aug 1996 00:00 (in 3 d): on to 50 % "
                         "with about 390 more labels."),
        (Status.WAITING, "Waiting for a person at 10 %: no harm seen. `homeostat release approve` or `reject` "
                         "decides."),
        (Status.PROMOTED, "Version 4 was promoted after 10 h: no lane said harm, its quality was not settled over "
                          "195 mature labels."),
        (Status.REJECTED, "Version 4 was rejected after 10 h: no harm seen."),
    ],
)  # fmt: skip
def test_the_headline_of_a_release(status: Status, said: str) -> None:
    view = samples.held()
    view = replace(view, rollout=replace(view.rollout, status=status, reason="no harm seen."))
    if status is not Status.RUNNING:
        view = replace(view, rollout=replace(view.rollout, ended_ms=view.rollout.started_ms + 10 * HOUR_MS))
    assert plain(release_sentence(view)) == said


def plain(text: str) -> str:
    return text.replace("\N{NO-BREAK SPACE}", " ")


def test_the_page_says_what_would_change_each_verdict_and_when() -> None:
    page = plain(release_report(samples.held()))
    assert "As now: not worse after about 390 more labels (120 to 2,300), in 3 d." in page
    assert "At the margin: harm after about 12,000 more labels (8,200 to 18,000)." in page
    assert "A first event: too few to say when." in page  # of errors there is no forecast
    assert "480 requests a day for the candidate and 130 labels a day" in page
    assert page.count("<rect") > 2  # the verdicts over time
    assert "a person is asked to decide" in page


def test_a_reason_is_told_without_what_the_lanes_say_but_for_harm() -> None:
    fine, bad = samples.held().latest[1], samples.canary().latest[0]
    hold = (
        f"Hold at 10 %: quality is not settled, 5 labels: {fine.reason}; errors: {bad.reason}; quality: {fine.reason}."
    )
    assert (
        brief(hold, [fine]) == f"Hold at 10 %: quality is not settled, 5 labels; errors: {bad.reason}".rstrip(".") + "."
    )
    assert brief(f"errors: {bad.reason}", [bad]) == f"errors: {bad.reason}"
    assert brief("Hold at shadow: no traffic; nothing measured yet.", []) == "Hold at shadow: no traffic."


def test_markdown_says_the_same_and_data_stays_data() -> None:
    said = plain(release_markdown(samples.held()))
    assert said.startswith("### Release R4 of price\n\nHold at 10 %: quality is not settled.")
    assert "| Quality | ○ unknown | 212 of about 600 labels needed. | As now: not worse after about 390 more" in said
    view = samples.held()
    evil = replace(view.snapshots[-1].lanes[0], reason="a | b\n# <img> `x` [y](z)")
    said = release_markdown(replace(view, snapshots=[replace(view.snapshots[-1], lanes=(evil,))]))
    assert "a \\| b # \\<img\\> \\`x\\` \\[y\\](z)" in said


def test_a_release_without_evidence_yet() -> None:
    view = samples.canary()
    assert "No evidence yet." in release_report(replace(view, snapshots=[], history=[]))
