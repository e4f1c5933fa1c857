"""Gates: may this candidate be registered? A threshold, or a comparison with the champion on the same rows."""

from __future__ import annotations

import math

import numpy as np

from homeostat.domain.gate import GateResult, Measurement, Verdict
from homeostat.domain.policy import GatePolicy
from homeostat.engines.metrics import BLOCKS, T_19, Array, known

MIN_ROWS = 2 * BLOCKS


def threshold(gate: GatePolicy, measured: Measurement) -> list[GateResult]:
    """One result a bound. `harm` only when the whole 95 % interval lies beyond it, `ok` only when none of the
    interval does; `unknown` between; `invalid` when the value could not be measured."""
    bounds = (("at_least", gate.at_least, 1.0), ("at_most", gate.at_most, -1.0))
    return [_bound(measured, name, bound, sign) for name, bound, sign in bounds if bound is not None]


def _bound(measured: Measurement, name: str, bound: float, sign: float) -> GateResult:
    gate = f"{measured.metric} {name.replace('_', ' ')} {bound:g}"
    if not math.isfinite(measured.value):
        return GateResult(gate, Verdict.INVALID, f"{measured.metric} could not be measured", measured)
    if not math.isfinite(measured.low):
        reason = f"{measured.n} rows are too few for an interval; {MIN_ROWS} are needed"
        return GateResult(gate, Verdict.UNKNOWN, reason, measured)
    worst, best = sorted((sign * measured.low, sign * measured.high))
    limit = sign * bound
    verdict = Verdict.OK if worst >= limit else Verdict.HARM if best < limit else Verdict.UNKNOWN
    said = {Verdict.OK: "holds", Verdict.HARM: "is missed", Verdict.UNKNOWN: "is inside the interval: undecided"}
    return GateResult(gate, verdict, f"{measured}; the bound {bound:g} {said[verdict]}", measured)


def difference(metric: str, y: Array, candidate: Array, champion: Array) -> Measurement:
    """How much better the candidate is on the same rows, in the metric's unit (positive: better), with a 95 %
    interval by the paired delete-a-block jackknife over 20 contiguous blocks (Künsch 1989). `y` is (n,), the outputs
    are (n, c). NaN interval below 40 rows."""
    found = known(metric)
    sign = 1.0 if found.higher_is_better else -1.0

    def gap(rows: slice | np.ndarray[tuple[int], np.dtype[np.bool_]]) -> float:
        return sign * (found.function(y[rows], candidate[rows]) - found.function(y[rows], champion[rows]))

    if len(y) < MIN_ROWS:
        value = gap(slice(None)) if len(y) else float("nan")
        return Measurement(metric, value, float("nan"), float("nan"), len(y))
    value = gap(slice(None))
    blocks = np.arange(len(y)) * BLOCKS // len(y)
    spread = np.array([gap(blocks != block) for block in range(BLOCKS)])
    error = T_19 * float(np.sqrt((BLOCKS - 1) / BLOCKS * np.sum((spread - spread.mean()) ** 2)))
    return Measurement(metric, value, value - error, value + error, len(y))


def versus(gate: GatePolicy, gap: Measurement) -> GateResult:
    """`gap` is how much better the candidate is. `harm`: surely worse by more than the margin; `ok`: surely not."""
    name = f"{gate.metric} versus champion"
    if not math.isfinite(gap.value):
        return GateResult(name, Verdict.INVALID, f"{gate.metric} could not be compared on {gap.n} rows", gap)
    if not math.isfinite(gap.low):
        return GateResult(name, Verdict.UNKNOWN, f"{gap.n} rows to compare; {MIN_ROWS} are needed", gap)
    verdict = Verdict.OK if gap.low >= -gate.margin else Verdict.HARM if gap.high < -gate.margin else Verdict.UNKNOWN
    reason = f"better by {gap.value:+.3g} [{gap.low:+.3g}, {gap.high:+.3g}] on {gap.n:,} rows; margin {gate.margin:g}"
    return GateResult(name, verdict, reason, gap)


def no_champion(gate: GatePolicy) -> GateResult:
    return GateResult(f"{gate.metric} versus champion", Verdict.OK, "no champion yet")
