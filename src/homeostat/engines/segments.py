"""Where two models differ most: requests in bins of each input, and what happened in each. Counts add up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import polars as pl
from numpy.typing import NDArray

from homeostat.domain.backtest import Segment
from homeostat.domain.schema import Field, Kind
from homeostat.engines import evidence
from homeostat.engines.lanes import number

Array = NDArray[np.float64]

QUANTILES = 10
LISTED = 20
"""Values of a text (or of a number with so few) that are counted by name; the others together."""
LEAST = 50
"""Requests of a segment that is ranked."""
ALPHA = 0.01
"""The false discovery rate of harm over all segments together."""
_NULL, _OTHER = "null", "any other"


@dataclass(frozen=True, slots=True)
class Bins:
    """The bins of one input. Without `known` they lie between the `edges`; the last one is null."""

    name: str
    labels: tuple[str, ...]
    known: tuple[str, ...] | None
    edges: Array

    def of(self, column: pl.Series) -> NDArray[np.int64]:
        """(n,) the bin of each value."""
        if self.known is None:
            values = column.cast(pl.Float64).fill_null(float("nan")).to_numpy()
            found = np.searchsorted(self.edges, values, side="right")
            return np.where(np.isnan(values), len(self.labels) - 1, found)
        texts = column.cast(pl.String)
        places = list(range(len(self.known)))
        codes = texts.replace_strict(list(self.known), places, default=len(self.known), return_dtype=pl.Int64)
        return codes.set(texts.is_null(), len(self.labels) - 1).to_numpy()


def bins(field: Field, column: pl.Series) -> Bins:
    """Quantiles of the numbers in `column`, or its most frequent values."""
    values = column.drop_nulls()
    listed = field.kind in (Kind.TEXT, Kind.BOOLEAN) or values.n_unique() <= LISTED
    if listed:
        counted = (
            values.cast(pl.String).alias("value").value_counts(name="n").sort("n", "value", descending=[True, False])
        )
        known = tuple(sorted(counted["value"].head(LISTED).to_list()))
        return Bins(field.name, (*known, _OTHER, _NULL), known, np.zeros(0))
    numbers = values.cast(pl.Float64).to_numpy()
    edges = np.unique(np.quantile(numbers[np.isfinite(numbers)], np.arange(1, QUANTILES) / QUANTILES))
    return Bins(field.name, (*_spans(edges), _NULL), None, edges)


def _spans(edges: Array) -> Iterator[str]:
    texts = [number(float(edge)) for edge in edges]
    if not texts:
        yield "any number"
        return
    yield f"below {texts[0]}"
    for low, high in pairwise(texts):
        yield f"{low} to {high}"
    yield f"from {texts[-1]}"


@dataclass(frozen=True, slots=True)
class Rows:
    """What happened in n requests, (n,) each; `difference` is NaN where no label can be compared."""

    moved: Array
    flipped: NDArray[np.bool_]
    failed: NDArray[np.bool_]
    difference: Array


class Table:
    """The sums of one input's bins."""

    def __init__(self, of: Bins) -> None:
        self.bins, size = of, len(of.labels)
        self.sums = np.zeros((size, 6))  # requests, moved, flipped, failed, labels, difference
        self.tallies = np.zeros((size, evidence.CELLS))

    def add(self, column: pl.Series, rows: Rows) -> None:
        where, size = self.bins.of(column), len(self.bins.labels)
        known = np.isfinite(rows.difference)
        weights = (
            np.ones(len(where)),
            rows.moved,
            rows.flipped,
            rows.failed,
            known,
            np.where(known, rows.difference, 0),
        )
        self.sums += np.column_stack([np.bincount(where, weight, size) for weight in weights])
        for bin in np.unique(where[known]):
            self.tallies[bin] += evidence.tally(rows.difference[known & (where == bin)])

    def segments(self) -> Iterator[Segment]:
        """Those of a size that can be ranked."""
        total = self.sums.sum(axis=0)
        for name, (n, moved, flips, failed, labels, difference), tally in zip(
            self.bins.labels, self.sums.tolist(), self.tallies, strict=True
        ):
            if n < LEAST or total[0] == n:
                continue
            yield Segment(
                field=self.bins.name,
                values=name,
                n=int(n),
                moved=moved / n,
                elsewhere=float(total[1] - moved) / float(total[0] - n),
                flips=int(flips),
                failed=int(failed),
                labels=int(labels),
                difference=difference / labels if labels else None,
                evidence=evidence.mean_evidence(tally) if labels else 0.0,
            )


def ranked(tables: Mapping[str, Table]) -> list[Segment]:
    """By how much more the two differ there than elsewhere, the most first."""
    found = [segment for table in tables.values() for segment in table.segments()]
    return sorted(found, key=lambda one: (one.elsewhere - one.moved, one.field, one.values))


def harmed(found: list[Segment]) -> tuple[list[Segment], float]:
    """The segments in which the candidate is worse, the surest first, by e-BH at `ALPHA`; and the E that the last of
    them needed (that the surest would need, where there is none)."""
    tested = [one for one in found if one.labels]
    worse, needed = evidence.e_bh([one.evidence for one in tested], len(tested), ALPHA)
    return [tested[place] for place in worse], needed
