"""Domain objects as JSON bytes and back: the same object gives the same bytes."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from homeostat.domain.errors import Corrupt

T = TypeVar("T")


def encode(value: Any) -> bytes:
    """JSON with sorted keys. Errors: TypeError for what JSON cannot hold."""
    return msgspec.json.encode(value, order="deterministic")


def decode(data: bytes, kind: type[T]) -> T:
    """Errors: `Corrupt` when the bytes are not a `kind`."""
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.MsgspecError as error:
        raise Corrupt(f"stored {kind.__name__} can't be read", where=str(error)) from error
