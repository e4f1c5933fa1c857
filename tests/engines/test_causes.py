"""What a window's drift opens and closes, and what is named as the likely cause."""

from __future__ import annotations

import pytest

from homeostat.domain.event import Event
from homeostat.domain.gate import Verdict
from homeostat.domain.monitor import Alert, Cause, Reading, Window
from homeostat.domain.moved import Ranked
from homeostat.domain.units import DAY_MS
from homeostat.engines.causes import REFUSED, likely, ranked, settle, title
from homeostat.engines.drift.profile import PREDICTION
from homeostat.engines.drift.refused import REQUESTS

WEEK_MS = 7 * DAY_MS


def moved(**effects: float) -> list[Reading]:
    """Each column with its effect, and one that stays as it was."""
    named = {PREDICTION if name == "answers" else name: effect for name, effect in effects.items()}
    still = Reading("still", "shape", Verdict.OK, 0.0, 1.0, "still: as before")
    found = [Reading(name, "shape", Verdict.HARM, effect, 0.0, f"{name}: moved") for name, effect in named.items()]
    return [still, *found]


def alert(*columns: str, day: int = 1, kind: str = "inputs", window: int = DAY_MS, closed: int | None = None) -> Alert:
    closed_ms = None if closed is None else closed * DAY_MS
    return Alert(f"{kind}{columns}{day}", "", "", day * DAY_MS, closed_ms, kind=kind, columns=columns, window_ms=window)


A, LATER = alert("a"), alert("a", day=1, closed=2)
CASES = {
    "all that begins to move in one window is one, the largest first": ([], moved(a=0.1, b=0.4), 1, (), ("b", "a")),
    "what is told is not told again": ([A], moved(a=0.2), 1, (), ()),
    "another column is another cause": ([A], moved(a=0.2, b=0.1), 1, (), ("b",)),
    "it is over when none of its columns moves": ([A], moved(), 1, (A,), ()),
    "a column that goes while another comes": ([A], moved(b=0.1), 1, (A,), ("b",)),
    "the length that opened it says when it is over": ([A], moved(), 7, (), ()),
    "a longer window does not tell it again": ([LATER], moved(a=0.3), 7, (), ()),
    "a later one of the same length does": ([LATER], moved(a=0.3), 1, (), ("a",)),
    "a broken column does not drift": ([alert("a", kind="broken", window=0)], moved(a=0.9, b=0.1), 1, (), ("b",)),
    "nor what it did to the answers": ([alert("a", kind="broken", window=0)], moved(a=0.9, answers=0.3), 1, (), ()),
    "answers move with inputs": ([], moved(a=0.1, answers=0.3), 1, (), (PREDICTION, "a")),
    "answers alone are a cause": ([], moved(answers=0.3), 1, (), (PREDICTION,)),
    "unless an input drifts already": ([A], moved(a=0.1, answers=0.3), 1, (), ()),
}


@pytest.mark.parametrize(
    ("alerts", "readings", "over", "columns"),
    [
        ([alert("a", kind="requests")], moved(a=0.3, b=0.2), (), ("b",)),  # another field is another cause
        ([alert("b", kind="broken", window=0)], moved(a=0.3, b=0.2), (), ("a",)),
        ([alert("b", kind="broken", window=0)], moved(**{REQUESTS: 1.0}), (), ()),
        ([alert("b", kind="inputs")], moved(b=0.3), (), ("b",)),
        ([alert("a", kind="requests", day=7, window=1)], moved(b=0.2), (), ("b",)),
        ([A, alert("b", kind="requests")], moved(), (alert("b", kind="requests"),), ()),
        ([alert("a", kind="requests", day=7, closed=8)], moved(a=0.1), (), ()),  # a longer window over the same days
    ],
)
def test_alerts_of_refused_requests(
    alerts: list[Alert], readings: list[Reading], over: tuple[Alert, ...], columns: tuple[str, ...]
) -> None:
    settled = settle(alerts, readings, Window(7 * DAY_MS, 8 * DAY_MS), kinds=REFUSED)
    assert (settled.over, settled.columns) == (over, columns)


@pytest.mark.parametrize("case", CASES)
def test_alerts_of_a_window(case: str) -> None:
    alerts, readings, days, over, columns = CASES[case]
    settled = settle(alerts, readings, Window((8 - days) * DAY_MS, 8 * DAY_MS))
    if case == "a longer window does not tell it again":
        settled = settle(alerts, readings, Window(0, 7 * DAY_MS))
    assert (settled.over, settled.columns) == (over, columns)


def test_columns_stand_by_what_they_matter() -> None:
    readings = moved(a=0.2, b=0.9, c=0.3)
    assert settle([], readings, Window(0, DAY_MS), {"a": 0.1, "b": 0.01, "c": -0.001}).columns == ("a", "b", "c")


def test_what_was_measured_in_the_loss_stands_before_what_was_not() -> None:
    own = [Cause("broken", "x is stuck"), Cause("drift", "drift of a"), Cause("release", "version 2")]
    found = [Ranked("within", "a above 3", 0.1, "a above 3 does worse"), Ranked("change", "", 0.0, "version 2")]
    assert [one.words for one in ranked(own, found)] == ["x is stuck", "a above 3 does worse", "version 2"]
    assert ranked(own, []) == tuple(own)


def test_titles() -> None:
    assert title(["a"]) == "a drifted"
    assert title([PREDICTION]) == "predictions drifted"
    assert title(["a", PREDICTION]) == "a drifted"
    assert title([*"abcdefg"]) == "7 inputs drifted: a, b, c, d, e and 2 more"


def test_the_likeliest_cause_stands_first() -> None:
    def event(kind: str, day: float, text: str, **body: object) -> Event:
        return Event(round(day * DAY_MS), "m", kind, f"{kind}{day}", "R2", text, body)

    readings = [
        {"subject": name, "test": "shape", "verdict": "harm", "effect": effect, "p": 0.0, "reason": f"{name}: moved"}
        for name, effect in (("a", 0.5), ("b", 0.1), ("b", 0.2), (PREDICTION, 0.9))
    ]
    drifted = {"start_ms": 9 * DAY_MS, "end_ms": 10 * DAY_MS, "readings": readings}
    events = [
        event("release.promoted", -5, "Promoted long ago"),
        event("release.promoted", 9.5, "Version 2 answers"),
        event("release.look", 9.6, "a look"),
        event("monitor.drift", 10, "", **drifted),
    ]
    found = likely("performance", [], events, round(9.2 * DAY_MS), 12 * DAY_MS)
    assert [one.kind for one in found] == ["release", "drift", "drift"]
    assert found[0].words == "Version 2 answers (1970-01-10T12:00:00Z)"
    assert [one.words for one in found[1:]] == ["drift of a: moved", "drift of b: moved"]
    sick = Alert("k", "a is stuck", "", 9 * DAY_MS, subject="broken a", kind="broken", columns=("a",), name="A4")
    assert likely("performance", [sick], events, 9 * DAY_MS, 12 * DAY_MS)[0].words == "a is stuck (A4)"
    assert [one.kind for one in likely("inputs", [], events, 9 * DAY_MS, 12 * DAY_MS)] == ["drift", "drift"]
    assert likely("performance", [], events, 11 * DAY_MS, 12 * DAY_MS)[0].kind == "release"
