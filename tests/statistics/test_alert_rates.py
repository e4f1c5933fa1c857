"""False alerts in quiet weeks, by simulation: drift and broken columns over two window lengths, alerts as they open."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import polars as pl

from homeostat.domain.dataset import EVENT_MS
from homeostat.domain.monitor import Alert, Window
from homeostat.domain.policy import MonitorPolicy
from homeostat.domain.schema import Field, Kind, Schema, Task
from homeostat.domain.units import DAY_MS
from homeostat.engines import causes
from homeostat.engines.broken import faults, habits, plain, reach_ms
from homeostat.engines.budget import weekly
from homeostat.engines.drift import drift
from homeostat.engines.drift.profile import profile, reference

A_DAY, LEARNED, WEEKS = 48, 60, 30


def alerts(schema: Schema, frame: pl.DataFrame, until_ms: int, policy: MonitorPolicy) -> Mapping[str, int]:
    """Alerts that open after `until_ms`, by kind, where a model has learned from the rows before and answers 0."""
    at_ms = frame[EVENT_MS].to_numpy()
    cut = int(np.searchsorted(at_ms, until_ms))
    known, ordinary = frame[:cut], habits(schema, frame[:cut])
    expected = reference(schema, known, np.zeros((cut, 1)), policy.windows)
    inputs = pl.DataFrame([plain(frame[one.name], one.kind).alias(one.name) for one in schema.fields])
    made: list[Alert] = []
    broken = 0
    for end in range(until_ms + DAY_MS, int(at_ms[-1]) + 1, DAY_MS):
        first, start, last = np.searchsorted(at_ms, (end - reach_ms(ordinary, policy.windows), end - DAY_MS, end))
        broken += len(list(faults(ordinary, inputs[first:last], at_ms[first:last], int(at_ms[start]))))
        for length in policy.windows:
            if end % length == 0 and end - length >= until_ms:
                rows = inputs[int(np.searchsorted(at_ms, end - length)) : last]
                readings = drift(
                    expected, profile(expected, rows, np.zeros((len(rows), 1))), policy.false_alarms, length
                )
                settled = causes.settle(made, readings, Window(end - length, end))
                closed = {one.key for one in settled.over}
                made = [one if one.key not in closed else _closed(one, end) for one in made]
                if settled.columns:
                    made.append(
                        Alert(str(len(made)), "", "", end, kind="inputs", columns=settled.columns, window_ms=length)
                    )
    return {"inputs": len(made), "broken": broken}


def _closed(alert: Alert, at_ms: int) -> Alert:
    return Alert(alert.key, "", "", alert.opened_ms, at_ms, kind=alert.kind, columns=alert.columns)


def quiet(rng: np.random.Generator) -> pl.DataFrame:
    """Seven numbers with a course of the day, one that keeps its value for hours, two texts, gaps; days wobble."""
    n = (LEARNED + 7 * WEEKS) * A_DAY
    at = np.arange(n) * (DAY_MS // A_DAY)
    course, wobble = np.sin(at / DAY_MS * 2 * np.pi), np.repeat(rng.normal(0, 0.05, n // A_DAY), A_DAY)
    numbers = {f"x{k}": k * course / 7 + wobble + rng.normal(0, 1, n) for k in range(7)}
    gaps = np.where(rng.random(n) < 0.02, np.nan, numbers["x0"])
    slow = np.repeat(rng.integers(0, 4, n // 4), 4).astype(float)
    texts = {f"t{k}": rng.choice(["a", "b", "c", "d"], n, p=[0.5, 0.3, 0.15, 0.05]) for k in range(2)}
    return pl.DataFrame({**numbers, "x0": gaps, "slow": slow, **texts, EVENT_MS: at})


def test_quiet_weeks_stay_in_their_budget() -> None:
    """The budget is .08 alerts a week: 2.4 in 30 weeks. More than 6 have a chance of 1 %; nothing is ever broken."""
    frame = quiet(np.random.default_rng(11))
    kinds = {name: Kind.NUMBER if name[0] in "xs" else Kind.TEXT for name in frame.columns if name != EVENT_MS}
    schema = Schema(tuple(Field(name, kind, nullable=True) for name, kind in kinds.items()), Task.REGRESSION, "y")
    policy = MonitorPolicy()
    found = alerts(schema, frame, LEARNED * DAY_MS, policy)
    assert abs(weekly(policy)["drift"] - 0.08) < 1e-12
    assert found["broken"] == 0
    assert found["inputs"] <= 6
