"""What the log must not hold: fields left out, or replaced by a keyed hash."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import dataclass, replace

from homeostat.domain.prediction import LogBatch, SignalBatch
from homeostat.domain.schema import Value

_CHARS = 24
"""Of the hash in hex, 96 bits: among a thousand million values no two are likely to meet."""


@dataclass(frozen=True, slots=True)
class Mask:
    """`drop` and `hash` name inputs, or `key`, the column that says whom a row is about. The same value of a field has
    the same hash as long as `secret` is the same; without it nobody can try out values."""

    drop: frozenset[str]
    hash: frozenset[str]
    key: str | None
    secret: bytes

    def __call__(self, batch: LogBatch) -> LogBatch:
        inputs = {name: self._column(name, values) for name, values in batch.inputs.items()}
        keys = batch.key if self.key is None else [_text(key) for key in self._column(self.key, batch.key)]
        return replace(batch, inputs=inputs, key=keys)

    def signals(self, batch: SignalBatch) -> SignalBatch:
        """The entities' keys as the log of predictions has them, so that they still meet."""
        keys = batch.key if self.key is None else [_text(key) for key in self._column(self.key, batch.key)]
        return replace(batch, key=keys)

    def _column(self, name: str, values: Sequence[Value]) -> Sequence[Value]:
        if name in self.drop:
            return [None] * len(values)
        return [self._hashed(name, value) for value in values] if name in self.hash else values

    def _hashed(self, name: str, value: Value) -> str | None:
        """HMAC-SHA256 (RFC 2104) over name and value, cut off."""
        if value is None:
            return None
        return hmac.digest(self.secret, f"{name}\0{value}".encode(errors="surrogatepass"), "sha256").hex()[:_CHARS]


def _text(value: Value) -> str | None:
    return None if value is None else str(value)
