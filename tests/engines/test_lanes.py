"""Lanes from small logs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from homeostat.domain.bundle import Bundle
from homeostat.domain.gate import Verdict
from homeostat.domain.rollout import Lane
from homeostat.domain.schema import Field, Kind, Schema, Task
from homeostat.domain.units import DAY_MS, MINUTE_MS
from homeostat.engines import evidence, lanes
from homeostat.engines.judge import judge
from homeostat.engines.lanes import Case, Findings, Side, interval, number

BINARY = Schema((Field("x", Kind.NUMBER),), Task.BINARY, "y", ("no", "yes"))
BUNDLE = Bundle("price", BINARY, 0.5, 1.0, {}, "run", 0, 0)
CASE = Case(Side(1, BUNDLE), Side(2, BUNDLE), 1_000, 0, 0.005, DAY_MS, 10 * DAY_MS)
TYPES = {
    "id": pl.String,
    "key": pl.String,
    "at_ms": pl.Int64,
    "release": pl.String,
    "version": pl.Int64,
    "arm": pl.String,
    "role": pl.String,
    "weight": pl.Int64,
    "status": pl.String,
    "model_us": pl.Int64,
    "score": pl.Float64,
    "scores": pl.List(pl.Float64),
    "inputs": pl.Struct({"country": pl.String, "app": pl.String}),
}
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
    country: str | None = None,
    app: str | None = None,
) -> dict[str, object]:
    arm = arm or ("candidate" if (version == 2) == (role != "shadow") else "champion")
    return {
        "id": str(identity), "key": key, "at_ms": at, "release": "R2", "version": version, "arm": arm, "role": role,
        "weight": weight, "status": status, "model_us": us, "score": score, "scores": scores,
        "inputs": {"country": country, "app": app},
    }  # fmt: skip


def found(rows: list[dict[str, object]], labels: dict[str, tuple[str, int]] = NO_LABELS, case: Case = CASE) -> Findings:
    log = pl.DataFrame(rows, TYPES)
    received = [(identity, label, at) for identity, (label, at) in labels.items()]
    schema = {"id": pl.String, "label": pl.String, "at_ms": pl.Int64}
    return judge(case, log, pl.DataFrame(received, schema, orient="row"))


def lane(name: str, findings: Findings) -> Lane:
    return next(lane for lane in findings.lanes if lane.name == name)


def test_failed_attempts_count_against_the_candidate() -> None:
    rows = []
    for i in range(20):
        rows.append(row(i, 2, "failed", status="error", at=i * MINUTE_MS))
        rows.append(row(i, 1, arm="candidate", at=i * MINUTE_MS))
    rows += [row(100 + i, 1, at=i) for i in range(300)]
    errors = lane("errors", found(rows))
    assert (errors.n, errors.verdict) == (20, Verdict.HARM)
    assert errors.reason.startswith("harm (E = ")
    assert "harm at 100): 20 bad answers of the candidate, 0 of the champion" in errors.reason


@pytest.mark.parametrize("mine", [True, False])
@pytest.mark.parametrize("weight", [1_000, 5_000, 10_000])
def test_a_row_that_breaks_both_proves_nothing_whoever_had_to_answer_it(weight: int, mine: bool) -> None:
    """One caller with such a row every minute, on either arm, as the data plane logs it."""
    rows = []
    for i in range(240):
        known = {"weight": weight, "status": "error", "score": None, "at": i * MINUTE_MS, "key": "one"}
        if mine:
            rows += [row(i, 2, "failed", **known), row(i, 1, arm="candidate", **known)]
        elif weight < 10_000:
            rows += [row(i, 1, **known), row(i, 2, "shadow", **known)]
    errors = lane("errors", found(rows))
    assert errors.evidence <= 1
    assert errors.n == len(rows)


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


def test_too_much_memory_is_a_hard_stop() -> None:
    rows = [row(i, 1) for i in range(50)] + [row(7, 2, "failed", status="memory", score=None)]
    assert (
        found(rows).hard_stop
        == "the candidate took more memory than serving.memory leaves, at 7; the champion answered"
    )


def test_half_of_the_first_twenty_rows_bad_is_a_hard_stop() -> None:
    def rows(bad: int) -> list[dict[str, object]]:
        mine = [row(i, 2, "shadow", status="error" if i < bad else "ok", at=i, weight=0) for i in range(20)]
        return mine + [row(i, 1, at=i, weight=0) for i in range(20)]

    assert found(rows(9)).hard_stop == ""
    assert found(rows(10)).hard_stop.startswith("10 of the candidate's first 20 rows were bad")
    five = [one for one in rows(5) if one["version"] == 1 or one["status"] == "error"]
    assert found([*five, *five]).hard_stop == "", "five rows that come twice are not ten"


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


def of_both(n: int, mine: float, at: int) -> tuple[list[dict[str, object]], dict[str, tuple[str, int]]]:
    """Rows of both outcomes in turn: the champion is right by .9, the candidate by `mine`."""
    rows, labels = [], {}
    for i in range(n):
        yes = i % 2 == 0
        rows.append(row(i, 1, score=0.9 if yes else 0.1, at=at, weight=0))
        rows.append(row(i, 2, "shadow", score=mine if yes else 1 - mine, at=at, weight=0))
        labels[str(i)] = ("yes" if yes else "no", at)
    return rows, labels


def test_harm_may_be_seen_on_immature_labels_and_nothing_else() -> None:
    young = CASE.now_ms - DAY_MS + 1
    findings = found(*of_both(100, 0.4, young))
    assert (findings.mature_labels, lane("quality", findings).verdict) == (0, Verdict.HARM)
    fine = lane("quality", found(*of_both(100, 1.0, young)))
    assert (fine.verdict, fine.bounded, fine.value) == (Verdict.UNKNOWN, False, None)
    assert "none of the labels is mature" in fine.reason


@pytest.mark.parametrize("segments", [(), ("country",)])
def test_bad_news_that_comes_first_is_no_harm_until_the_rest_could_have_come(segments: tuple[str, ...]) -> None:
    """Frauds are known at once, the others at the horizon: the labels of one outcome alone are no sample."""
    young = CASE.now_ms - DAY_MS + 1
    case = replace(CARE, segments=segments)
    rows = [one | {"at_ms": young} for one in by_country(2_000, "FR")]
    name = "segments" if segments else "quality"
    assert lane(name, found(rows, all_yes(2_000), case)).verdict is Verdict.UNKNOWN
    ripe = replace(case, now_ms=case.now_ms + DAY_MS)
    assert lane(name, found(rows, all_yes(2_000), ripe)).verdict is Verdict.HARM


def test_labels_that_come_for_one_arm_only_make_the_lane_invalid() -> None:
    rows = []
    for i in range(400):
        mine = i % 2 == 0
        rows.append(row(i, 2 if mine else 1, weight=5_000, score=0.9, at=i))
        rows.append(row(i, 1 if mine else 2, "shadow", weight=5_000, score=0.5, at=i))
    quality = lane("quality", found(rows, {str(i): ("yes", 0) for i in range(1, 400, 2)}))
    assert (quality.verdict, quality.bounded) == (Verdict.INVALID, False)
    assert quality.reason.startswith("labels do not come evenly: 0 of 200 are the candidate's")


GUARDED = Schema(
    (
        Field("country", Kind.TEXT, vocabulary=("DE", "FR", "IT")),
        Field("app", Kind.BOOLEAN),
        Field("amount", Kind.NUMBER),
    ),
    Task.BINARY,
    "y",
    ("no", "yes"),
)
CARE = replace(
    CASE,
    champion=Side(1, replace(BUNDLE, schema=GUARDED)),
    candidate=Side(2, replace(BUNDLE, schema=GUARDED)),
    segments=("country",),
)
COUNTRIES: tuple[str | None, ...] = ("DE", "FR", "IT", "XX", None)


def by_country(n: int, worse: str | None, at: int = 0, app: str | None = None) -> list[dict[str, object]]:
    """Shadowed rows of five countries in turn; the candidate is right where the champion is, but in one of them."""
    rows = []
    for i in range(n):
        country = COUNTRIES[i % len(COUNTRIES)]
        mine = 0.4 if country == worse else 0.9
        rows.append(row(i, 1, score=0.9, at=at, weight=0, country=country, app=app))
        rows.append(row(i, 2, "shadow", score=mine, at=at, weight=0))
    return rows


def all_yes(n: int) -> dict[str, tuple[str, int]]:
    return {str(i): ("yes", DAY_MS) for i in range(n)}


@pytest.mark.parametrize(("worse", "named"), [("FR", "FR"), ("XX", "any other"), (None, "null")])
def test_harm_in_one_segment_is_harm_and_named(worse: str | None, named: str) -> None:
    found_in = lane("segments", found(by_country(500, worse), all_yes(500), CARE))
    assert (found_in.verdict, found_in.n, found_in.threshold) == (Verdict.HARM, 100, pytest.approx(500))
    assert found_in.reason.startswith(f"harm where country = {named}, 1 of 5 segments: country = {named} (E = ")
    assert "over 100 labels, harm at 500), mean difference of the loss .35 [" in found_in.reason
    assert found_in.value == pytest.approx(0.35)
    assert found_in.low is not None
    assert found_in.low > 0, "the interval excludes 0 where e-BH finds harm"


def test_the_interval_of_a_segment_excludes_0_just_where_e_bh_finds_harm() -> None:
    verdicts = set()
    for n in range(20, 200, 5):
        segments = lane("segments", found(by_country(n, "FR"), all_yes(n), CARE))
        assert segments.low is not None
        assert (segments.verdict is Verdict.HARM) is (segments.low > -1e-4)
        verdicts.add(segments.verdict)
    assert verdicts == {Verdict.HARM, Verdict.UNKNOWN}


def test_the_segments_of_several_inputs_are_tested_together() -> None:
    case = replace(CARE, segments=("country", "app"))
    both = lane("segments", found(by_country(500, "FR", app="false"), all_yes(500), case))
    assert both.reason.startswith("harm where country = FR and app = false, 2 of 9 segments: country = FR (E = ")
    assert both.threshold == pytest.approx(900 / 2)


def test_segments_without_harm_and_without_labels() -> None:
    care = replace(CARE, margin=0.02)
    fine = lane("segments", found(by_country(2_000, "no"), all_yes(2_000), care))
    assert (fine.verdict, fine.bounded) == (Verdict.OK, True)
    assert fine.reason.startswith("not worse in any of 5 segments with labels, 5 in all; the nearest to it: country = ")
    young = CASE.now_ms - DAY_MS + 1
    fresh = lane("segments", found(by_country(2_000, "no", young), all_yes(2_000), care))
    assert (fresh.verdict, fresh.bounded) == (Verdict.UNKNOWN, False)
    none = lane("segments", found(by_country(50, "FR"), case=CARE))
    assert (none.verdict, none.reason, none.n) == (Verdict.UNKNOWN, "none of 5 segments has labels", 0)


def test_what_cannot_be_guarded_is_said() -> None:
    for name, said in [
        ("amount", "monitor.segments names amount, a number; only texts and booleans make segments"),
        ("contry", "monitor.segments names contry, which is no input; the inputs are: country, app, amount"),
    ]:
        wrong = lane("segments", found(by_country(50, "FR"), all_yes(50), replace(CARE, segments=(name,))))
        assert (wrong.verdict, wrong.reason) == (Verdict.INVALID, said)


def test_without_guarded_inputs_there_is_no_lane_of_segments() -> None:
    assert "segments" not in {one.name for one in found(by_country(50, "FR"), all_yes(50)).lanes}


@pytest.mark.parametrize(("score", "stops"), [(1.2, True), (-0.1, True), (1 + 1e-9, False), (0.0, False), (1.0, False)])
def test_a_score_that_is_no_probability_is_a_hard_stop_where_the_champions_is_one(score: float, stops: bool) -> None:
    stop = found([row(1, 1), row(1, 2, "shadow", score=score)]).hard_stop
    assert stop == ("the candidate's output for 1 is no probability; the champion's is one" if stops else "")
    assert found([row(1, 1, score=score), row(1, 2, "shadow", score=score)]).hard_stop == ""


@pytest.mark.parametrize(
    ("scores", "stops"), [([0.2, 0.2, 0.2], True), ([1.2, -0.2, 0.0], True), ([0.2, 0.3, 0.5], False)]
)
def test_probabilities_of_several_classes_add_up_to_1(scores: list[float], stops: bool) -> None:
    classes = replace(BUNDLE, schema=Schema((), Task.MULTICLASS, "y", ("a", "b", "c")))
    case = replace(CASE, champion=Side(1, classes), candidate=Side(2, classes))
    good = [0.1, 0.1, 0.8]
    rows = [row(1, 1, score=0.8, scores=good), row(1, 2, "shadow", score=max(scores), scores=scores)]
    assert bool(found(rows, case=case).hard_stop) is stops


def test_a_regression_has_no_declared_range() -> None:
    numbers = replace(BUNDLE, schema=Schema((), Task.REGRESSION, "y"), loss_scale=10.0)
    case = replace(CASE, champion=Side(1, numbers), candidate=Side(2, numbers))
    assert found([row(1, 1, score=5.0), row(1, 2, "shadow", score=-1e6)], case=case).hard_stop == ""


statuses = st.sampled_from(("ok", "ok", "ok", "error", "timeout"))


@st.composite
def logs(draw: st.DrawFn) -> tuple[list[dict[str, object]], list[str]]:
    """Rows of a canary at two weights, each shadowed, some failed, some labelled."""
    rows, labelled = [], []
    for i in range(draw(st.integers(1, 40))):
        mine, weight, at = draw(st.booleans()), draw(st.sampled_from((0, 1_000, 5_000))), i * 20_000
        mine = mine and weight > 0
        key, country = draw(st.sampled_from((None, "a", "b"))), draw(st.sampled_from(COUNTRIES))
        first, second = (2, 1) if mine else (1, 2)
        status, shadow = draw(statuses), draw(statuses)
        role = "failed" if mine and status != "ok" else "answer"
        us, score = draw(st.integers(1, 5)) * 1_000, draw(st.sampled_from((0.1, 0.6, 0.9)))
        rows.append(
            row(i, first, role, weight=weight, status=status, at=at, us=us, key=key, score=score, country=country)
        )
        if role == "failed":
            rows.append(row(i, 1, arm="candidate", weight=weight, at=at, key=key, country=country))
        rows.append(row(i, second, "shadow", weight=weight, status=shadow, at=at, key=key, score=0.5))
        if draw(st.booleans()):
            labelled.append(str(i))
    return rows, labelled


@settings(max_examples=60, deadline=None)
@given(logs(), st.data())
def test_rows_that_come_twice_change_nothing(
    made: tuple[list[dict[str, object]], list[str]], data: st.DataObject
) -> None:
    """Exact under replays: a row is known by its prediction id and role, a label by its id. (`LabelLog.read` gives the
    last label of each id; see its suite.)"""
    rows, labelled = made
    again = data.draw(st.lists(st.sampled_from(rows), max_size=40))
    replayed = sorted([*rows, *again], key=lambda one: int(str(one["at_ms"])))
    case, labels = replace(CARE, slow_us=2_500), dict.fromkeys(labelled, ("yes", DAY_MS))
    assert found(replayed, labels, case) == found(rows, labels, case)


@settings(max_examples=40, deadline=None)
@given(logs(), st.data())
def test_the_counts_of_replicas_add_up_to_those_of_all(
    made: tuple[list[dict[str, object]], list[str]], data: st.DataObject
) -> None:
    """Rows of distinct entities, split over two replicas in any way: counts and tallies of the parts sum up."""
    rows, labelled = [one | {"key": None} for one in made[0]], made[1]
    ids = sorted({str(one["id"]) for one in rows})
    here = {one for one in ids if data.draw(st.booleans())}
    parts = [[one for one in rows if (one["id"] in here) is side] for side in (True, False)]
    labels = pl.DataFrame({"id": labelled, "label": ["yes"] * len(labelled)}, {"id": pl.String, "label": pl.String})
    counts, tallies = [], []
    for some in (rows, *parts):
        seen = lanes.compared(CARE, pl.DataFrame(some, TYPES))
        counts.append(lanes.error_counts(seen))
        tallies.append(evidence.tally(lanes.paired(CARE, seen, labels)["difference"].to_numpy()))
    assert evidence.merged(counts[0]) == evidence.merged(counts[1], counts[2])
    assert np.allclose(tallies[0], tallies[1] + tallies[2])


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
