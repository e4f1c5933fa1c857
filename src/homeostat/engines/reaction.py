"""How the loop answered what was injected: read from its journal and from the course of its metric."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from homeostat.domain.event import Event
from homeostat.domain.gate import Measurement
from homeostat.domain.scenario import Injection, Reaction
from homeostat.domain.trigger import BACKGROUND
from homeostat.engines.inject import BROKEN_RELEASE

ALERT, SCENARIO = "alert.opened", "scenario."
DEEDS = (
    "scenario.released",
    "scenario.waited",
    "trigger.held",
    "trigger.declined",
    "trigger.fired",
    "training.failed",
    "release.promoted",
    "release.rolled_back",
    "release.rejected",
)
"""Kinds of event that are an answer, beside alerts; and what became of a broken release."""
NO_ANSWER = ("schedule", "labels", BACKGROUND)
"""Kinds of triggers that would have fired anyway."""
COLUMNS = ("drift", "missing", "broken")
"""Kinds of injection that change an input."""
BEFORE = 8
"""Periods before an injection that make the level of the metric."""
IN_A_ROW = 2
"""So many periods must agree before the metric counts as worse, or as back."""

Periods = Sequence[tuple[int, Measurement]]
"""(middle in ms, the metric there), in order."""


@dataclass(frozen=True, slots=True)
class Life:
    """What a rehearsal left behind. `settle_ms`: how long after its end an injection may still be answered;
    `period_ms`: what each period of the metric covers; `end_ms`: where the history ends."""

    events: Sequence[Event]
    periods: Periods
    period_ms: int
    higher_is_better: bool
    end_ms: int
    settle_ms: int


def reactions(injections: Sequence[Injection], life: Life) -> tuple[Reaction, ...]:
    """One an injection, in their order."""
    begins = sorted(one.from_ms for one in injections)
    made = []
    for one in injections:
        until = min([_over(one, life), *(at for at in begins if at > one.from_ms)])
        answers = [event for event in life.events if one in _causes(event.at_ms, injections, life)]
        made.append(_reaction(one, answers, _harm(one, until, life), life))
    return tuple(made)


def false_alarms(injections: Sequence[Injection], life: Life) -> int:
    """Alerts that opened outside of every injection's effect."""
    opened = [event for event in life.events if event.kind == ALERT]
    return sum(not _causes(event.at_ms, injections, life) for event in opened)


def _causes(at_ms: int, injections: Sequence[Injection], life: Life) -> list[Injection]:
    """The injections that an event at this time is an answer to: of those in effect the one that began last, or all
    that began then."""
    in_effect = [one for one in injections if _in_effect(one, at_ms, life)]
    last = max((one.from_ms for one in in_effect), default=0)
    return [one for one in in_effect if one.from_ms == last]


def _in_effect(one: Injection, at_ms: int, life: Life) -> bool:
    return one.from_ms <= at_ms < _over(one, life)


def _over(one: Injection, life: Life) -> int:
    last = one.from_ms if one.kind == BROKEN_RELEASE else life.end_ms
    return (last if one.until_ms is None else one.until_ms) + life.settle_ms


def _reaction(one: Injection, answers: Sequence[Event], harm: tuple[int | None, int | None], life: Life) -> Reaction:
    if one.kind == BROKEN_RELEASE:
        answers = _of_release(one, life.events)
    deeds: dict[tuple[str, str], Event] = {}
    for event in answers:
        if event.kind in DEEDS and event.body.get("kind") not in NO_ANSWER:
            deeds.setdefault((event.kind, str(event.body.get("rule", ""))), event)
    noticed = _stopped(answers) if one.kind == BROKEN_RELEASE else _alert(one, answers, life)
    return Reaction(one, noticed, tuple(deeds.values()), *harm)


def _of_release(one: Injection, events: Sequence[Event]) -> list[Event]:
    """What happened to the release that the scenario made, however late."""
    made = [event for event in events if event.kind.startswith(SCENARIO) and event.text.startswith(f"{one.text}:")]
    own = {event.subject for event in made} - {""}
    return [event for event in events if event in made or event.subject in own]


def _alert(one: Injection, answers: Sequence[Event], life: Life) -> Event | None:
    """The first alert that can be about it. One that names what it changes is, whatever else began since: its column,
    or labels that are late. Else one of its answers that names no column."""
    told = [event for event in life.events if event.kind == ALERT and _in_effect(one, event.at_ms, life)]
    named = [event for event in told if one.kind in COLUMNS and one.field in event.body.get("columns", ())]
    named += [event for event in told if one.kind.startswith("label") and event.subject == "labels"]
    alerts = [event for event in answers if event.kind == ALERT]
    others = [event for event in alerts if not event.subject.startswith(("inputs", "broken"))]
    return next(iter(named or others), None)


def _stopped(answers: Sequence[Event]) -> Event | None:
    """What ended a broken release."""
    ends = (SCENARIO + "refused", "release.rolled_back", "release.rejected")
    return next((event for event in answers if event.kind in ends), None)


def _harm(one: Injection, until_ms: int, life: Life) -> tuple[int | None, int | None]:
    """Looked for until then: from when on the metric's interval excludes the level before on the bad side, and from
    when on no longer."""
    half = life.period_ms // 2
    before = [m.value for at, m in life.periods if at + half <= one.from_ms][-BEFORE:]
    after = [(max(at - half, one.from_ms), m) for at, m in life.periods if one.from_ms <= at < until_ms]
    if not before:
        return None, None
    level = sum(before) / len(before)
    worse = [m.high < level if life.higher_is_better else m.low > level for _, m in after]
    harmed = _from(worse, True, 0)
    if harmed is None:
        return None, None
    back = _from(worse, False, harmed)
    return after[harmed][0], None if back is None else after[back][0]


def _from(states: Sequence[bool], wanted: bool, first: int) -> int | None:
    """Where the wanted state begins to hold for `IN_A_ROW`."""
    starts = range(first, len(states) - IN_A_ROW + 1)
    return next((k for k in starts if all(state is wanted for state in states[k : k + IN_A_ROW])), None)
