"""Lanes from small logs."""

from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest

from homeostat.domain.bundle import Bundle
from homeostat.domain.gate import Verdict
from homeostat.domain.rollout import Lane
from homeostat.domain.schema import Field, Kind, Schema, Task
from homeostat.domain.units import DAY_MS, MINUTE_MS
from homeostat.engines.lanes import Case, Findings, Side, interval, judge, number

BINARY = Schema((Field("x", Kind.NUMBER),), Task.BINARY, "y", ("no", "yes"))
BUNDLE = Bundle("price", BINARY, 0.5, 1.0, {}, "run", 0, 0)
CASE = Case(Side(1, BUNDLE), Side(2, BUNDLE), 1_000, 0, 0.005, DAY_MS, 10 * DAY_MS)
NO_LABELS: dict[str, tuple[str, int]] = {}


def row(
    identity: object,
    version: int,
    role: str = "answer",
    *,
    arm: str = "",
    weight: int = 1_000,
    status: str = "ok",
    score: float | None = 0.5,
    at: int = 0,
    us: int = 100,
    key: str | None = None,
    scores: list[float] | None = None,
) -> dict[str, object]:
    arm = arm or ("candidate" if (version == 2) == (role != "shadow") else "champion")
    return {
        "id": str(identity), "key": key, "at_ms": at, "release": "R2", "version": version, "arm": arm, "role": role,
        "weight": weight, "status": status, "model_us": us, "score": score, "scores": scores,
    }  # fmt: skip


def found(rows: list[dict[str, object]], labels: dict[str, tuple[str, int]] = NO_LABELS, case: Case = CASE) -> Findings:
    log = pl.DataFrame(rows, schema_overrides={"key": pl.String, "score": pl.Float64, "scores": pl.List(pl.Float64)})
    received = [(identity, label, at) for identity, (label, at) in labels.items()]
    schema = {"id": pl.String, "label": pl.String, "at_ms": pl.Int64}
    return judge(case, log, pl.DataFrame(received, schema, orient="row"))


def lane(name: str, findings: Findings) -> Lane:
    return next(lane for lane in findings.lanes if lane.name == name)


def test_failed_attempts_count_against_the_candidate_and_its_rescue_for_nobody() -> None:
    rows = []
    for i in range(20):
        rows.append(row(i, 2, "failed", status="error", at=i * MINUTE_MS))
        rows.append(row(i, 1, arm="candidate", status="error", at=i * MINUTE_MS))
    rows += [row(100 + i, 1, at=i) for i in range(300)]
    errors = lane("errors", found(rows))
    assert (errors.n, errors.verdict) == (20, Verdict.HARM)
    assert errors.reason.startswith("harm (E = ")
    assert "harm at 100): 20 bad answers of the candidate, 0 of the champion" in errors.reason


def test_one_event_an_entity_and_minute() -> None:
    rows = [row(i, 2, "failed", status="timeout", key="loud", at=i) for i in range(500)]
    assert lane("errors", found(rows)).n == 1


@pytest.mark.parametrize("weight", [0, 10_000])
def test_where_one_arm_only_shadows_an_answer_counts_when_it_was_shadowed(weight: int) -> None:
    answering, shadowing = (1, 2) if weight == 0 else (2, 1)
    rows = [row(i, answering, weight=weight, status="error", at=i * MINUTE_MS) for i in range(6)]
    rows += [row(i, shadowing, "shadow", weight=weight, at=i * MINUTE_MS) for i in range(4)]
    assert lane("errors", found(rows)).n == 4


def test_both_failing_everywhere_is_no_harm() -> None:
    rows = []
    for i in range(2_000):
        mine = i % 10 == 0
        rows.append(row(i, 2 if mine else 1, status="error", at=i * MINUTE_MS))
        rows.append(row(i, 1 if mine else 2, "shadow", status="error", at=i * MINUTE_MS))
    findings = found(rows)
    assert lane("errors", findings).bounded
    assert (lane("errors", findings).verdict, findings.hard_stop) == (Verdict.OK, "")
    assert lane("errors", findings).value == pytest.approx(1, rel=0.01)


def test_rejected_rows_and_other_versions_count_for_nothing() -> None:
    rows = [row(i, 2, "rejected", status="rejected") for i in range(50)] + [
        row(i, 7, status="error") for i in range(50)
    ]
    findings = found(rows)
    assert [(one.n, one.verdict) for one in findings.lanes] == [(0, Verdict.UNKNOWN)] * 3


def test_slow_calls_are_counted_once_a_call() -> None:
    case = replace(CASE, slow_us=1_000)
    rows = [row((i, j), 2, at=i, us=5_000) for i in range(40) for j in range(8)]
    rows += [row(("c", i), 1, at=i) for i in range(360)]
    slow = lane("slow", found(rows, case=case))
    assert (slow.n, slow.verdict) == (40, Verdict.HARM)
    assert "40 calls over 1 ms of the candidate" in slow.reason
    assert [one.name for one in found(rows).lanes] == ["errors", "sample_ratio", "quality"]


def test_the_sample_ratio_counts_entities_at_the_weight_they_were_first_seen_at() -> None:
    even = [row(i, 1, at=i) for i in range(90)] + [row(1_000 + i, 2, at=i) for i in range(10)]
    assert lane("sample_ratio", found(even)).verdict is Verdict.OK
    loud = even + [row(2_000 + i, 2, key="one", at=i) for i in range(500)]
    assert lane("sample_ratio", found(loud)).verdict is Verdict.OK
    skewed = even + [row(2_000 + i, 2, at=i) for i in range(60)]
    assert lane("sample_ratio", found(skewed)).verdict is Verdict.INVALID


def test_a_non_finite_output_where_the_champion_answered_is_a_hard_stop() -> None:
    rows = [row(1, 1), row(1, 2, "shadow", status="nonfinite", score=None)]
    assert found(rows).hard_stop == "the candidate gave a non-finite output for 1; the champion answered it"
    both = [row(1, 1, status="nonfinite"), row(1, 2, "shadow", status="nonfinite")]
    assert found(both).hard_stop == ""


def test_half_of_the_first_twenty_rows_bad_is_a_hard_stop() -> None:
    def rows(bad: int) -> list[dict[str, object]]:
        mine = [row(i, 2, "shadow", status="error" if i < bad else "ok", at=i, weight=0) for i in range(20)]
        return mine + [row(i, 1, at=i, weight=0) for i in range(20)]

    assert found(rows(9)).hard_stop == ""
    assert found(rows(10)).hard_stop.startswith("10 of the candidate's first 20 rows were bad")


def scored(n: int, mine: float, theirs: float, at: int = 0) -> list[dict[str, object]]:
    rows = [row(i, 1, score=theirs, at=at, weight=0) for i in range(n)]
    return rows + [row(i, 2, "shadow", score=mine, at=at, weight=0) for i in range(n)]


def test_quality_is_the_paired_difference_of_the_loss_on_labelled_rows() -> None:
    labels = {str(i): ("yes", DAY_MS) for i in range(50)}
    quality = lane("quality", found(scored(80, 0.4, 0.9), labels))
    assert (quality.n, quality.verdict) == (50, Verdict.HARM)
    assert quality.value == pytest.approx(0.6**2 - 0.1**2)
    better = lane("quality", found(scored(80, 0.9, 0.4), labels))
    assert (better.verdict, better.bounded) == (Verdict.OK, True)
    assert "not worse" in better.reason


def test_harm_may_be_seen_on_immature_labels_and_nothing_else() -> None:
    young = CASE.now_ms - DAY_MS + 1
    labels = {str(i): ("yes", young) for i in range(50)}
    findings = found(scored(50, 0.4, 0.9, young), labels)
    assert (findings.mature_labels, lane("quality", findings).verdict) == (0, Verdict.HARM)
    fine = lane("quality", found(scored(50, 0.9, 0.4, young), labels))
    assert (fine.verdict, fine.bounded, fine.value) == (Verdict.UNKNOWN, False, None)
    assert "none of the labels is mature" in fine.reason


def test_labels_that_come_for_one_arm_only_make_the_lane_invalid() -> None:
    rows = []
    for i in range(400):
        mine = i % 2 == 0
        rows.append(row(i, 2 if mine else 1, weight=5_000, score=0.9, at=i))
        rows.append(row(i, 1 if mine else 2, "shadow", weight=5_000, score=0.5, at=i))
    quality = lane("quality", found(rows, {str(i): ("yes", 0) for i in range(1, 400, 2)}))
    assert (quality.verdict, quality.bounded) == (Verdict.INVALID, False)
    assert quality.reason.startswith("labels do not come evenly: 0 of 200 are the candidate's")


def test_other_tasks_and_unknown_classes() -> None:
    numbers = replace(BUNDLE, schema=Schema((), Task.REGRESSION, "y"), loss_scale=10.0)
    case = replace(CASE, champion=Side(1, numbers), candidate=Side(2, numbers))
    labels = {str(i): ("4.0", 0) for i in range(10)}
    assert lane("quality", found(scored(10, 5.0, 9.0), labels, case)).value == pytest.approx(0.1 - 0.5)
    classes = replace(BUNDLE, schema=Schema((), Task.MULTICLASS, "y", ("a", "b", "c")))
    case = replace(CASE, champion=Side(1, BUNDLE), candidate=Side(2, classes))
    rows = [row(1, 1, score=0.5), row(1, 2, "shadow", scores=[0.0, 0.0, 1.0])]
    assert lane("quality", found(rows, {"1": ("c", 0)}, case)).value == -1


def test_numbers_read_as_in_the_reports() -> None:
    assert [number(x) for x in (0.5, -0.05, 2.14, 12_345.6, 1e9, 0.0)] == [
        ".5",
        "-.05",
        "2.14",
        "12,346",
        "1.0e+09",
        "0",
    ]
    assert interval(0.25, float("inf")) == "[.25, ∞]"
