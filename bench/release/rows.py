"""Payments whose truth is known: the history that models learn from, and what callers send."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl

COUNTRIES, SHARES = ["de", "es", "fr", "pl"], [0.4, 0.08, 0.32, 0.2]
RISK = np.array([-0.3, 2.0, 0.2, -0.5])
CARDS = 4_000
DAYS, A_DAY = 60, 400
NO_COUNTRY, FIRST_ORDER = 0.05, 0.03
"""Shares of live rows of a kind that the history does not hold."""


def history(seed: int = 1) -> pl.DataFrame:
    """Two months of labelled rows, the last of them a day old."""
    rng, n = np.random.default_rng(seed), DAYS * A_DAY
    made = _drawn(rng, n)
    begin = datetime.now(UTC).replace(tzinfo=None, microsecond=0) - timedelta(days=DAYS + 1)
    at = pl.Series("at", [begin + timedelta(days=i / A_DAY) for i in range(n)])
    return pl.DataFrame({"at": at, **made, "visits": rng.integers(1, 30, n)})


def live(seed: int) -> Iterator[dict[str, Any]]:
    """Rows without end, one by one, `fraud` among them. `visits` counts them."""
    rng, visits = np.random.default_rng(seed), 0
    while True:
        drawn = _drawn(rng, 1_000)
        lost, first = rng.random(1_000) < NO_COUNTRY, rng.random(1_000) < FIRST_ORDER
        for i, row in enumerate(pl.DataFrame(drawn).to_dicts()):
            visits += 1
            row["visits"] = visits
            if lost[i]:
                row["country"] = None
            if first[i]:
                row["orders"], row["spent"] = 0, 0.0
            yield row


def _drawn(rng: np.random.Generator, n: int) -> dict[str, Any]:
    """`hint` says nothing of the truth."""
    amount, orders = rng.gamma(2, 20, n).round(2), rng.integers(1, 12, n)
    spent = (orders * rng.gamma(3, 12, n)).round(2)
    place = rng.choice(4, n, p=SHARES)
    odds = (amount - 45) / 18 - (spent / orders - 36) / 25 + RISK[place]
    return {
        "card": [f"c{one}" for one in rng.integers(0, CARDS, n)],
        "amount": amount,
        "orders": orders,
        "spent": spent,
        "country": [COUNTRIES[one] for one in place],
        "hint": rng.normal(size=n).round(4),
        "fraud": (rng.random(n) < 1 / (1 + np.exp(-odds))).astype(int),
    }


def turned_round(frame: pl.DataFrame, country: str) -> pl.DataFrame:
    """The labels of one country mean the opposite: whoever brought them in mistook a code."""
    there = pl.col("country") == country
    return frame.with_columns(fraud=pl.when(there).then(1 - pl.col("fraud")).otherwise(pl.col("fraud")))


def leaked(frame: pl.DataFrame, seed: int = 2) -> pl.DataFrame:
    """`hint` was filled in after the truth was known: a model on it looks splendid, until it is asked beforehand."""
    noise = np.random.default_rng(seed).normal(size=len(frame))
    return frame.with_columns(hint=(3 * pl.col("fraud") + pl.Series(noise)).round(4))
