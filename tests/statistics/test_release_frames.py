"""The lanes over a log in frames and the engine over the simulation's counters give the same numbers: so what the
simulations measure holds for the product."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from bench.evidence.releases import VALUES, Array, Events, Ints

from homeostat.domain.bundle import Bundle
from homeostat.domain.rollout import Lane
from homeostat.domain.schema import Field, Kind, Schema, Task
from homeostat.domain.units import MINUTE_MS
from homeostat.engines.evidence import combined, e_bh, log_growth, log_mean
from homeostat.engines.judge import judge
from homeostat.engines.lanes import SEGMENTS_ALPHA, SLOW_RATIO, Case, Side

MINUTES, PER_MINUTE, HORIZON = 90, 200, 40
N = MINUTES * PER_MINUTE
COUNTRIES = ("DE", "FR", "IT")
SCHEMA = Schema((Field("country", Kind.TEXT, vocabulary=COUNTRIES),), Task.BINARY, "y", ("no", "yes"))
BUNDLE = Bundle("pay", SCHEMA, 0.5, 1.0, {}, "run", 0, 0)
SLOW_US = 50_000


class Life:
    """One release, request by request: at 10 %, then at 50 %; three bad entities have bursts; labels come after an hour
    or at once, and say 0/1 losses, since the scores are 0 or 1."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.minute = np.repeat(np.arange(MINUTES), PER_MINUTE)
        self.weight = np.where(self.minute < MINUTES // 2, 1_000, 5_000)
        self.mine = rng.random(N) < self.weight / 10_000
        self.bad = rng.random(N) < np.where(self.mine, 0.03, 0.02)
        self.slow = rng.random(N) < 0.05
        self.country = rng.choice(3, N, p=(0.5, 0.3, 0.2))
        self.truth = rng.random(N) < 0.4
        self.right = rng.random((2, N)) < 0.9
        self.right[1] &= (self.country != 2) | (rng.random(N) < 0.8)
        self.labelled = rng.random(N) < 0.3
        self.burst = rng.choice(N, 12, replace=False)

    def frame(self) -> pl.DataFrame:
        """A row for each model that scored a request. A burst's entity sends its bad answer ten times a minute."""
        at = self.minute * MINUTE_MS + np.arange(N) % PER_MINUTE
        rows = {
            "id": [f"p{i}" for i in range(N)],
            "key": pl.Series([f"k{i}" for i in range(N)]),
            "at_ms": at,
            "arm": np.where(self.mine, "candidate", "champion"),
            "weight": self.weight,
            "model_us": np.where(self.slow, 80_000, 1_000) + np.arange(N) % PER_MINUTE,
            "country": [COUNTRIES[i] for i in self.country],
        }
        wide = pl.DataFrame(rows)
        parts = []
        for version, mine in ((1, ~self.mine), (2, self.mine)):
            score = np.where(self.right[version - 1], self.truth, ~self.truth).astype(float)
            shown = wide.with_columns(
                version=pl.lit(version),
                role=pl.Series(np.where(mine, "answer", "shadow")),
                status=pl.Series(np.where(mine & self.bad, "error", "ok")),
                score=pl.Series(score),
            )
            parts.append(shown)
        log = pl.concat(parts).with_columns(
            scores=pl.lit(None, pl.List(pl.Float64)),
            inputs=pl.when(pl.col("role") == "answer").then(pl.struct("country")),
        )
        bursts = log.filter(pl.col("id").is_in([f"p{i}" for i in self.burst]) & (pl.col("role") == "answer"))
        again = [
            bursts.with_columns(
                id=pl.col("id") + f"/{n}", status=pl.lit("error"), at_ms=pl.col("at_ms") + n % 2 * MINUTE_MS
            )
            for n in range(20)
        ]
        return pl.concat([log, *again]).sort("at_ms", maintain_order=True)

    def counted(self, which: Array) -> tuple[Ints, Ints]:
        """(1, minutes): how many of those requests each arm had in each minute."""
        made = [np.bincount(self.minute[which & arm], minlength=MINUTES)[None] for arm in (self.mine, ~self.mine)]
        return made[0], made[1]

    def errors(self) -> Events:
        mine, theirs = self.counted(self.bad)
        for i in self.burst:
            arm = mine if self.mine[i] else theirs
            arm[0, self.minute[i]] += not self.bad[i]
            arm[0, min(self.minute[i] + 1, MINUTES - 1)] += self.minute[i] + 1 < MINUTES
        return Events(self.weight[::PER_MINUTE], mine, theirs, self.counted(np.ones(N, bool)))

    def differences(self, country: int | None, outcome: bool | None, oldest: int) -> Ints:
        """(3, 1): how many labels gave each of the `VALUES`, of rows of those minutes."""
        both_ok = ~self.bad & self.labelled & (self.minute < oldest)
        where = both_ok & ((self.country == country) if country is not None else True)
        where &= (self.truth == outcome) if outcome is not None else True
        d = self.right[0][where].astype(int) - self.right[1][where].astype(int)
        return np.array([[(d == value).sum()] for value in VALUES])


def lane(name: str, lanes: tuple[Lane, ...]) -> Lane:
    return next(one for one in lanes if one.name == name)


@pytest.mark.parametrize("until", [30, 60, MINUTES])
def test_frames_and_counters_give_the_same_numbers(until: int) -> None:
    life = Life(1)
    log = life.frame().filter(pl.col("at_ms") < until * MINUTE_MS)
    known = life.labelled & (life.minute < until)
    said = np.where(life.truth, "yes", "no")[known]
    labels = pl.DataFrame({"id": [f"p{i}" for i in np.flatnonzero(known)], "label": said, "at_ms": until * MINUTE_MS})
    now, horizon = until * MINUTE_MS, HORIZON * MINUTE_MS
    case = Case(Side(1, BUNDLE), Side(2, BUNDLE), 1_000, SLOW_US, 0.005, horizon, now, ("country",))
    lanes = judge(case, log, labels).lanes

    errors = life.errors()
    assert lane("errors", lanes).evidence == pytest.approx(np.exp(errors.path(1.0)[0, until - 1]))
    counted = sum(int(arm[0, :until].sum()) for arm in (errors.candidate, errors.champion))
    assert lane("errors", lanes).n == counted

    slow = life.counted(life.slow & ~life.bad)
    calls = life.counted(~life.bad)
    share = _shares(calls, life.weight[::PER_MINUTE], until)
    path = Events(share, slow[0][:, :until], slow[1][:, :until], calls).path(SLOW_RATIO)
    assert lane("slow", lanes).evidence == pytest.approx(np.exp(path[0, -1]), rel=1e-6)

    assert lane("quality", lanes).evidence == pytest.approx(np.exp(_paired(life, None, until)))
    each = [float(np.exp(_paired(life, country, until))) for country in range(3)]
    places, needed = e_bh(each, 5, SEGMENTS_ALPHA)
    segments = lane("segments", lanes)
    assert (segments.evidence, segments.threshold) == (pytest.approx(max(each)), pytest.approx(needed))
    assert (segments.verdict.value == "harm") is bool(places)
    assert bool(places) is (until > 30), "harm is found on the way"


def _shares(calls: tuple[Ints, Ints], weights: Ints, until: int) -> Array:
    """The candidate's share of the calls at each weight, as measured by then."""
    shares = np.zeros(until)
    for weight in np.unique(weights[:until]):
        there = weights[:until] == weight
        mine, theirs = (int(arm[0, :until][there].sum()) for arm in calls)
        shares[there] = round(mine / (mine + theirs) * 10_000)
    return shares


def _paired(life: Life, country: int | None, until: int) -> float:
    ripe = max(until - HORIZON, 0)
    growth = log_growth(VALUES, 0.0)
    mature = log_mean(growth @ life.differences(country, None, ripe))
    early = [log_mean(growth @ life.differences(country, outcome, until)) for outcome in (False, True)]
    return float(combined(mature, early)[0])
