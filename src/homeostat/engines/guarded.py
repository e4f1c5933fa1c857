"""Where a candidate is worse: labelled rows by the values of the inputs that the policy guards.

A segment is one value of one guarded input, as the champion's schema knows them; the values it does not know are one
segment together, and so are nulls. So their number is fixed before a release sees its first row. Tallies add up.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import polars as pl

from homeostat.domain.errors import ConfigError
from homeostat.domain.schema import Field, Kind, Schema
from homeostat.engines import evidence
from homeostat.engines.evidence import Array

OTHER, NULL = "any other", "null"
SEGMENTS = (Kind.TEXT, Kind.BOOLEAN)


@dataclass(frozen=True, slots=True)
class Segment:
    """Paired differences of the loss where `field` is `value`: E against "no worse", tallies of all labels and of the
    mature ones."""

    field: str
    value: str
    evidence: float
    everything: Array
    mature: Array

    @property
    def n(self) -> int:
        return round(float(self.everything.sum()))

    @property
    def mean(self) -> float:
        """In [-1, 1]; there is at least one label."""
        return evidence.mean(self.everything)

    def __str__(self) -> str:
        return f"{self.field} = {self.value}"


def fault(schema: Schema, guarded: Sequence[str]) -> str:
    """Why these inputs can't be guarded, "" if they can."""
    kinds = {field.name: field.kind for field in schema.fields}
    for name in guarded:
        if name not in kinds:
            return f"monitor.segments names {name}, which is no input; the inputs are: {', '.join(kinds)}"
        if kinds[name] not in SEGMENTS:
            return f"monitor.segments names {name}, a {kinds[name].value}; only texts and booleans make segments"
    return ""


def check(schema: Schema, guarded: Sequence[str]) -> None:
    """Errors: `ConfigError` for what can't be guarded: it would be neither measured nor told."""
    if why := fault(schema, guarded):
        fit = [field.name for field in schema.fields if field.kind in SEGMENTS]
        way_out = f"Texts and booleans here: {', '.join(fit) or 'none'}."
        raise ConfigError(why, where="homeostat.yaml  monitor.segments", way_out=way_out)


def many(schema: Schema, guarded: Sequence[str]) -> int:
    """How many segments there are, seen or not."""
    return sum(len(_known(field)) + 2 for field in _fields(schema, guarded))


def segments(schema: Schema, guarded: Sequence[str], classes: Sequence[str], pairs: pl.DataFrame) -> Iterator[Segment]:
    """Those with a label. `pairs`: as for `worse`, and `inputs`, a struct that holds the guarded ones."""
    for field in _fields(schema, guarded):
        known = _known(field)
        value = pl.col("inputs").struct.field(field.name).cast(pl.String)
        place = value.replace_strict(known, range(len(known)), default=len(known), return_dtype=pl.Int64)
        placed = pairs.with_columns(place=pl.when(value.is_null()).then(len(known) + 1).otherwise(place))
        for (found,), rows in placed.sort("place", maintain_order=True).group_by("place", maintain_order=True):
            named = [*known, OTHER, NULL][int(str(found))]
            yield Segment(field.name, named, worse(classes, rows), _tally(rows), _tally(rows.filter("mature")))


def worse(classes: Sequence[str], pairs: pl.DataFrame) -> float:
    """E against "the candidate's loss is no larger", over rows with `outcome`, `mature` and `difference`. `classes`:
    the outcomes that either version knows, () where they can't be listed; on any other both lose alike."""
    outcomes = [_tally(pairs.filter(pl.col("outcome") == known)) for known in classes]
    return evidence.late_evidence(_tally(pairs.filter("mature")), outcomes)


def _tally(rows: pl.DataFrame) -> Array:
    return evidence.tally(rows["difference"].to_numpy())


def _fields(schema: Schema, guarded: Sequence[str]) -> list[Field]:
    return [field for field in schema.fields if field.name in guarded]


def _known(field: Field) -> tuple[str, ...]:
    return ("false", "true") if field.kind is Kind.BOOLEAN else field.vocabulary
