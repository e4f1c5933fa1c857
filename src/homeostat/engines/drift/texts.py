"""What is kept of a column of texts, in bounded memory: the frequent values by name, the others by a hash.

Of texts that people write, no two alike, two things more: how long they are, and of each one three characters at a
place that its own hash chooses. One piece a row keeps rows independent, and another language moves them at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from homeostat.engines.drift.counts import CHUNK, NumberLayout, Numbers, layout_of

KNOWN = 500
"""Values counted by name: the most frequent ones of the reference."""
BUCKETS = 64
"""Of the values without a name: more rows than that a window moves their shares."""
RARE = "\x00"
"""How the names of buckets begin."""
_PIECE, PIECES = 3, 128
_PROSE = 0.5  # the share of values with a space from which they are read as texts that people write
_ODD = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, slots=True)
class Categories:
    """Rows by value, or by bucket; `missing` rows have none."""

    counts: Mapping[str, int]
    missing: int

    @property
    def present(self) -> int:
        return sum(self.counts.values())

    @property
    def rare(self) -> int:
        """Rows whose value has no name."""
        return sum(rows for name, rows in self.counts.items() if name.startswith(RARE))

    @staticmethod
    def total(parts: Sequence[Categories]) -> Categories:
        """All of them together."""
        names = sorted({name for part in parts for name in part.counts})
        merged = {name: sum(part.counts.get(name, 0) for part in parts) for name in names}
        return Categories(merged, sum(part.missing for part in parts))

    def coarse(self, names: frozenset[str]) -> Categories:
        """The same with `names` alone; all others are one."""
        counts = {name: rows for name, rows in self.counts.items() if name in names}
        rest = self.present - sum(counts.values())
        return Categories(counts | ({RARE: rest} if rest else {}), self.missing)


@dataclass(frozen=True, slots=True)
class Prose:
    """Texts that people write: their values, their lengths in characters, and a piece of each."""

    values: Categories
    length: Numbers
    pieces: Categories

    @property
    def present(self) -> int:
        return self.values.present

    @property
    def missing(self) -> int:
        return self.values.missing

    @staticmethod
    def total(parts: Sequence[Prose]) -> Prose:
        """All of them together."""
        values = Categories.total([part.values for part in parts])
        pieces = Categories.total([part.pieces for part in parts])
        return Prose(values, Numbers.total([part.length for part in parts]), pieces)


@dataclass(frozen=True, slots=True)
class CategoryLayout:
    """The values counted by name."""

    known: tuple[str, ...]

    def count(self, column: pl.Series) -> Categories:
        tally = column.cast(pl.String).alias("value").value_counts(name="rows")
        missing = tally.filter(pl.col("value").is_null())["rows"].sum()
        named = tally.filter(pl.col("value").is_in(self.known))
        rare = tally.filter(pl.col("value").is_in(self.known).not_())
        counts = dict(zip(*(named[name].to_list() for name in ("value", "rows")), strict=True))
        buckets = np.bincount(_bucket(rare["value"], BUCKETS), rare["rows"].to_numpy(), BUCKETS)
        counts |= {f"{RARE}{i:02}": int(buckets[i]) for i in np.flatnonzero(buckets)}
        return Categories(dict(sorted(counts.items())), int(missing))


@dataclass(frozen=True, slots=True)
class ProseLayout:
    """Values by name, and where the cells of the lengths lie."""

    values: CategoryLayout
    length: NumberLayout

    def count(self, column: pl.Series) -> Prose:
        texts = column.cast(pl.String)
        lengths = self.length.count(texts.str.len_chars())
        pieces = np.zeros(PIECES, np.int64)
        for some in _chunks(texts.drop_nulls()):
            pieces += np.bincount(pieces_of(some), minlength=PIECES)
        found = {f"{i:03}": int(pieces[i]) for i in np.flatnonzero(pieces)}
        return Prose(self.values.count(texts), lengths, Categories(found, texts.null_count()))


def layout_of_texts(column: pl.Series) -> tuple[CategoryLayout | ProseLayout, bool]:
    """→ the layout, and whether it was chosen by counts that a value may owe to chance: then the reference must count
    other rows than those it was chosen on."""
    frequent = column.drop_nulls().alias("value").value_counts(sort=True, name="rows")
    chosen = frequent.height > KNOWN
    named = frequent.head(KNOWN).filter(pl.col("rows") > 1) if chosen else frequent
    values = CategoryLayout(tuple(sorted(named["value"].to_list())))
    spaced = frequent["value"].str.contains(" ", literal=True).sum()
    if not chosen or spaced < _PROSE * frequent.height:
        return values, chosen
    return ProseLayout(values, layout_of(column.drop_nulls().str.len_chars().cast(pl.Float64))), chosen


def pieces_of(texts: pl.Series) -> NDArray[np.int64]:
    """(n,) the bucket of each text's piece; none is null."""
    return _bucket(_piece(texts), PIECES)


def _piece(texts: pl.Series) -> pl.Series:
    """(n,) of each text three characters, in small letters; a shorter one whole."""
    starts = hashes(texts) % np.maximum(1, texts.str.len_chars().to_numpy().astype(np.int64) - _PIECE + 1).astype("u8")
    frame = pl.DataFrame({"text": texts, "start": starts.astype(np.int64)})
    return frame.select(pl.col("text").str.slice(pl.col("start"), _PIECE).str.to_lowercase())["text"]


def _bucket(texts: pl.Series, buckets: int) -> NDArray[np.int64]:
    """(n,) which of the buckets each text belongs to."""
    found = [hashes(some) % np.uint64(buckets) for some in _chunks(texts)]
    return np.concatenate([np.zeros(0, "u8"), *found]).astype(np.int64)


def _chunks(texts: pl.Series) -> Iterator[pl.Series]:
    return (texts.slice(start, CHUNK) for start in range(0, len(texts), CHUNK))


def hashes(texts: pl.Series) -> NDArray[np.uint64]:
    """(n,) a polynomial of each text's UTF-8 bytes modulo 2^64, mixed: the same wherever and whenever it is asked,
    for what a reference counted years ago must still meet."""
    data = np.frombuffer("".join(texts.to_list()).encode(), np.uint8)
    lengths = texts.str.len_bytes().to_numpy().astype(np.int64)
    ends = np.cumsum(lengths)
    place = np.arange(len(data)) - np.repeat(ends - lengths, lengths)
    powers = np.cumprod(np.full(int(lengths.max(initial=0)) + 1, _ODD))
    summed = np.concatenate([np.zeros(1, "u8"), np.cumsum((data.astype("u8") + np.uint64(1)) * powers[place])])
    found = summed[ends] - summed[ends - lengths]
    found = (found ^ (found >> np.uint64(32))) * _ODD
    return np.asarray(found ^ (found >> np.uint64(29)))


Column = Numbers | Categories | Prose
Layout = NumberLayout | CategoryLayout | ProseLayout


def total(parts: Sequence[Column]) -> Column:
    """What the parts hold together. Errors: TypeError unless they are of one kind."""
    numbers = [part for part in parts if isinstance(part, Numbers)]
    categories = [part for part in parts if isinstance(part, Categories)]
    prose = [part for part in parts if isinstance(part, Prose)]
    if len(parts) not in (len(numbers), len(categories), len(prose)):
        raise TypeError("columns of two kinds do not add up")
    return Numbers.total(numbers) if numbers else Categories.total(categories) if categories else Prose.total(prose)
