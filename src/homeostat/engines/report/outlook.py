"""What is to be expected of a release, in words: for the page, the terminal and the pull request."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from homeostat.domain.event import Event
from homeostat.domain.gate import Verdict
from homeostat.domain.outlook import Assumed, Forecast, Outlook, Turn
from homeostat.domain.rollout import Do, Lane, Move, Rollout, Seen
from homeostat.domain.units import MINUTE_MS
from homeostat.engines.report import words


@dataclass(frozen=True, slots=True)
class Says:
    """How a lane reads: its title, the question it answers, what it measures, what it counts, the value at which both
    versions are alike, and what the candidate would be at the margin."""

    title: str
    question: str
    measure: str = "ratio of rates, candidate to champion"
    noun: str = "event"
    alike: float = 1.0
    margin: str = "at the bound"


LANES = {
    "errors": Says("Errors", "Does the candidate fail more often than the champion at the same time?"),
    "slow": Says("Slow answers", "Is it slow more often than the champion at the same time?"),
    "quality": Says(
        "Quality",
        "On rows that both have scored, is its loss larger?",
        "mean difference of the loss, candidate minus champion",
        "label",
        0.0,
        "at the margin",
    ),
    "segments": Says(
        "Segments",
        "Is its loss larger for one value of a guarded input?",
        "mean difference of the loss there, candidate minus champion",
        "label",
        0.0,
        "at the margin",
    ),
    "sample_ratio": Says(
        "Assignment", "Did each version get the share it was due?", "", "caller", margin="at another share"
    ),
}


def says(name: str) -> Says:
    return LANES.get(name) or Says(name.replace("_", " ").capitalize(), "")


def because(move: Move, seen: Seen) -> str:
    """Why it moves or holds, without what the lanes say: that stands beside it."""
    return brief(move.reason, seen.lanes)


def brief(reason: str, lanes: Sequence[Lane]) -> str:
    """A reason without what the lanes say in it, but for harm."""
    for lane in lanes:
        if lane.verdict is not Verdict.HARM:
            reason = reason.replace(f"{lane.name}: {lane.reason}", "").replace(f": {lane.reason}", "")
    return re.sub(r"(?:[;:] *)+\.?$", "", reason.replace("; nothing measured yet", "")).rstrip(".") + "."


def expected(rollout: Rollout, outlook: Outlook) -> str:
    """What comes next and when: one or two sentences."""
    turn = outlook.turn(Assumed.AS_NOW)
    if turn is None:
        return ""
    if turn.move is None or turn.at_ms is None:
        return "At the present traffic no decision is to be expected within a year."
    if turn.at_ms <= outlook.now_ms:
        return f"The next pass of the loop does this: {becomes(rollout, turn.move)}."
    cause = next((one for one in outlook.forecasts if _causes(one, turn.at_ms)), None)
    needs = f" with about {_counted(cause)}" if cause else ""
    return f"Expected {when(turn.at_ms, outlook.now_ms)}: {becomes(rollout, turn.move)}{needs}."


def _causes(forecast: Forecast, at_ms: int) -> bool:
    """Its verdict falls into the minutes before the move."""
    return bool(forecast.more and forecast.at_ms and 0 <= at_ms - forecast.at_ms <= 2 * MINUTE_MS)


def becomes(rollout: Rollout, move: Move) -> str:
    """What a move makes of the release."""
    said = {
        Do.ADVANCE: f"on to {rollout.steps[move.to]}",
        Do.PROMOTE: "promoted for good",
        Do.ROLL_BACK: "rolled back",
        Do.REJECT: "rejected: still not settled",
        Do.SUPERSEDE: "not shown to be better: a newer one may come",
        Do.ASK: "a person is asked to decide",
    }
    return said.get(move.do, move.do.value)


def happened(event: Event) -> str:
    """`release.rolled_back` → `rolled back`."""
    return event.kind.rpartition(".")[2].replace("_", " ")


def assumption(assumed: Assumed) -> str:
    """If the candidate …"""
    return "is what it looks like now" if assumed is Assumed.AS_NOW else "is as bad as is tolerated"


def when(at_ms: int, now_ms: int) -> str:
    """`24 Nov 2026 14:00 (in 3.2 d)`."""
    return f"{words.time(at_ms)} (in {words.duration(at_ms - now_ms)})"


def after(turn: Turn, rollout: Rollout, now_ms: int) -> tuple[str, str]:
    """The move and its time, as the cells of a table."""
    if turn.move is None or turn.at_ms is None:
        return "none", "not within a year"
    if turn.at_ms <= now_ms:
        return becomes(rollout, turn.move), "at the next pass"
    return becomes(rollout, turn.move), when(turn.at_ms, now_ms)


def more(forecast: Forecast) -> str:
    """`not worse after about 390 more labels (300 to 900)`."""
    if forecast.verdict is Verdict.UNKNOWN:
        return "no decision within a year"
    if not forecast.more:
        return "settled"
    found = "harm" if forecast.verdict is Verdict.HARM else "not worse"
    return f"{found} after about {_counted(forecast)} ({rounded(forecast.few):,} to {rounded(forecast.many):,})"


def _counted(forecast: Forecast) -> str:
    return words.counted(rounded(forecast.more), f"more {says(forecast.lane).noun}")


def rounded(n: int | None) -> int:
    """Two digits of a forecast are enough."""
    return int(float(f"{n or 0:.2g}"))


def change(lane: Lane, outlook: Outlook | None) -> str:
    """What would change what a lane says."""
    if lane.verdict is Verdict.HARM:
        return "Nothing: harm stands."
    if lane.verdict is Verdict.INVALID:
        return "A person: it could not be measured."
    if outlook is None or lane.name in ("sample_ratio", "segments"):
        return ""
    noun, at_margin = says(lane.name).noun, says(lane.name).margin
    now, worse = outlook.forecast(lane.name, Assumed.AS_NOW), outlook.forecast(lane.name, Assumed.AT_MARGIN)
    if now is None or worse is None:
        return f"{'More' if lane.n else 'A first'} {noun if not lane.n else noun + 's'}: too few to say when."
    said = f"As now: {more(now)}{_due(now, outlook.now_ms)}."
    return f"{said} {at_margin.capitalize()}: {more(worse)}."


def _due(forecast: Forecast, now_ms: int) -> str:
    return f", in {words.duration(forecast.at_ms - now_ms)}" if forecast.more and forecast.at_ms else ""
