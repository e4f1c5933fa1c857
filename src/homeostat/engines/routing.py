"""Who answers whom: a stable hash puts every key in one of 10,000 buckets, and the candidate gets the lowest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from homeostat.domain.errors import ConfigError
from homeostat.domain.rollout import Route, Segments
from homeostat.domain.schema import Field, Kind, Schema, Value
from homeostat.domain.units import ALL

Columns = Mapping[str, Sequence[Value]]


def assign(salt: str, keys: Sequence[str]) -> NDArray[np.int64]:
    """(n,) buckets in 0..9999: BLAKE2b of salt and key modulo 10,000 (bias below 1e-15). The same key
    keeps its bucket in every process; another salt shuffles all of them, so that releases are independent."""
    start = blake2b(salt.encode(), digest_size=8)
    return np.array([_bucket(start.copy(), key) for key in keys], np.int64)


def _bucket(digest: blake2b, key: str) -> int:
    digest.update(b"\0" + key.encode(errors="surrogatepass"))
    return int.from_bytes(digest.digest(), "big") % ALL


def arms(route: Route, keys: Sequence[str]) -> NDArray[np.int64]:
    """(n,) whose turn it is: 0 the champion's, 1 the candidate's, then `more`. A key that the candidate has at one
    weight stays with it at every higher one."""
    if not route.weight and not route.more:  # nobody, or everybody: no hash needed
        return np.zeros(len(keys), np.int64)
    if route.weight == ALL:
        return np.ones(len(keys), np.int64)
    buckets = assign(route.salt, keys)
    if not route.more:
        return np.asarray(buckets < route.weight, np.int64)
    ends = np.cumsum([share.weight for share in route.shares])
    return np.asarray((np.searchsorted(ends, buckets, side="right") + 1) % (len(ends) + 1))


def kept(only: Segments, never: Segments, columns: Columns, n: int) -> NDArray[np.bool_]:
    """(n,) rows that stay with the champion by rule. A field that the rows do not have is as one that is null."""
    stays = np.zeros(n, bool)
    for name, values in only.items():
        stays |= ~_among(columns.get(name, [None] * n), values)
    for name, values in never.items():
        stays |= _among(columns.get(name, [None] * n), values)
    return stays


def _among(column: Sequence[Value], values: Sequence[Value]) -> NDArray[np.bool_]:
    """(n,) true is not 1 here."""
    known = {(isinstance(value, bool), value) for value in values}
    return np.array([(isinstance(value, bool), value) in known for value in column], bool)


_TYPES = {Kind.NUMBER: (int, float), Kind.INTEGER: (int,), Kind.BOOLEAN: (bool,), Kind.TEXT: (str,)}


def check_segments(schema: Schema, only: Segments, never: Segments) -> None:
    """A rule that names what no row can have would keep nobody, or everybody. Errors: `ConfigError`."""
    fields = {one.name: one for one in schema.fields}
    for setting, rule in (("only", only), ("never", never)):
        where = f"homeostat.yaml  release.{setting}"
        for name, values in rule.items():
            if name not in fields:
                raise ConfigError(f"{name!r} is no input", where=where, way_out=f"Inputs: {', '.join(fields)}.")
            strange = [value for value in values if not _can_be(fields[name], value)]
            if strange:
                raise ConfigError(f"{name} is never {strange[0]!r}", where=where, way_out=_told(fields[name]))


def _can_be(field: Field, value: Value) -> bool:
    if value is None:
        return field.nullable
    fits = isinstance(value, _TYPES[field.kind]) and isinstance(value, bool) == (field.kind is Kind.BOOLEAN)
    return fits and (field.values is None or value in field.values)


def _told(field: Field) -> str:
    return f"It is one of {', '.join(field.values)}." if field.values else f"It is {field.kind.value}."
