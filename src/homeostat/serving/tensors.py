"""Raw tensors of the Open Inference Protocol V2: little-endian, row-major, no padding. A BYTES element is its length
(4 bytes) and then its content; a BOOL is one byte."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

_LENGTH = struct.Struct("<I")
_FLOATS: Mapping[str, str] = {"FP16": "<f2", "FP32": "<f4", "FP64": "<f8"}
_FIXED: Mapping[str, str] = {
    **_FLOATS,
    **{f"INT{8 * size}": f"<i{size}" for size in (1, 2, 4, 8)},
    **{f"UINT{8 * size}": f"<u{size}" for size in (1, 2, 4, 8)},
    "BOOL": "<u1",
}


def decode_raw(datatype: str, data: bytes, n: int) -> list[Any]:
    """The n values of a tensor: int, float, bool or str (BYTES must be UTF-8). NaN, which has no JSON, is None.

    Errors: `ValueError` that says what `data` must be, without any of it.
    """
    if datatype == "BYTES":
        return _texts(data, n)
    values = fixed(datatype, data, n)
    if datatype == "BOOL":
        return _booleans(data)
    found: list[Any] = values.tolist()
    if datatype in _FLOATS and np.isnan(values).any():
        return [None if value != value else value for value in found]
    return found


def fixed(datatype: str, data: bytes, n: int) -> NDArray[Any]:
    """The n values of a tensor of numbers, where they lie; a BOOL is a number too. Errors: as `decode_raw`."""
    kind = _FIXED.get(datatype)
    if kind is None:
        raise ValueError(f"must not be raw {datatype}")
    width = np.dtype(kind).itemsize
    if len(data) != n * width:
        raise ValueError(f"must be {n * width} bytes: {n} of {datatype}")
    return np.frombuffer(data, kind)


def encode_raw(datatype: str, values: Sequence[Any]) -> bytes:
    """The reverse. Text is BYTES in UTF-8. Errors: `OverflowError` for an integer that the datatype can't hold."""
    if datatype == "BYTES":
        texts = [value if isinstance(value, bytes) else str(value).encode() for value in values]
        lengths = map(_LENGTH.pack, map(len, texts))
        return b"".join(chain.from_iterable(zip(lengths, texts, strict=True)))
    return np.asarray(values, _FIXED[datatype]).tobytes()


def _booleans(data: bytes) -> list[bool]:
    if data.translate(None, b"\0\1"):
        raise ValueError("must hold 0 or 1 in each byte")
    return list(map(bool, data))


def _texts(data: bytes, n: int) -> list[str]:
    """Bounded by `data`: a length that leads beyond it ends the reading."""
    found, at = list[str](), 0
    for _ in range(n):
        start = at + _LENGTH.size
        at = start + _LENGTH.unpack_from(data, at)[0] if start <= len(data) else start
        if at > len(data):
            raise ValueError(f"must be {n} texts, each after its length")
        try:
            found.append(data[start:at].decode())
        except UnicodeDecodeError:
            raise ValueError("must be UTF-8") from None
    if at != len(data):
        raise ValueError(f"must be {n} texts, each after its length")
    return found
