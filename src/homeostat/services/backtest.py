"""Backtests: of a release before its live steps, on demand, and of one recorded request."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from homeostat.domain.backtest import Backtested, Calls, Latency, Replayed
from homeostat.domain.bundle import Version
from homeostat.domain.errors import DataError, HomeostatError
from homeostat.domain.gate import Verdict
from homeostat.domain.policy import Policy
from homeostat.domain.prediction import Role
from homeostat.domain.rollout import Lane, Rollout
from homeostat.domain.trace import Score, Trace
from homeostat.domain.units import ALL, DAY_MS, HOUR_MS
from homeostat.engines import lanes
from homeostat.engines.answer import answers
from homeostat.engines.backtest import scored
from homeostat.engines.report import backtest_sentence
from homeostat.ports import Clock, LabelLog, Model, PredictionLog, Progress, Runtime
from homeostat.services.bundles import Bundles
from homeostat.services.evidence_log import SLACK_US, answered
from homeostat.services.replay import TIMED, Arm, Replay, evenly, respond, typed

Times = NDArray[np.int64]

WINDOW_MS = 7 * DAY_MS
"""How far back the backtest of a release looks."""
EARLY = 20_000
"""Answers before a release that count in it, at most."""
_ALONE, _TOGETHER = 1, 64
_WARM = 20  # calls that are not counted
_PATIENCE_NS = 2_000_000_000  # for all calls of one size


def _always(_release: Rollout) -> int:
    return 0


class Backtests:
    """Reads only; what is kept here is the work of a release's backtest under way. After a crash it begins anew, on the
    same requests. `since`: from when on recorded requests say anything of a release; those that chose it do
    not, nor those of a world that went.
    """

    def __init__(
        self,
        policy: Policy,
        log: PredictionLog,
        labels: LabelLog,
        bundles: Bundles,
        runtime: Runtime,
        clock: Clock,
        since: Callable[[Rollout], int] = _always,
    ) -> None:
        self.policy, self.log, self.labels = policy, log, labels
        self.bundles, self.runtime, self.clock, self.since = bundles, runtime, clock, since
        self._under_way: tuple[str, Replay] | None = None

    def between(
        self, champion: Version, candidate: Version, start_ms: int, end_ms: int, progress: Progress
    ) -> Backtested:
        """All at once. Errors: `NotFound` and `Corrupt` for a champion that can't be read."""
        replay = self._replay(champion, candidate, start_ms, end_ms)
        while not replay.turn():
            progress(replay.at_ms - start_ms, end_ms - start_ms, f"{replay.comparison.n:,} requests")
        return self._done(replay)

    def work(self, release: Rollout) -> Backtested | None:
        """A piece of a release's backtest, on the week before it was started, as far as `since` goes back. → None
        while there is more to do."""
        if release.champion is None:
            raise ValueError("the first release of a model has nobody to be compared with")
        if self._under_way is None or self._under_way[0] != release.id:
            end_ms = release.started_ms
            start_ms = max(end_ms - WINDOW_MS, self.since(release))
            self._under_way = release.id, self._replay(release.champion, release.candidate, start_ms, end_ms)
        replay = self._under_way[1]
        if not replay.turn():
            return None
        self._under_way = None
        return self._done(replay)

    def early(self, release: Rollout) -> pl.DataFrame:
        """The last week's answers of the champion that neither version has learned from, as if the shadow had begun
        then: the rows of the log, of `release` at weight 0, and the candidate's score beside each. Their labels mature
        a label horizon sooner than those of the first live rows do. Without those that the log does not hold as they
        were served. Errors: `NotFound`, `Corrupt`."""
        if release.champion is None:
            raise ValueError("the first release of a model has nobody to be compared with")
        end_ms, arm = release.started_ms, self._arm(release.candidate)
        learned_ms = max(arm.bundle.trained_until_ms, self.bundles.load(release.champion.bundle).trained_until_ms)
        start_ms = max(end_ms - WINDOW_MS, learned_ms + 1, self.since(release))
        rows = self._newest(release.champion.number, start_ms, end_ms)
        rows = rows.with_columns(release=pl.lit(release.id), weight=pl.lit(0, pl.Int64))
        if rows.is_empty() or self.policy.log.hidden.intersection(arm.bundle.schema.names):
            return rows.clear()
        columns = {field.name: typed(rows["inputs"], field) for field in arm.bundle.schema.fields}
        given, _ = respond(arm, columns, rows.height)
        return pl.concat([rows, rows.with_columns(scored(arm.side, given, Role.SHADOW))])

    def _newest(self, version: int, start_ms: int, end_ms: int) -> pl.DataFrame:
        """What the version answered last, `EARLY` rows: read backwards in growing stretches, for a week may be much."""
        found, length = answered(self.log.read(self.policy.name, end_ms, end_ms)), HOUR_MS
        while end_ms > start_ms and found.height < EARLY:
            begin = max(start_ms, end_ms - length)
            rows = answered(self.log.read(self.policy.name, begin, end_ms))
            mine = rows.filter((pl.col("version") == version) & (pl.col("status") == "ok"))
            found = pl.concat([mine, found], how="diagonal_relaxed")
            end_ms, length = begin, 2 * length
        return found.unique("id", maintain_order=True).tail(EARLY)

    def one(self, trace: Trace, release: Rollout) -> Replayed:
        """The request of a prediction through the bundle of another release. Errors: `DataError` when it can't be
        put again; `NotFound`, `Corrupt`."""
        recorded = next((one for one in trace.scores if one.role == Role.ANSWER), None)
        where = f"prediction {trace.id}"
        if recorded is None:
            raise DataError("no model saw this request", where=where, way_out="Take one that was answered.")
        arm = self._arm(release.candidate)
        hidden = sorted(self.policy.log.hidden.intersection(arm.bundle.schema.names))
        if hidden:
            way_out = "log.drop and log.hash name what is not to be kept."
            raise DataError(f"{hidden[0]} is not in the log as it was served", where=where, way_out=way_out)
        inputs = pl.DataFrame([trace.inputs], strict=False).to_struct("inputs")
        given, _ = respond(arm, {field.name: typed(inputs, field) for field in arm.bundle.schema.fields}, 1)
        status = "ok" if given.good[0] else "error" if given.raised[0] else "nonfinite"
        said = answers(arm.bundle.schema, arm.bundle.threshold, np.nan_to_num(given.output))
        score, label, scores = (said.score[0], said.label[0], said.scores[0]) if given.good[0] else (None, None, None)
        replayed = Score(arm.version.number, "replay", status, score, label, tuple(scores) if scores else None)
        return Replayed(trace.id, trace.at_ms, trace.inputs, recorded, release.id, replayed)

    def _replay(self, champion: Version, candidate: Version, start_ms: int, end_ms: int) -> Replay:
        """A candidate whose model can't be loaded fails on every request."""
        try:
            arm = self._arm(candidate)
        except HomeostatError as error:
            arm = Arm(candidate, self.bundles.load(candidate.bundle), _failing(error))
        return Replay(self.policy, self.log, self.labels, self._arm(champion), arm, start_ms, end_ms)

    def _arm(self, version: Version) -> Arm:
        bundle = self.bundles.load(version.bundle)
        return Arm(version, bundle, self.runtime.load(self.bundles.file(bundle, "model.onnx")))

    def _done(self, replay: Replay) -> Backtested:
        result, latency = replay.result(), self._latency(replay)
        made = Backtested(result, latency, Verdict.UNKNOWN, backtest_sentence(result, latency))
        return Backtested(result, latency, _verdict(made), made.sentence)

    def _latency(self, replay: Replay) -> Latency:
        """Both models on the same requests, by turns, so that what slows the machine down slows both."""
        if not any(len(old) for old, _ in replay.timed):
            return Latency((), 0, None)
        seen = [np.concatenate(side) for side in zip(*replay.timed, strict=True)]
        arms = list(zip((replay.champion, replay.candidate), seen, strict=True))
        alone, together = (self._timed(arms, size) for size in (_ALONE, _TOGETHER))
        limit = int(np.quantile(alone[0], 0.99)) + SLACK_US  # as live: what would pass there is not refused here
        found = (
            (arm, size, times)
            for size, both in ((_ALONE, alone), (_TOGETHER, together))
            for (arm, _), times in zip(arms, both, strict=True)
        )
        return Latency(tuple(_calls(*one) for one in found), limit, _slow(replay, alone, limit))

    def _timed(self, arms: Sequence[tuple[Arm, NDArray[np.float32]]], size: int) -> tuple[Times, Times]:
        """Microseconds of each call with `size` rows."""
        n = len(arms[0][1])
        starts = evenly(np.arange(n), TIMED // (1 if size == _ALONE else 10))
        took: list[tuple[int, int]] = []
        began = self.clock.timer_ns()
        for k, start in enumerate([*np.resize(starts, _WARM), *starts]):
            rows = np.arange(start, start + size) % n
            order = (0, 1) if k % 2 else (1, 0)
            pair = {i: self._call(arms[i][0].model, arms[i][1][rows]) for i in order}
            took.append((pair[0], pair[1]))
            passed = self.clock.timer_ns() - began
            if not passed:  # the clock is moved by hand: no call takes any time
                return np.zeros(len(starts), np.int64), np.zeros(len(starts), np.int64)
            if passed > _PATIENCE_NS and k > _WARM:
                break
        both = np.array(took[_WARM:], np.int64)
        return both[:, 0], both[:, 1]

    def _call(self, model: Model, x: NDArray[np.float32]) -> int:
        started = self.clock.timer_ns()
        model(x)
        return (self.clock.timer_ns() - started) // 1_000


def _failing(error: HomeostatError) -> Model:
    def fail(_x: NDArray[np.float32], /) -> NDArray[np.float64]:
        raise error

    return fail


def _verdict(made: Backtested) -> Verdict:
    """As the live rule: harm is harm; ok needs labels that say so."""
    if made.result.hard_stop or any(lane.verdict is Verdict.HARM for lane in made.lanes):
        return Verdict.HARM
    return next((lane.verdict for lane in made.lanes if lane.name == "quality"), Verdict.UNKNOWN)


def _calls(arm: Arm, size: int, times: Times) -> Calls:
    p50, p95, p99 = np.quantile(times, (0.5, 0.95, 0.99)).tolist()
    return Calls(arm.version.number, size, len(times), p50, p95, p99)


def _slow(replay: Replay, alone: tuple[Times, Times], limit: int) -> Lane:
    """The live rule for slow answers, over these calls: half of them are the candidate's."""
    made = [
        pl.DataFrame({"at_ms": np.arange(len(times)), "model_us": times}).with_columns(
            candidate=pl.lit(mine), weight=pl.lit(ALL // 2), role=pl.lit(Role.ANSWER.value), status=pl.lit("ok")
        )
        for mine, times in zip((False, True), alone, strict=True)
    ]
    return lanes.slow(lanes.calls(pl.concat(made), limit), limit, replay.comparison.case.bound)
