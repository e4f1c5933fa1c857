"""Card payments whose truth is known: which days are a season, and when fraud changes its ways."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from homeostat.domain.units import DAY_MS

START_MS = 20_454 * DAY_MS
"""2026-01-01. A Thursday; nothing depends on it."""
CATEGORIES = ("grocery", "travel", "electronics", "gifts")
SEASONAL = ("hour", "category")
CARDS = 2_000


@dataclass(frozen=True, slots=True)
class Script:
    """The days on which something happens, counted from 1; the season lasts from its first day to its last."""

    days: int = 84
    payments_a_day: int = 800
    warmup: int = 21
    season: tuple[int, int] = (30, 39)
    concept: int = 50
    broken: int = 68


def payments(seed: int, script: Script) -> pl.DataFrame:
    """A row a payment in order of time: paid_at, card, amount (dollars), hour, category, online, account_days, fraud.

    In the season people buy in the evening, and gifts: what is bought when moves, but neither says anything about
    fraud. On the day `concept` fraud moves from large payments to small ones: what is bought does not.
    """
    rng = np.random.default_rng(seed)
    n = script.days * script.payments_a_day
    at = np.sort(rng.uniform(0, script.days, n))
    day = at.astype(int) + 1
    season = (day >= script.season[0]) & (day <= script.season[1])
    amount = np.asarray(np.round(np.exp(rng.normal(3.4, 0.9, n)), 2), np.float64)
    online = rng.random(n) < 0.4
    account = np.round(rng.exponential(400, n)).astype(int)
    category = np.where(season, _drawn(rng, n, (0.3, 0.15, 0.2, 0.35)), _drawn(rng, n, (0.5, 0.15, 0.2, 0.15)))
    risk = fraud_probability(amount, online, account, category == 1, day >= script.concept)
    return pl.DataFrame(
        {
            "paid_at": pl.Series(START_MS + np.round(at * DAY_MS).astype(np.int64)).cast(pl.Datetime("ms")),
            "card": [f"card-{number}" for number in rng.integers(0, CARDS, n).tolist()],
            "amount": amount,
            "hour": np.where(season, rng.triangular(10, 20, 24, n), rng.triangular(0, 13, 24, n)).astype(int),
            "category": [CATEGORIES[index] for index in category.tolist()],
            "online": online,
            "account_days": account,
            "fraud": (rng.random(n) < risk).astype(int),
        }
    )


def fraud_probability(
    amount: NDArray[np.float64],
    online: NDArray[np.bool_],
    account_days: NDArray[np.int64],
    travel: NDArray[np.bool_],
    changed: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """(n,) the truth. `changed`: after the concept has changed, when small payments are the risky ones."""
    size = (np.log(amount) - 3.4) * np.where(changed, -1.8, 1.8)
    logit = -2.4 + size + 1.0 * online + 0.8 * travel - 0.8 * np.log1p(account_days / 400)
    return np.asarray(1 / (1 + np.exp(-logit)), np.float64)


def _drawn(rng: np.random.Generator, n: int, shares: tuple[float, ...]) -> NDArray[np.int64]:
    return rng.choice(len(shares), n, p=shares)
