"""Raw tensors: every datatype there and back, and nothing but `ValueError` for what is none."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeostat.serving.tensors import decode_raw, encode_raw

NUMBERS = {
    "FP16": [1.5, -0.0, None, 65504.0],
    "FP32": [0.5, None, math.inf],
    "FP64": [0.1, None, -1e300],
    "INT8": [-128, 127],
    "UINT8": [0, 255],
    "INT16": [-(2**15), 2**15 - 1],
    "UINT16": [0, 2**16 - 1],
    "INT32": [-(2**31), 2**31 - 1],
    "UINT32": [0, 2**32 - 1],
    "INT64": [-(2**63), 2**63 - 1],
    "UINT64": [0, 2**64 - 1],
    "BOOL": [True, False],
    "BYTES": ["", "zł", "a" * 300],
}


@pytest.mark.parametrize("datatype", list(NUMBERS))
def test_there_and_back(datatype: str) -> None:
    values = NUMBERS[datatype]
    raw = encode_raw(datatype, [math.nan if value is None else value for value in values])
    found = decode_raw(datatype, raw, len(values))
    assert found == values
    assert [type(value) for value in found] == [type(value) for value in values]


def test_the_bytes_of_the_protocol() -> None:
    assert encode_raw("BYTES", ["ab", ""]) == b"\x02\0\0\0ab\0\0\0\0"
    assert encode_raw("INT32", [1, -2]) == b"\1\0\0\0\xfe\xff\xff\xff"
    assert encode_raw("BOOL", [True, False]) == b"\1\0"
    assert encode_raw("FP16", [1.0]) == np.float16(1.0).tobytes()


WRONG = {
    "too short": ("FP32", b"1234567", 2, "must be 8 bytes: 2 of FP32"),
    "too long": ("INT8", b"123", 2, "must be 2 bytes: 2 of INT8"),
    "unknown": ("STRING", b"", 0, "must not be raw STRING"),
    "not a boolean": ("BOOL", b"\2", 1, "0 or 1"),
    "no length": ("BYTES", b"\1\0\0", 1, "after its length"),
    "beyond the end": ("BYTES", b"\xff\xff\xff\xffa", 1, "after its length"),
    "something left": ("BYTES", b"\0\0\0\0a", 1, "after its length"),
    "more than there is": ("BYTES", b"\0\0\0\0", 10**12, "after its length"),
    "not UTF-8": ("BYTES", b"\1\0\0\0\xff", 1, "UTF-8"),
}


@pytest.mark.parametrize("case", list(WRONG))
def test_what_is_refused(case: str) -> None:
    datatype, data, n, message = WRONG[case]
    with pytest.raises(ValueError, match=message):
        decode_raw(datatype, data, n)


@given(st.sampled_from([*NUMBERS, "BF16", ""]), st.binary(max_size=64), st.integers(0, 20))
def test_any_bytes_give_n_values_or_a_value_error(datatype: str, data: bytes, n: int) -> None:
    try:
        found = decode_raw(datatype, data, n)
    except ValueError:
        return
    assert len(found) == n
