"""Backtests: bad candidates are named before any live traffic, good ones pass, and the same log says the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import polars as pl
import pytest

from homeostat import codec
from homeostat.domain.bundle import Version
from homeostat.domain.errors import DataError
from homeostat.domain.gate import Verdict
from homeostat.domain.policy import LogPolicy
from homeostat.domain.prediction import Role
from homeostat.domain.rollout import Do, Rollout, Status
from homeostat.domain.schema import Field, Kind
from homeostat.domain.trace import Score, Trace
from homeostat.domain.units import DAY_MS
from homeostat.ports import Model
from homeostat.services import replay
from homeostat.services.evidence_log import SLACK_US
from past import (
    END_MS,
    MODEL,
    SCHEMA,
    START_MS,
    Matrix,
    Output,
    Past,
    as_good,
    gives_nan,
    good,
    late_tail,
    of,
    quick,
    raises,
    risk,
    slow_tail,
    wrong,
    wrong_in_pl,
)


@pytest.fixture(scope="module")
def past() -> Past:
    return Past()


def release(past: Past, candidate: Version) -> Rollout:
    return Rollout("R2", MODEL, past.champion, candidate, (), 0, Status.RUNNING, END_MS, END_MS, "salt", 0)


@pytest.mark.parametrize(
    ("model", "took_us", "lane", "where"),
    [
        (raises, quick, "errors", "amount = from 80.9"),
        (gives_nan, quick, "errors", "amount = from 80.9"),
        (good, slow_tail, "slow", ""),
        (wrong_in_pl, quick, "segments", "country = pl"),
        (wrong, quick, "quality", ""),
    ],
)
def test_a_bad_candidate_is_named_with_its_fault(
    past: Past, model: Model, took_us: Callable[[Matrix], float], lane: str, where: str
) -> None:
    found = past.tried(model, took_us)
    assert found.verdict is Verdict.HARM
    harmed = {one.name for one in found.lanes if one.verdict is Verdict.HARM}
    assert lane in harmed
    assert ("quality" in harmed) == (model in (wrong, wrong_in_pl))
    said = found.sentence.replace("\N{NO-BREAK SPACE}", " ")
    assert said.startswith("Harm over 4,000 recorded requests: ")
    assert f"{lane}: " in said
    assert where in said
    if where:
        top = found.result.segments[0]
        assert f"{top.field} = {top.values}" == where
        assert top.moved > 10 * top.elsewhere
        failures = found.result.candidate_outputs
        assert top.failed == failures.raised + failures.nonfinite
    assert bool(found.result.hard_stop) == (model is gives_nan)


@pytest.mark.parametrize("model", [good, as_good])
def test_a_good_candidate_and_an_identical_one_pass(past: Past, model: Model) -> None:
    found = past.tried(model)
    assert found.verdict is Verdict.OK
    assert {one.verdict for one in found.lanes} <= {Verdict.OK, Verdict.UNKNOWN}
    assert [one.step for one in found.result.expected] == ["shadow", "10 %", "50 %", "100 %", "probation"]
    assert found.result.expected[-1].do is Do.PROMOTE
    assert found.result.expected[1].after_ms > DAY_MS  # quality needs labels, and they come a day late
    assert found.result.shift.flips == (0 if model is good else 1)


def test_a_little_later_is_not_slow_just_as_live(past: Past) -> None:
    found = past.tried(good, late_tail)
    assert found.verdict is Verdict.OK
    assert found.latency.limit_us == 100 + SLACK_US


def test_it_says_what_it_cannot_know(past: Past) -> None:
    told = " ".join(past.tried(good).result.cannot_know)
    for said in ("leaks memory", "under load", "own answers would change", "571 requests: their labels are not there"):
        assert said in told


def test_the_same_log_gives_the_same_bytes_whole_in_pieces_and_after_a_crash(
    past: Past, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay, "ROWS", 1_500)
    candidate = past.version(2, wrong_in_pl)
    record = release(past, candidate)
    whole = past.tried(wrong_in_pl)
    pieces = past.backtests.work(record)
    assert pieces is None  # more than one turn
    past.restart()
    turns = 0
    while pieces is None:
        pieces, turns = past.backtests.work(record), turns + 1
    assert turns == 3
    assert codec.encode(pieces.result) == codec.encode(whole.result)
    assert whole.latency.calls[0].n == 500


def test_what_a_version_has_learned_from_never_speaks_for_it(past: Past) -> None:
    """The candidate's own rows can show harm, but no merit; those of the champion nothing."""
    known = past.tried(as_good, trained_until_ms=END_MS - 3 * DAY_MS).result
    assert 0 < known.fresh < known.labels
    assert next(lane for lane in known.lanes if lane.name == "quality").n == known.fresh
    all_known = past.tried(as_good, trained_until_ms=END_MS)
    assert (all_known.verdict, all_known.result.labels, all_known.result.fresh) == (Verdict.UNKNOWN, 3_429, 0)
    assert all_known.result.expected[1].do is Do.ASK
    assert "% of the decisions flip" in all_known.sentence
    assert past.tried(wrong, trained_until_ms=END_MS).verdict is Verdict.HARM
    learned = past.backtests.between(
        past.version(3, good, trained_until_ms=END_MS), past.version(2, wrong), START_MS, END_MS, lambda *_: None
    )
    assert (learned.verdict, learned.result.labels, learned.result.learned) == (Verdict.UNKNOWN, 0, 3_429)


def test_requests_that_can_not_be_put_again_are_counted() -> None:
    past = Past(400, kept=LogPolicy(drop=("items",)))
    found = past.tried(wrong)
    assert (found.result.recorded.hidden, found.result.recorded.replayed) == (400, 0)
    assert "400 lack an input" in found.sentence
    assert found.verdict is Verdict.UNKNOWN
    past = Past(400)
    rows = pl.DataFrame({"amount": [20.0, 30.0], "items": [1, 1], "member": [True, None], "country": ["de", "de"]})
    past.append(["a", "b"], END_MS - 5, rows)
    past.append(["c", "d"], END_MS - 4, rows, score=[0.9, 0.9])
    past.append(["e", "f"], END_MS - 3, rows, role=["rejected", "shed"], status=["rejected", "shed"])
    past.append(["g", "h"], END_MS - 2, rows, release="edge:abc")
    recorded = past.tried(good).result.recorded
    assert (recorded.answers, recorded.replayed, recorded.hidden, recorded.changed) == (404, 401, 2, 1)
    assert (recorded.refused, recorded.away) == (2, 2)


def test_an_input_that_nobody_sends_ends_a_release() -> None:
    past, more = Past(400), replace(SCHEMA, fields=(*SCHEMA.fields, Field("age", Kind.NUMBER)))
    found = past.tried(good, schema=more)
    assert found.result.missing == {"age": 400}
    assert found.result.hard_stop == "no recorded request has age, which version 2 must have"
    nullable = replace(SCHEMA, fields=(*SCHEMA.fields, Field("age", Kind.NUMBER, nullable=True)))
    assert not past.tried(good, schema=nullable).result.hard_stop


def too_sure(x: Matrix, /) -> Output:
    return of(risk(x) * 1.2)


def test_outputs_that_are_no_probabilities_end_a_release() -> None:
    found = Past(400).tried(too_sure)
    assert "is no probability; the champion's is one" in found.result.hard_stop
    assert found.result.candidate_outputs.out_of_range > 0 == found.result.champion_outputs.out_of_range


def test_a_candidate_that_can_not_be_loaded_fails_on_every_request() -> None:
    past = Past(400)
    candidate = past.version(2, good)
    del past.blobs._blobs[codec.decode(past.blobs.get(candidate.bundle), dict)["files"]["model.onnx"]]
    found = past.backtests.between(past.champion, candidate, START_MS, END_MS, lambda *_: None)
    assert found.result.candidate_outputs.raised == 400
    assert "20 of the candidate's first 20 rows were bad" in found.result.hard_stop


def traced(role: Role, amount: float = 70.0) -> Trace:
    inputs = {"amount": amount, "items": None, "member": True, "country": "de"}
    said = (Score(1, role.value, "ok", 0.88, "yes", None),)
    return Trace("p1", MODEL, None, START_MS, "R1", 0, "champion", inputs, said, None, None, "", None, "")


def test_one_request_through_another_version() -> None:
    past = Past(10)
    record = release(past, past.version(2, wrong))
    found = past.backtests.one(traced(Role.ANSWER), record)
    assert (found.recorded.label, found.replayed.label, found.replayed.version) == ("yes", "no", 2)
    assert found.replayed.score == pytest.approx(0.119, abs=0.001)
    failed = past.backtests.one(traced(Role.ANSWER, 90.0), replace(record, candidate=past.version(2, raises))).replayed
    assert (failed.status, failed.score, failed.label) == ("error", None, None)
    with pytest.raises(DataError, match="no model saw this request"):
        past.backtests.one(traced(Role.REJECTED), record)
    hidden = Past(10, kept=LogPolicy(hash=("country",)))
    with pytest.raises(DataError, match="country is not in the log as it was served"):
        hidden.backtests.one(traced(Role.ANSWER), release(hidden, hidden.version(2, good)))
