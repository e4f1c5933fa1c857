"""Made-up but plausible input for the reports: two and a half years of a model's life, a release, a run."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from homeostat.domain.backtest import (
    Backtested,
    BacktestResult,
    Calls,
    Expected,
    Latency,
    Outputs,
    Recorded,
    Segment,
    Shift,
)
from homeostat.domain.bundle import Version
from homeostat.domain.dataset import DatasetVersion
from homeostat.domain.event import Event
from homeostat.domain.failures import Failures, Help, Mode
from homeostat.domain.gate import GateResult, Measurement, Verdict
from homeostat.domain.moved import Explained, Part, Ranked
from homeostat.domain.outlook import Assumed, Forecast, Outlook, Pace, Turn
from homeostat.domain.rehearsal import Course, RehearsalResult
from homeostat.domain.report import Delays, MonitorReport, Needs, Stretch
from homeostat.domain.rollout import Do, Lane, Move, ReleaseStep, Rollout, Status, StepKind
from homeostat.domain.run import CodeState, RunResult, Step
from homeostat.domain.units import DAY_MS, HOUR_MS, MINUTE_MS
from homeostat.engines.report import ReleaseView, RunExtra, Snapshot, backtest_sentence

START = 839_376_000_000  # 7 Aug 1996
DAYS = 913
STEPS = (
    ReleaseStep(StepKind.SHADOW, 0),
    ReleaseStep(StepKind.CANARY, 1_000),
    ReleaseStep(StepKind.CANARY, 5_000),
    ReleaseStep(StepKind.PROBATION, 10_000),
)


def version(number: int) -> Version:
    return Version("price", number, f"{number:02x}" * 32, f"run-{number:04d}")


def release(number: int, started_ms: int, status: Status) -> Rollout:
    reason = {
        Status.PROMOTED: "No worse than the champion: mean loss difference -.011 [-.019, -.003], 1,185 labels.",
        Status.ROLLED_BACK: "Harm in quality: E = 212, harm at 50, 310 labels.",
    }[status]
    ended = started_ms + (9 if status is Status.PROMOTED else 3) * DAY_MS
    champion = version(number - 1) if number > 1 else None
    return Rollout(
        f"R{number}", "price", champion, version(number), STEPS, 3, status, started_ms, ended, "s", 9_000, reason, ended
    )


def curve(level: float, fall: float, phase: float) -> tuple[tuple[int, Measurement], ...]:
    """Two weeks a point: a level, a fall over the years, a wobble. The third point could not be measured."""
    points = []
    for k in range(DAYS // 14):
        value = level - fall * (1 - math.exp(-k / 20)) + 0.018 * math.sin(k * 0.9 + phase) + 0.012 * math.sin(k * 2.3)
        measured = Measurement("roc_auc", value, value - 0.021, value + 0.021, 672)
        points.append((START + k * 14 * DAY_MS, measured))
    points[2] = points[2][0], Measurement("roc_auc", math.nan, math.nan, math.nan, 0)
    return tuple(points)


def course(whole: float, trainings: int, fall: float, phase: float) -> Course:
    measured = Measurement("roc_auc", whole, whole - 0.006, whole + 0.006, 43_632)
    return Course(measured, curve(0.87, fall, phase), trainings, 4_000 * trainings)


def life(releases: tuple[Rollout, ...]) -> Iterator[Event]:
    for k, one in enumerate(releases):
        cause = f"ROC AUC fell by .0{k % 4 + 2} (E = {40 + 7 * k}, harm at 50)"
        yield Event(one.started_ms, "price", "training.done", f"t{k}", one.candidate.run, cause)
        ended = one.ended_ms or 0
        kind = "release.promoted" if one.status is Status.PROMOTED else "release.rolled_back"
        yield Event(ended, "price", kind, f"r{k}", one.id, one.reason)
    for k in range(6):
        at = START + (60 + 140 * k) * DAY_MS
        yield Event(at, "price", "alert.opened", f"a{k}", "drift", "nswprice moved: KS D .11, p .0004, 336 rows.")


def rehearsal() -> RehearsalResult:
    releases = tuple(
        release(n, START + (n * 29 + (n * 7) % 11) * DAY_MS, Status.ROLLED_BACK if n in (9, 22) else Status.PROMOTED)
        for n in range(1, 31)
    )
    return RehearsalResult(
        model="price",
        higher_is_better=True,
        from_ms=START,
        until_ms=START + DAYS * DAY_MS,
        rows=43_824,
        period_ms=14 * DAY_MS,
        label_horizon_ms=DAY_MS,
        seed=1,
        loop=course(0.842, 31, 0.03, 0.0),
        frozen=course(0.748, 1, 0.16, 1.0),
        weekly=course(0.853, 122, 0.02, 0.4),
        events=tuple(sorted(life(releases), key=lambda event: event.at_ms)),
        releases=releases,
        settled=0,
        failed_requests=0,
        wall_ms=184_000,
    )


def run() -> tuple[RunResult, RunExtra]:
    auc = Measurement("roc_auc", 0.842, 0.836, 0.848, 1_185)
    recall = Measurement("recall", 0.61, 0.55, 0.67, 214)
    gates = (
        GateResult("roc_auc", Verdict.OK, "ROC AUC .842 [.836, .848] is at least .800.", auc),
        GateResult("roc_auc versus champion", Verdict.OK, "Better by .011 [.004, .018].",
                   Measurement("roc_auc", 0.011, 0.004, 0.018, 1_185)),
        GateResult("recall", Verdict.UNKNOWN, "Recall .610 [.550, .670] could lie on either side of .600.", recall),
        GateResult("latency", Verdict.INVALID, "The model was not called: no holdout row."),
    )  # fmt: skip
    steps = tuple(
        Step(name, f"{k:x}" * 64, k < 2, 40 * 7**k) for k, name in enumerate(("rows", "split", "model", "scores"))
    )
    dataset = DatasetVersion("price", 4, "c0ffee" * 10, 45_312, START, START + DAYS * DAY_MS)
    code = CodeState("0123456789abcdef", "-rate = 1\n+rate = '<b>2</b>'", {"notes.py": "f" * 64})
    limits = {"roc_auc": 0.8, "roc_auc versus champion": -0.005, "recall": 0.6}
    others = (Measurement("log_loss", 0.481, 0.47, 0.492, 1_185), Measurement("brier", 0.156, math.nan, math.nan, 39))
    result = RunResult("run-0007", dataset, steps, (auc, recall, *others), gates, version(7), "")
    return result, RunExtra("price", START + 400 * DAY_MS, code, limits)


def canary() -> ReleaseView:
    """Ten hours of a release that does harm in the end."""
    snapshots = []
    for k in range(40):
        weight = 0 if k < 8 else 1_000 if k < 24 else 5_000
        e = math.exp(max(0, k - 20) * 0.26) * (0.6 + 0.3 * math.sin(k))
        n, ratio, reach = 12 * k + 5, 1 + max(0, k - 18) * 0.06, 1.6 / math.sqrt(k + 1)
        said = Verdict.HARM if e >= 100 else Verdict.UNKNOWN if k < 10 else Verdict.OK
        errors = Lane("errors", said, f"{n} errors seen.", n, e, 100, ratio, ratio - reach, ratio + reach)
        quality = Lane("quality", Verdict.UNKNOWN, "212 of about 600 labels needed.", 5 * k, 0.9, 50,
                       -0.004, -0.004 - reach / 20, -0.004 + reach / 20)  # fmt: skip
        snapshots.append(Snapshot(START + k * 15 * MINUTE_MS, weight, 150 * k, (errors, quality)))
    until = START + 10 * HOUR_MS
    record = replace(
        release(4, START, Status.ROLLED_BACK), ended_ms=until, reason="Harm in errors: E = 113, harm at 100"
    )
    kinds = ((0, "started"), (8, "advanced"), (24, "advanced"), (40, "rolled_back"))
    history = [
        Event(START + k * 15 * MINUTE_MS, "price", f"release.{kind}", f"{k}", "R4", f"Pass {k}: {kind}.")
        for k, kind in kinds
    ]
    needs = Needs({"amount": 0.05, "hour": 0.01}, 3, {"amount": 0.04, "hour": 0.02}, 1.0)
    return ReleaseView(record, snapshots, history, needs=needs)


def tried(passed: bool) -> ReleaseView:
    """A release after its backtest: held at 10 %, or ended by it."""
    if passed:
        return replace(held(), backtest=replace(backtest(), verdict=Verdict.OK))
    view = canary()
    first = ReleaseStep(StepKind.BACKTEST, 0)
    record = replace(view.rollout, steps=(first, *view.rollout.steps), index=0, reason="quality: harm (E = 212)")
    told = [Event(START, "price", "release.started", "k", "R7", "Version 7 against version 6.")]
    return ReleaseView(record, [], told, backtest=backtest())


def backtest() -> Backtested:
    """A candidate that is wrong in one country."""
    quality = Lane("quality", Verdict.HARM, "harm (E = 212)", 900, 212.0, 50.0, 0.06, 0.04, math.inf)
    outputs = Outputs(0, 3, 0)
    segments = (
        Segment("country", "pl", 410, 0.7, 0.01, 390, 3, 300, 0.5, 9e9),
        Segment("amount", "from 80", 99, 0.1, 0.08, 9, 0),
    )
    result = BacktestResult(
        model="price",
        champion=6,
        candidate=7,
        recorded=Recorded(START, START + 7 * DAY_MS, 1_000, 990, 4, 6, 2, 1, 143.0),
        shift=Shift(987, 390, (("DOWN", "UP", 390),), 0.4, 0.45, 0.21, 0.08),
        champion_outputs=Outputs(0, 0, 0),
        candidate_outputs=outputs,
        missing={"holiday": 4},
        segments=segments,
        lanes=(quality,),
        hard_stop="",
        labels=900,
        fresh=800,
        learned=90,
        expected=(Expected("shadow", Do.ROLL_BACK, 3 * HOUR_MS, "quality: harm."),),
        cannot_know=("who is right on 90 requests: their labels are not there",),
    )
    calls = tuple(Calls(version, batch, 500, 10.0, 20.0, 1_234.0) for batch in (1, 64) for version in (6, 7))
    latency = Latency(calls, 1_234, Lane("slow", Verdict.UNKNOWN, "no harm seen", 9, 1.1, 100.0, 1.0, 0.5, 2.0))
    return Backtested(result, latency, Verdict.HARM, backtest_sentence(result, latency))


def held() -> ReleaseView:
    """The same release, held at 10 %: quality is expected to decide in three days."""
    view = canary()
    seen = [
        replace(
            one,
            weight=min(one.weight, 1_000),
            lanes=(replace(one.lanes[0], verdict=Verdict.UNKNOWN, n=0), one.lanes[1]),
        )
        for one in view.snapshots
    ]
    now = seen[-1].at_ms
    due = START + 3 * DAY_MS
    forecasts = (
        Forecast("quality", Assumed.AS_NOW, -0.004, Verdict.OK, 0.82, 386, 123, 2_310, due, now + DAY_MS, due + DAY_MS),
        Forecast("quality", Assumed.AT_MARGIN, 0.005, Verdict.HARM, 0.97, 12_140, 8_160, 17_900,
                 START + 90 * DAY_MS, START + 60 * DAY_MS, START + 140 * DAY_MS),
    )  # fmt: skip
    turns = (
        Turn(Assumed.AS_NOW, due, Move(Do.ADVANCE, "", to=2)),
        Turn(Assumed.AT_MARGIN, START + 8 * DAY_MS, Move(Do.ASK, "")),
    )
    outlook = Outlook(START, 480.0, (Pace("quality", 130.0),), forecasts, turns)
    record = replace(view.rollout, status=Status.RUNNING, index=1, ended_ms=None, reason="")
    held_at = "Hold at 10 %: quality is not settled."
    return ReleaseView(record, seen, view.history[:2], held_at, outlook, {"quality": 0.005})


def failing() -> MonitorReport:
    """A model that fails on large amounts; its labels are late, and the newest windows only estimated."""
    level = Measurement("roc_auc", 0.84, 0.81, 0.87, 4_000)
    windows = [
        Stretch(
            START + day * DAY_MS,
            START + (day + 1) * DAY_MS,
            Measurement("roc_auc", 0.84 - day / 500, 0.80, 0.88, 300) if day < 24 else None,
            (0.845, 0.81, 0.88) if day else None,
            320,
            0.97 if day < 24 else 0.4,
        )
        for day in range(30)
    ]
    mode = Mode(
        segment="amount from 500 on and country is pl",
        fields=("amount", "country"),
        declared=False,
        n=412,
        share=0.103,
        inside=Measurement("roc_auc", 0.61, 0.52, 0.70, 206),
        outside=Measurement("roc_auc", 0.88, 0.86, 0.90, 1_794),
        excess=0.14,
        low=0.09,
        high=0.19,
        impact=57.7,
        learned=31,
        learned_share=0.004,
        examples=("p17", "p4"),
        help=Help.ROWS,
        because="only 31 of the rows it learned from are like these",
    )
    return MonitorReport(
        model="price",
        version=4,
        from_ms=START,
        until_ms=START + 30 * DAY_MS,
        higher_is_better=True,
        holdout=Measurement("roc_auc", 0.86, 0.84, 0.88, 3_000),
        now=level,
        calibration=Measurement("ece", 0.031, 0.02, 0.042, 4_000),
        windows=tuple(windows),
        failures=Failures((mode,), 12, 4_000, 0.13),
        delays=Delays(4_000, 9_600, 2 * DAY_MS, 9 * DAY_MS, 7 * DAY_MS, 0.91),
        needs=Needs({"amount": 0.05, "hour": 0.01}, 3, {"amount": 0.04, "hour": 0.02}, 1.0),
        value=Measurement("value", 1.4, 1.1, 1.7, 4_000),
    )


def moved() -> Explained:
    """A week in which one segment became worse."""
    part = Part(
        "amount from 500 on", ("amount",), 40, 0.2, 0.3, 0.1, 0.4, 0.005, 0.09, 0.05, 0.14, "p17"
    )  # fmt: skip
    calm = Part("amount below 500", ("amount",), 160, 0.8, 0.7, 0.05, 0.05, 0.0, 0.0, -0.01, 0.01)
    causes = (Ranked("within", part.segment, 0.095, "amount from 500 on: loss .100 before, .400 now", "p17"),)
    return Explained(START, START + 7 * DAY_MS, 4, 0.06, 0.155, 3_000, 200, (part, calm), causes)
