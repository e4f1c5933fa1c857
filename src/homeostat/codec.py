"""Domain objects as JSON bytes and back: the same object gives the same bytes."""

from __future__ import annotations

import math
from typing import Any, TypeVar

import msgspec

from homeostat.domain.errors import Corrupt

T = TypeVar("T")


def encode(value: Any) -> bytes:
    """JSON with sorted keys. Errors: TypeError for what JSON cannot hold."""
    return msgspec.json.encode(value, order="deterministic")


def encode_exactly(value: Any) -> bytes:
    """The same with numbers that are not finite as text ("nan", "inf"): JSON has none, and `encode` writes null."""
    return encode(_spelled(msgspec.to_builtins(value)))


def _spelled(node: Any) -> Any:
    if isinstance(node, dict):
        return {name: _spelled(child) for name, child in node.items()}
    if isinstance(node, list | tuple):
        return [_spelled(child) for child in node]
    return str(node) if isinstance(node, float) and not math.isfinite(node) else node


def decode(data: bytes, kind: type[T], exactly: bool = False) -> T:
    """`exactly`: what `encode_exactly` wrote. Errors: `Corrupt` when the bytes are not a `kind`."""
    try:
        return msgspec.json.decode(data, type=kind, strict=not exactly)
    except msgspec.MsgspecError as error:
        raise Corrupt(f"stored {kind.__name__} can't be read", where=str(error)) from error
