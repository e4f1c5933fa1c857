"""A row that shows what moved: it lies where the window gained most beside the reference."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from homeostat.engines.drift.categorical import categories, prose
from homeostat.engines.drift.counts import Counts, NumberLayout
from homeostat.engines.drift.numeric import BINS, binned, numbers
from homeostat.engines.drift.texts import PIECES, Column, Layout, ProseLayout, pieces_of

Places = NDArray[np.int64]
NOWHERE = -1
"""Of a row without a value."""


def example(test: str, layout: Layout, reference: Column, column: pl.Series) -> int | None:
    """Which of a window's rows (n,) to show: of those the middle one of the numbers, or the newest of the most frequent
    value. None: no row has a value."""
    if isinstance(layout, ProseLayout) and test == "length":
        lengths = column.str.len_chars().cast(pl.Float64)
        return example("distribution", layout.length, prose(reference).length, lengths)
    gap = (column.is_null() | (column.is_nan() if column.dtype.is_float() else False)).to_numpy()
    if test == "missing":
        places, before = gap.astype(np.int64), np.array([reference.present, reference.missing])
    else:
        found, before = _places(test, layout, reference, column.filter(~gap))
        places = np.full(len(column), NOWHERE)
        places[~gap] = found
    n = int((places != NOWHERE).sum())
    if not n:
        return None
    now = np.bincount(places[places != NOWHERE], minlength=len(before))
    most = np.argmax(now / n - before / max(1, before.sum()))
    rows = np.flatnonzero(places == most)
    if isinstance(layout, NumberLayout):
        return int(rows[np.argsort(column.to_numpy()[rows], kind="stable")[len(rows) // 2]])
    values = column.gather(rows)
    return int(rows[(values.eq_missing(values.mode().sort()[0])).arg_true()[-1]])


def _places(test: str, layout: Layout, reference: Column, column: pl.Series) -> tuple[Places, Counts]:
    """(n,) where each value lies; (b,) how many rows of the reference lie in each place."""
    if isinstance(layout, NumberLayout):
        old = numbers(reference)
        return np.searchsorted(old.edges(BINS), layout.cells(column)), binned([old], old.edges(BINS))[0]
    texts = column.cast(pl.String)
    if isinstance(layout, ProseLayout) and test == "wording":
        pieces = prose(reference).pieces.counts
        return pieces_of(texts), np.array([pieces.get(f"{i:03}", 0) for i in range(PIECES)])
    counts = categories(reference)
    names = (layout.values if isinstance(layout, ProseLayout) else layout).known
    named = [counts.counts.get(name, 0) for name in names]
    places = texts.replace_strict(names, range(len(names)), default=len(names), return_dtype=pl.Int64).to_numpy()
    if test == "new values":
        return (places == len(names)).astype(np.int64), np.array([sum(named), counts.rare])
    return places, np.array([*named, counts.rare])
