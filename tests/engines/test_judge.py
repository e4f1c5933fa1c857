"""Judging pass after pass says what judging everything at once says, to the last bit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from test_lanes import CARE, TYPES, row

from homeostat.domain.prediction import SETTLED_MS
from homeostat.domain.units import MINUTE_MS
from homeostat.engines import judge as judged
from homeostat.engines.judge import Judge, judge

REQUESTS, PASSES, LIFE_MS = 250, 8, 20 * MINUTE_MS
CASE = replace(CARE, slow_us=300, weight=5_000, horizon_ms=5 * MINUTE_MS)
Rng = np.random.Generator


def logged(rng: Rng) -> pl.DataFrame:
    """In order of time; `seen_ms`: when the row is in the log, less than `SETTLED_MS` later. Ids and callers that come
    again, failures on both arms, probabilities that are none, rows of another version."""
    rows: list[dict[str, object]] = []
    for at in np.sort(rng.integers(0, LIFE_MS, REQUESTS)).tolist():
        number, mine = int(rng.integers(REQUESTS // 2)), bool(rng.random() < 0.5)
        key = f"k{number % 40}" if rng.random() < 0.7 else None
        weight, country = int(rng.choice([0, 1_000, 5_000, 10_000])), str(rng.choice(["AT", "FR", "XX"]))
        for version in (1, 2, int(rng.integers(1, 4))):
            role = "answer" if version == 1 + mine else "shadow"
            status = str(rng.choice(["ok", "error", "nonfinite"], p=[0.97, 0.025, 0.005]))
            score, us = round(float(rng.random()), 2) + (rng.random() < 0.003), int(rng.integers(1, 5)) * 100
            known = {"at": at, "key": key, "weight": weight, "country": country}
            rows.append(row(number, version, role, status=status, score=score, us=us, **known))
    seen = [int(str(one["at_ms"])) + int(rng.integers(SETTLED_MS)) for one in rows]
    return pl.DataFrame(rows, TYPES).with_columns(seen_ms=pl.Series(seen))


def labels_at(rng: Rng, before: dict[str, str]) -> dict[str, str]:
    """Some come, whatever their rows' age; some are corrected, some held back; some know no row."""
    now = dict(before)
    for number in rng.integers(0, REQUESTS * 2 // 3, int(rng.integers(0, 40))).tolist():
        now[str(number)] = str(rng.choice(["yes", "no", "perhaps"], p=[0.45, 0.45, 0.1]))
    for gone in rng.choice(sorted(now), min(len(now), 5), replace=False).tolist() if rng.random() < 0.5 else []:
        del now[gone]
    return dict(sorted(now.items(), key=lambda _: rng.random())) if rng.random() < 0.2 else now


def frame(labels: dict[str, str]) -> pl.DataFrame:
    return pl.DataFrame({"id": [*labels], "label": [*labels.values()]}, {"id": pl.String, "label": pl.String})


@pytest.mark.parametrize("seed", range(12))
def test_pass_after_pass_as_all_at_once(seed: int) -> None:
    """At random moments, with rows that settle in between, and steps of other weights."""
    rng = np.random.default_rng(seed)
    log, kept, told = logged(rng), Judge(), dict[str, str]()
    for now_ms in np.sort(rng.integers(0, LIFE_MS + 2 * SETTLED_MS, PASSES)).tolist():
        told = labels_at(rng, told)
        case = replace(CASE, now_ms=now_ms, weight=int(rng.choice([1_000, 5_000])))
        seen = log.filter(pl.col("seen_ms") <= now_ms).drop("seen_ms")
        assert kept.judge(case, seen, frame(told)) == judge(case, seen, frame(told))
    assert kept.judge(case, seen, frame(told)) == judge(case, seen, frame(told))


def test_only_what_is_touched_is_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [row(n, version, "answer" if version == 1 else "shadow", at=n) for n in range(500) for version in (1, 2)]
    log, case = pl.DataFrame(rows, TYPES), replace(CASE, now_ms=2 * SETTLED_MS)
    told, kept, sizes = {str(n): "yes" for n in range(400)}, Judge(), list[int]()
    compared = judged.lanes.compared

    def counted(case: judged.Case, log: pl.DataFrame) -> pl.DataFrame:
        sizes.append(log.height)
        return compared(case, log)

    kept.judge(case, log, frame(told))
    monkeypatch.setattr(judged.lanes, "compared", counted)
    found = kept.judge(case, log, frame({**told, "7": "no", "450": "yes"}))
    assert sum(sizes) == 4
    assert found.mature_labels == 0
    other = log.slice(2)
    assert kept.judge(case, other, frame(told)) == judge(case, other, frame(told))
