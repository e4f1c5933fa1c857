"""Rows for the logs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import polars as pl

from homeostat.domain.prediction import LogBatch


def batch(at_ms: int, *ids: str, model: str = "price", **changes: Any) -> LogBatch:
    """A row for each id."""
    n = len(ids)
    made = LogBatch(
        model, at_ms, "R1", 100, ids, ["k"] * n, [1] * n, ["champion"] * n, ["answer"] * n, ["ok"] * n, [7] * n,
        [0.1 + 0.2] * n, ["yes"] * n, [None] * n,
        {"x": [0.1] * n, "n": [2**53 + 1] * n, "t": ["ü"] * n, "b": [True] * n},
    )  # fmt: skip
    return replace(made, **changes)


def ids(rows: pl.DataFrame) -> list[str]:
    return rows["id"].to_list()
