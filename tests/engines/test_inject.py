"""What each injection does to a history, and what is said of one that is none."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from homeostat.domain.dataset import ENTITY, EVENT_MS
from homeostat.domain.errors import UsageError
from homeostat.domain.event import Event
from homeostat.domain.gate import Measurement
from homeostat.domain.units import DAY_MS
from homeostat.engines import inject
from homeostat.engines.inject import DUE_MS, KINDS, TOLD, form
from homeostat.engines.reaction import Life, false_alarms, reactions

START = 20_454 * DAY_MS  # 2026-01-01
DAYS = 40
RNG = np.random.default_rng(5)
HISTORY = pl.DataFrame(
    {
        "amount": RNG.gamma(2, 20, DAYS * 50),
        "hour": RNG.integers(0, 24, DAYS * 50),
        "country": RNG.choice(["de", "fr"], DAYS * 50).tolist(),
        "fraud": RNG.integers(0, 2, DAYS * 50),
        EVENT_MS: START + np.arange(DAYS * 50) * DAY_MS // 50,
        ENTITY: pl.Series([None] * (DAYS * 50), dtype=pl.String),
    }
)
FROM, UNTIL = "2026-01-15", "2026-01-25"
FROM_MS, UNTIL_MS = START + 14 * DAY_MS, START + 24 * DAY_MS


def read(*texts: str) -> tuple[inject.Injection, ...]:
    return inject.read(texts, HISTORY, "fraud", START + 10 * DAY_MS, START + DAYS * DAY_MS)


def laid(*texts: str, history: pl.DataFrame = HISTORY) -> pl.DataFrame:
    return inject.apply(inject.told(history, "fraud", DAY_MS), read(*texts), "fraud")


def changed(after: pl.DataFrame, name: str) -> pl.DataFrame:
    """The rows of the history in which a column is another one."""
    before = inject.told(HISTORY, "fraud", DAY_MS)
    return after.filter(~after[name].eq_missing(before[name]))


EXAMPLES = {
    "drift": ("amount", f"drift:amount:+0.5sd@{FROM}..{UNTIL}"),
    "concept": ("fraud", f"concept:amount:100%@{FROM}..{UNTIL}"),
    "missing": ("country", f"missing:country:30%@{FROM}..{UNTIL}"),
    "broken": ("amount", f"broken:amount:zero@{FROM}..{UNTIL}"),
    "label-delay": (DUE_MS, f"label-delay:14d@{FROM}..{UNTIL}"),
    "poison": (TOLD, f"poison:10%@{FROM}..{UNTIL}"),
}


@pytest.mark.parametrize("kind", EXAMPLES)
def test_an_injection_changes_its_column_in_its_span_and_nothing_else(kind: str) -> None:
    name, text = EXAMPLES[kind]
    after = laid(text)
    rows = changed(after, name)
    assert len(rows) > 40
    assert rows[EVENT_MS].is_between(FROM_MS, UNTIL_MS, closed="left").all()
    others = {TOLD} if kind == "concept" else set()
    for other in {*after.columns} - {name, *others}:
        assert changed(after, other).is_empty(), other
    assert after.schema == inject.told(HISTORY, "fraud", DAY_MS).schema
    assert laid(text).equals(after)
    alone = laid(text, f"missing:hour:5%@{FROM}")[name]
    assert alone.equals(after[name])  # what chance does in one is its own


def test_how_far_each_goes() -> None:
    moved = laid("drift:amount:+1sd@2026-01-15")
    span = HISTORY[EVENT_MS] >= FROM_MS
    low = HISTORY["amount"] < 100
    step = (moved["amount"] - HISTORY["amount"]).filter(span & low)
    assert step.to_list() == pytest.approx([float(np.std(HISTORY["amount"].filter(~span).to_numpy()))] * len(step))
    assert moved["amount"].max() == HISTORY["amount"].max()
    assert laid("drift:hour:-1sd@2026-01-15")["hour"].dtype == pl.Int64
    assert laid("missing:country:30%@2026-01-15")["country"].filter(span).null_count() / span.sum() == pytest.approx(
        0.3, abs=0.05
    )
    last = HISTORY.filter(~span)["country"][-1]
    assert set(laid("broken:country:stuck@2026-01-15")["country"].filter(span)) == {last}
    assert laid("broken:amount:x100@2026-01-15")["amount"].filter(span).equals(HISTORY["amount"].filter(span) * 100)
    half = laid("concept:amount:50%@2026-01-15")
    turned = half["fraud"] != HISTORY["fraud"]
    assert HISTORY["amount"].filter(turned).min() > HISTORY["amount"].filter(span & ~turned).max()
    assert half["fraud"].filter(turned).equals(1 - HISTORY["fraud"].filter(turned))
    slow = (laid("concept:amount:100%:20d@2026-01-15")["fraud"] != HISTORY["fraud"]).to_numpy().reshape(DAYS, 50)
    assert [round(slow[day : day + 5].mean(), 1) for day in (14, 19, 24, 34)] == pytest.approx(
        [0.1, 0.4, 0.6, 1], abs=0.11
    )


def test_labels_of_an_outage_come_at_its_end_and_of_one_without_end_never() -> None:
    due = laid("label-outage@2026-01-15..2026-01-25")[DUE_MS]
    was = HISTORY[EVENT_MS] + DAY_MS
    late = was.is_between(FROM_MS, UNTIL_MS, closed="left")
    assert set(due.filter(late)) == {UNTIL_MS}
    assert due.filter(~late).equals(was.filter(~late))
    assert (laid("label-outage@2026-01-15")[DUE_MS].filter(was >= FROM_MS) > START + 400 * DAY_MS).all()
    assert len(laid("outage@2026-01-15..2026-01-25")) == (DAYS - 10) * 50


def test_a_number_to_predict_is_mirrored_within_its_own_values() -> None:
    history = HISTORY.with_columns(pl.col("amount").alias("fraud"))
    after = laid("concept:hour:100%@2026-01-11", history=history)
    told, was = (one.filter(HISTORY[EVENT_MS] >= START + 10 * DAY_MS)["fraud"] for one in (after, history))
    assert set(told) <= set(was) | set(history["fraud"])
    assert np.corrcoef(told.rank(), was.rank())[0, 1] == pytest.approx(-1)


def test_several_in_one_text_and_none() -> None:
    many = read("label-delay:14d, outage@2026-02..2026-02-03", "drift:hour:-2sd:7d@2026-01-20T12:30")
    assert [(one.kind, one.amount, one.over_ms) for one in many] == [
        ("label-delay", 14 * DAY_MS, 0), ("outage", 0.0, 0), ("drift", -2.0, 7 * DAY_MS)
    ]  # fmt: skip
    assert [one.from_ms - START for one in many] == [10 * DAY_MS, 31 * DAY_MS, 19.5 * DAY_MS + DAY_MS / 48]
    assert read() == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("drfit:amount:+1sd@2026-01-15", "did you mean 'drift'"),
        ("flood@2026-01-15", r"Known: drift:FIELD:\+0.5sd\[:OVER\]@WHEN\[..UNTIL\], concept"),
        ("drift:amuont:+1sd@2026-01-15", "did you mean 'amount'(.|\n)*Inputs: amount, hour, country"),
        ("drift:fraud:+1sd@2026-01-15", "'fraud' is no input"),
        ("drift:country:+1sd@2026-01-15", "'country' is no number(.|\n)*Numbers: amount, hour"),
        ("drift:amount:0.5@2026-01-15", r"is no shift: write \+0.5sd"),
        ("drift:amount@2026-01-15", r"takes other parts(.|\n)*Write drift:FIELD:\+0.5sd"),
        ("missing:amount:130%@2026-01-15", "is not a share"),
        ("broken:amount:zreo@2026-01-15", "did you mean 'zero'"),
        ("broken:country:zero@2026-01-15", "can only be stuck"),
        ("label-delay:soon", "is not a duration"),
        ("poison:10%", "when is missing"),
        ("poison:10%@tomorrow", "'tomorrow' is no time: write 2026-01"),
        ("poison:10%@2025-12", "2025-12-01T00:00:00Z is not rehearsed(.|\n)*2026-01-11T00:00:00Z on"),
        ("outage@2026-01-15", r"its end is missing(.|\n)*Write outage@WHEN..UNTIL"),
        ("outage@2026-01-15..2026-01-14", "ends before it begins"),
        ("broken-release@2026-01-15..2026-01-16", "it has no end"),
    ],
)  # fmt: skip
def test_what_is_wrong_names_the_nearest_and_the_form(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        read(text)


def test_every_kind_has_its_form() -> None:
    assert {form(kind).partition(":")[0].partition("@")[0].partition("[")[0] for kind in KINDS} == set(KINDS)
    assert {*EXAMPLES, "label-outage", "outage", "broken-release"} == set(KINDS)


def event(day: float, kind: str, subject: str, text: str = "", columns: tuple[str, ...] = ()) -> Event:
    return Event(START + round(day * DAY_MS), "m", kind, f"{kind}{day}", subject, text, {"columns": columns})


def life(events: list[Event], levels: list[float]) -> Life:
    periods = [
        (START + k * DAY_MS + DAY_MS // 2, Measurement("roc_auc", v, v - 0.05, v + 0.05, 50))
        for k, v in enumerate(levels)
    ]
    return Life(events, periods, DAY_MS, True, START + DAYS * DAY_MS, 2 * DAY_MS)


def test_what_the_loop_did_is_told_of_the_injection_that_began_last() -> None:
    events = [
        event(12, "alert.opened", "performance"),
        event(16, "alert.opened", "inputs amount2", "amount2 drifted", ("amount2",)),
        event(17, "alert.opened", "inputs hour, amount", "2 inputs drifted", ("hour", "amount")),
        event(27, "alert.opened", "performance", "the loss rose"),
        event(27.5, "trigger.fired", "performance:x"),
        event(29, "release.promoted", "R2"),
        event(39, "release.promoted", "R3"),
    ]
    levels = [0.9] * 14 + [0.9] * 3 + [0.7] + [0.9] * 7 + [0.6] * 5 + [0.9] * 10
    given = read(f"drift:amount:+1sd@{FROM}..2026-01-20", "concept:amount:50%@2026-01-26..2026-02-03")
    drift, concept = reactions(given, life(events, levels))
    assert (drift.noticed, drift.did, drift.harmed_ms) == (events[2], (), None)  # one bad day is none
    assert drift.detect_ms == 3 * DAY_MS
    assert (concept.noticed, concept.did) == (events[3], (events[4], events[5]))
    assert (concept.harmed_ms, concept.recover_ms) == (START + 25 * DAY_MS, 5 * DAY_MS)
    assert false_alarms(given, life(events, levels)) == 1


def test_each_of_several_that_begin_at_one_moment_has_its_answers() -> None:
    events = [
        event(16, "alert.opened", "inputs hour, amount", "2 inputs drifted", ("hour", "amount")),
        event(17, "alert.opened", "labels", "no label came"),
        event(18, "trigger.held", "schedule:x"),
    ]
    given = read(f"drift:amount:+1sd@{FROM}", f"drift:hour:+1sd@{FROM}", f"label-outage@{FROM}")
    amount, hour, late = reactions(given, life(events, [0.9] * DAYS))
    assert (amount.noticed, hour.noticed, late.noticed) == (events[0], events[0], events[1])
    assert amount.did == hour.did == late.did == (events[2],)


def test_an_alert_that_names_a_column_is_about_it_though_something_else_began_since() -> None:
    events = [event(16, "alert.opened", "inputs hour, amount", "2 inputs drifted", ("hour", "amount"))]
    given = read(f"drift:amount:+1sd@{FROM}", "drift:hour:+1sd@2026-01-16", "poison:10%@2026-01-16")
    amount, hour, poison = reactions(given, life(events, [0.9] * DAYS))
    assert (amount.noticed, hour.noticed, poison.noticed) == (events[0], events[0], None)


def test_a_broken_release_is_noticed_where_it_ends() -> None:
    (given,) = read("broken-release@2026-01-15")
    begun = event(14, "scenario.released", "R4", f"{given.text}: released as R4")
    events = [begun, event(15, "release.rolled_back", "R3"), event(16, "release.rolled_back", "R4")]
    (found,) = reactions((given,), life(events, [0.9] * DAYS))
    assert (found.noticed, found.did) == (events[2], (begun, events[2]))
    (refused,) = reactions((given,), life([event(14, "scenario.refused", "", f"{given.text}: no")], [0.9] * DAYS))
    assert refused.noticed is not None
    assert refused.detect_ms == 0
