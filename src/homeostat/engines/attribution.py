"""Events become labels: each belongs to a prediction, and of the rules that fit a prediction the first counts."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from homeostat.domain.feedback import LabelRule

_NONE = {"id": pl.String, "rule": pl.Int64}


def attributed(asked: pl.DataFrame, events: pl.DataFrame) -> pl.DataFrame:
    """Which prediction each event is about: `id`, `name`, `value`, `at_ms` and `asked_ms`, in order of time. An event
    of an entity belongs to the last prediction before it with its key.

    asked: `id`, `key` and `at_ms` of predictions; events: `EVENT_COLUMNS`."""
    happened = events.select("id", "key", "name", "value", "at_ms").sort("at_ms", maintain_order=True)
    predictions = asked.sort("at_ms").with_columns(asked_ms="at_ms")
    columns = ("id", "name", "value", "at_ms", "asked_ms")
    by_id = happened.filter(pl.col("id") != "").join(predictions.select("id", "asked_ms"), on="id")
    keyed = happened.filter(pl.col("id") == "").drop("id")
    by_key = keyed.join_asof(
        predictions.filter(pl.col("key").is_not_null()),
        on="at_ms",
        by="key",
        strategy="backward",
        check_sortedness=False,
    ).filter(pl.col("id").is_not_null())
    return pl.concat([by_id.select(columns), by_key.select(columns)]).sort("at_ms", maintain_order=True)


def decided(rules: Sequence[LabelRule], asked: pl.DataFrame, events: pl.DataFrame, now_ms: int) -> pl.DataFrame:
    """`id` and `rule`, the index of the first rule that fits, for each prediction that one fits at `now_ms`. Arguments
    as of `attributed`."""
    told = attributed(asked, events).filter(pl.col("at_ms") <= now_ms)
    waited = pl.col("at_ms") - pl.col("asked_ms")
    fits = [pl.DataFrame(schema=_NONE)]
    for number, rule in enumerate(rules):
        if rule.event:
            found = told.filter((pl.col("name") == rule.event) & waited.is_between(0, rule.within))
            if rule.bounded:  # whoever changed their mind said it last
                found = found.unique("id", keep="last", maintain_order=True)
            found = found.filter(pl.Series([rule.fits(value) for value in found["value"]], dtype=pl.Boolean))
        else:
            found = asked.filter(pl.col("at_ms") + rule.after <= now_ms)
        fits.append(found.select("id", rule=pl.lit(number, pl.Int64)))
    return pl.concat(fits).group_by("id", maintain_order=True).agg(pl.col("rule").min())
