"""Answers whose labels would teach the most, for people to label; the labels come back by prediction id."""

from __future__ import annotations

import numpy as np
import polars as pl

from homeostat.domain.errors import NotFound
from homeostat.domain.prediction import Role
from homeostat.engines.answer import output_of
from homeostat.engines.wanted import apart, distance, unsure, wanted
from homeostat.services.analysis import Analyses
from homeostat.services.scored import inputs_of, scored_by

LOOKED_AT = 20_000
"""Answers that are compared, at most, evenly over the time."""


class LabelSets:
    """Of what the champion answered and nobody has labelled."""

    def __init__(self, analyses: Analyses) -> None:
        self.analyses = analyses

    def choose(self, last_ms: int, n: int) -> pl.DataFrame:
        """n of the answers of the last `last_ms`, or fewer: `id`, an empty `label` (and `source`, where the policy
        names them), and as remarks (#…) the reason, the model's answer and the inputs. Errors: `NotFound`."""
        of = self.analyses
        champion = of.served()
        now, bundle = of.clock.now_ms(), champion.bundle
        log, _ = of.moves.read(now - last_ms, now + 1)
        rows = scored_by(log, champion.arm.version).filter(pl.col("role") == Role.ANSWER.value)
        known = of.labels.read(now - last_ms, now + 1, rows["id"])["id"].to_list()
        rows = rows.filter(~pl.col("id").is_in(known))
        rows = rows.gather_every(-(-len(rows) // LOOKED_AT) or 1)
        if rows.is_empty():
            raise NotFound("no answer of that time lacks its label", way_out="Look further back with --last.")
        frame, output = of.moves.shown(bundle, inputs_of(log, rows)), output_of(bundle.schema, rows)
        learned = of.learned(bundle)
        far, most = distance(bundle.schema, frame, frame.clear() if learned is None else learned)
        other = _others(log, rows, champion.arm.version)
        scale = apart(bundle.schema, output, output_of(bundle.schema, other), bundle.loss_scale)
        chosen = wanted(n, unsure(bundle.schema, output), scale, far, most)
        filled = ["label", "source"] if of.policy.feedback.sources else ["label"]
        return _table(rows, frame, [(one.row, one.reason, one.because) for one in chosen], filled)


def _others(log: pl.DataFrame, rows: pl.DataFrame, version: int) -> pl.DataFrame:
    """What another version said of each row, in shadow: the newest one; nulls where none did."""
    shadow = log.filter((pl.col("version") != version) & (pl.col("status") == "ok"))
    last = shadow.sort("version").unique("id", keep="last").select("id", "score", "scores")
    return rows.select("id").join(last, on="id", how="left", maintain_order="left")


def _table(
    rows: pl.DataFrame, frame: pl.DataFrame, chosen: list[tuple[int, str, str]], filled: list[str]
) -> pl.DataFrame:
    """`filled`: the columns that people fill in."""
    places = np.array([row for row, _, _ in chosen], np.int64)
    said = pl.DataFrame(chosen, schema=["row", "reason", "because"], orient="row").drop("row")
    at = pl.from_epoch("at_ms", "ms").alias("answered")
    answers = rows[places].select("id", at, "score", answer="label")
    told = pl.concat([answers, said, frame[places].select(pl.all().name.prefix("input "))], how="horizontal")
    remarks = told.drop("id").rename(lambda name: f"#{name}")
    empty = [pl.lit(None, pl.String).alias(name) for name in filled]
    return pl.concat([told.select("id", *empty), remarks], how="horizontal")
