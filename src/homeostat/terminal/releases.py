"""Releases, experiments and backtests in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from math import log10
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from homeostat.domain.backtest import Backtested, Replayed
from homeostat.domain.outlook import Outlook
from homeostat.domain.rollout import Lane, Rollout
from homeostat.domain.units import show_share
from homeostat.engines.looks import FLOOR
from homeostat.engines.report import ReleaseView, release_sentence, words
from homeostat.engines.report.backtest import facts, milliseconds, outcome
from homeostat.engines.report.outlook import after, assumption, change, happened, says
from homeostat.engines.report.rehearsal import OUTCOMES
from homeostat.terminal import lanes, lines, out, pairs, plain_table, score, verdict

if TYPE_CHECKING:  # whoever has one to show has imported it
    from homeostat.domain.experiment import Plan
    from homeostat.services.experiments import Found
    from homeostat.services.release_log import Served

BARS, SPARK = "▁▂▃▄▅▆▇█", 24
SEGMENTS = 6
"""Those of a backtest that a screen has room for; its report has more."""


def planned(plan: Plan) -> None:
    """What an experiment would take."""
    change = f"A change of {words.number(plan.effect)} from {words.number(plan.mean)}"
    lines(f"{change} is found four times in five after {plan.units:,} entities in all arms.")
    if plan.days is None:
        lines("The log goes back less than a day: too little to say how long that takes.")
    else:
        lines(f"At {plan.per_day:,.0f} entities a day that takes {plan.days:,.1f} days.")


def experiment(found: Found | None) -> None:
    """What an experiment says, and its guardrails; once it has ended, what it said then."""
    if found is None:
        lines("No experiment was begun yet. Describe one in homeostat.yaml, then `homeostat experiment start`.")
        return
    one, result = found.experiment, found.result
    lines(f"Experiment {one.id}, {one.name}: {one.outcome or 'under way.'}")
    lines(*(f"{words.time(split.at_ms)}: {split.reason}" for split in one.later[-3:]))
    lines(f"{result.units:,} entities counted, {result.waiting:,} more are in their window.")
    if not one.outcome:
        lines(f"Invalid: {result.invalid}." if result.invalid else "", *(each.sentence for each in result.compared))
    for compared in result.compared:
        for guard in compared.guards:
            out.print(
                "  ",
                verdict(guard.verdict),
                Text(f" version {compared.version}, {guard.name}: {guard.reason}"),
                sep="",
                soft_wrap=True,
            )
    if result.cut:
        lines(f"{result.cut:,} signals were cut to the bounds.")


def listed(records: Sequence[Rollout]) -> None:
    """One line a release."""
    if not records:
        lines("Nothing was released yet. Start with `homeostat release start`.")
        return
    table = plain_table("release", "version", "outcome", "started", "took", "because", numeric=("version", "took"))
    for one in records:
        took = words.duration(one.ended_ms - one.started_ms) if one.ended_ms is not None else "under way"
        outcome = Text(f"{words.MARKS[OUTCOMES[one.status]]} {one.status.value}", style=OUTCOMES[one.status].value)
        table.add_row(one.id, str(one.candidate.number), outcome, words.time(one.started_ms), took, Text(one.reason))
    out.print(table)


def served(found: Served) -> None:
    """What served at a time, and how each version came there."""
    if not found.arms:
        lines(f"At {words.time(found.at_ms)} nothing had been released.")
        return
    since = f", since {words.time(found.since_ms)}" if found.since_ms is not None else ""
    what = "experiment" if found.release.startswith("E") else "release"
    lines(f"At {words.time(found.at_ms)}, {what} {found.release}{since}: {found.routed}")
    table = plain_table("version", "share", "release", "asked for by", "approved by")
    for arm in found.arms:
        said = [
            f"{one.who}, {words.time(one.at_ms)}, {one.step}: {one.reason or 'no reason given'}"
            for one in arm.approvals
        ]
        row = str(arm.version), show_share(arm.share), arm.release, arm.asked_by or "not recorded"
        table.add_row(*row, Text("\n".join(said) or "its evidence alone"))
    out.print(table)


def explained(view: ReleaseView, report: str) -> None:
    """A release: the sentence, each lane over time, what would change it, what happened, where the page is."""
    lines(f"Release {view.rollout.id}. {release_sentence(view)}")
    if view.names:
        out.print(courses(view))
    if view.latest:
        out.print(lanes(view.latest))
    if view.outlook:
        out.print(nexts(view, view.outlook))
    table = plain_table("when", "what", "why")
    for event in view.history:
        table.add_row(words.time(event.at_ms), happened(event), Text(event.text))
    out.print(table)
    if view.backtest:
        _unknown(view.backtest)
    lines(f"Report: {report}")


def courses(view: ReleaseView) -> Table:
    """Each lane over time: E on a logarithmic scale up to its limit, and when its verdict became another one."""
    table = plain_table("lane", "E over time", "verdicts", "what would change it")
    latest = {lane.name: lane for lane in view.latest}
    for name in view.names:
        course = view.course(name)
        runs = [next(run) for _, run in groupby(course, key=lambda one: one[1].verdict)]
        said = Text("\n").join(verdict(lane.verdict).append(f" {words.time(seen.at_ms)}") for seen, lane in runs)
        needs = change(latest[name], view.outlook) if name in latest else ""
        table.add_row(Text(says(name).title), _spark([lane for _, lane in course]), said, Text(needs))
    return table


def _spark(course: Sequence[Lane]) -> Text:
    """At most `SPARK` of the looks, evenly; the highest bar is the limit."""
    every = max(1, -(-len(course) // SPARK))
    shown = [*course[::-every]][::-1]
    heights = [log10(max(lane.evidence, FLOOR) / FLOOR) / log10(max(lane.threshold, 1) / FLOOR) for lane in shown]
    return Text("".join(BARS[min(int(height * len(BARS)), len(BARS) - 1)] for height in heights), style="candidate")


def nexts(view: ReleaseView, outlook: Outlook) -> Table:
    """The next move, and when."""
    table = plain_table("if the candidate", "the next move", "is expected")
    for turn in outlook.turns:
        table.add_row(assumption(turn.assumed), *after(turn, view.rollout, outlook.now_ms))
    return table


def backtested(found: Backtested) -> None:
    """What a backtest found."""
    result = found.result
    lines(f"Version {result.candidate} against version {result.champion}. {found.sentence}")
    out.print(lanes(found.lanes))
    pairs(dict(facts(result)))
    numeric = ("requests", "answers differ by", "elsewhere", "failed", "labels")
    table = plain_table("segment", *numeric, numeric=numeric)
    for one in result.segments[:SEGMENTS]:
        counts = words.number(one.moved), words.number(one.elsewhere), f"{one.failed:,}", f"{one.labels:,}"
        table.add_row(Text(f"{one.field} = {one.values}"), f"{one.n:,}", *counts)
    out.print(table)
    table = plain_table("step", "what comes of it", "after", numeric=("after",))
    for step in result.expected:
        table.add_row(step.step, *outcome(step))
    out.print(table)
    table = plain_table("model call", "p50", "p95", "p99", numeric=("p50", "p95", "p99"))
    for calls in found.latency.calls:
        spans = map(milliseconds, (calls.p50_us, calls.p95_us, calls.p99_us))
        table.add_row(f"version {calls.version}, {words.counted(calls.batch, 'row')}", *spans)
    out.print(table)
    _unknown(found)
    lines(f"Report: {found.report}")


def _unknown(found: Backtested) -> None:
    lines("The backtest cannot know:", *(f"  {one}" for one in found.result.cannot_know))


def replayed(found: Replayed) -> None:
    """One request, two answers."""
    pairs(
        {
            "prediction": f"{found.id}, {words.time(found.at_ms)}",
            "inputs": ", ".join(f"{name} = {value}" for name, value in found.inputs.items()),
            "then": score(found.recorded),
            found.release: score(found.replayed),
        }
    )
