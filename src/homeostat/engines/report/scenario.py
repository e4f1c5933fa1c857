"""What was injected into a rehearsal and how the loop answered; several policies side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import median

from homeostat.domain.event import Event
from homeostat.domain.rehearsal import RehearsalResult
from homeostat.domain.scenario import Reaction
from homeostat.engines.report import words
from homeostat.engines.report.page import Block, Cell, Column, Figure, Section, Table, Text, page
from homeostat.engines.report.plot import Look, Mark, Point, Role, Series, lines

DEEDS = {
    "scenario.released": "it was released",
    "scenario.waited": "it was never released, another release being under way,",
    "trigger.fired": "trained",
    "trigger.held": "held back a training",
    "trigger.declined": "a training would not have helped",
    "training.failed": "a training failed",
    "release.promoted": "promoted",
    "release.rolled_back": "rolled back",
    "release.rejected": "rejected",
}
"""Kinds of event as what the loop did."""


def injected(view: RehearsalResult) -> list[Block]:
    """A row an injection, and how often the loop cried wolf."""
    rows: list[Sequence[Cell]] = [(one.injection.text, noticed(one), did(one), harm(one)) for one in view.reactions]
    columns = [Column("Injected"), Column("noticed"), Column("what the loop did"), Column("the metric")]
    return [Table(columns, rows), Text(wolf(view))]


def wolf(view: RehearsalResult) -> str:
    """The false alarms, in words."""
    alarms = words.counted(view.false_alarms or 0, "alert")
    return f"{alarms} outside of these effects: false, unless the history itself changed there."


def noticed(one: Reaction) -> str:
    """`after 2 d: performance`."""
    if one.noticed is None:
        return "not noticed"
    return f"{_after(one, one.noticed.at_ms)}: {one.noticed.text.partition('; ')[0]}"


def did(one: Reaction) -> str:
    """`trained after 3 d; promoted after 7 d`."""
    said = [f"{DEEDS[event.kind]} {_after(one, event.at_ms)}{_about(event)}" for event in one.did]
    return "; ".join(said) or "nothing"


def _about(event: Event) -> str:
    """Why a training was held back; which release."""
    if event.kind == "trigger.held":
        return f" ({event.body.get('rule', '')})"
    return f" ({event.subject})" if event.kind.startswith(("release.", "scenario.released")) else ""


def harm(one: Reaction) -> str:
    """What became of the metric."""
    if one.harmed_ms is None:
        return "no harm"
    if one.recovered_ms is None:
        return f"worse {_after(one, one.harmed_ms)}, not recovered"
    return f"worse {_after(one, one.harmed_ms)}, recovered {_after(one, one.recovered_ms)}"


def _after(one: Reaction, at_ms: int) -> str:
    gone = at_ms - one.injection.from_ms
    return f"after {words.duration(gone)}" if gone > 0 else "at once"


def reaction_marks(reactions: Sequence[Reaction]) -> Iterator[Mark]:
    """Where each injection begins and ends, and where the metric was back."""
    for one in reactions:
        kind, text = one.injection.kind, one.injection.text
        yield Mark(one.injection.from_ms, kind, "invalid", text)
        if one.injection.until_ms is not None:
            yield Mark(one.injection.until_ms, f"{kind} over", "invalid", f"{text} is over")
        if one.recovered_ms is not None:
            yield Mark(one.recovered_ms, "recovered", "ok", f"the metric is back after {text}")


COUNTS = ("metric", "value", "trainings", "probes", "rows fitted", "false alarms", "to detect", "to recover")
Cells = tuple[str, ...]


def comparison(views: Mapping[str, RehearsalResult]) -> tuple[list[Column], list[Cells]]:
    """One row a policy; the times are medians, those to recover over what did harm. The value of all answers, where
    the policies say what one is worth."""
    valued = any(view.loop.value is not None for view in views.values())
    shown = [place for place, name in enumerate(COUNTS) if valued or name != "value"]
    cells = {name: _row(view) for name, view in views.items()}
    headings = [Column("Policy"), *(Column(COUNTS[place], True) for place in shown)]
    return headings, [(name, *(row[place] for place in shown)) for name, row in cells.items()]


def _row(view: RehearsalResult) -> Cells:
    """In the order of `COUNTS`."""
    harmed = [one for one in view.reactions if one.harmed_ms is not None]
    return (
        words.number(view.loop.whole.value),
        "" if view.loop.value is None else f"{view.loop.value:,.0f}",
        f"{view.loop.trainings:,}",
        f"{view.loop.probes:,}",
        f"{view.loop.fitted:,}",
        "" if view.false_alarms is None else f"{view.false_alarms:,}",
        _times([one.detect_ms for one in view.reactions]),
        _times([one.recover_ms for one in harmed]),
    )


def _times(found: Sequence[int | None]) -> str:
    """The median, and of how many."""
    known = [one for one in found if one is not None]
    if not found:
        return ""
    count = "" if len(known) == len(found) else f" ({len(known)} of {len(found)})"
    return f"{words.duration(round(median(known)))}{count}" if known else "never"


def comparison_sentence(views: Mapping[str, RehearsalResult]) -> str:
    """Which policy kept the metric best, and what each cost."""
    first = next(iter(views.values()))
    best = (max if first.higher_is_better else min)(views, key=lambda name: views[name].loop.whole.value)
    value, metric = words.number(views[best].loop.whole.value), words.metric(first.loop.whole.metric)
    cost = ", ".join(f"{name} {words.counted(view.loop.trainings, 'training')}" for name, view in views.items())
    return f"{best} kept {metric} best, at {value}. {cost}."


def comparison_report(views: Mapping[str, RehearsalResult]) -> str:
    """HTML: the policies by name, each beside the others on the same history."""
    first = next(iter(views.values()))
    table = Table(*comparison(views))
    each = [Section(name, [*injected(view), Text(f"Its own page: {view.report}")]) for name, view in views.items()]
    title = f"Policies for {first.model}, {words.day(first.from_ms)} to {words.day(first.until_ms)}"
    return page(title, comparison_sentence(views), [Section("", [_curves(views), table]), *each])


ROLES: Sequence[Role] = ("champion", "candidate", "scheduled", "plain")


def _curves(views: Mapping[str, RehearsalResult]) -> Figure:
    first = next(iter(views.values()))
    metric = words.metric(first.loop.whole.metric)
    series = [
        Series(
            name, ROLES[k % len(ROLES)], [Point(at_ms, m.value, m.n, m.low, m.high) for at_ms, m in view.loop.periods]
        )
        for k, (name, view) in enumerate(views.items())
    ]
    marks = [mark for mark in reaction_marks(first.reactions) if mark.kind != "ok"]
    return Figure(lines(series, marks, Look(metric, f"{metric} over time, policy by policy", height=400)))
