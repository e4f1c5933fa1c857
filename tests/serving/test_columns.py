"""Many numbers in binary tensors: never a Python object each, and the same answers, refusals and log as from JSON."""

from __future__ import annotations

import itertools
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import World, logistic

from homeostat.domain.prediction import LogBatch
from homeostat.domain.schema import Field, Kind, Schema, Task
from homeostat.engines.transform import MANY
from homeostat.serving.columns import Columns, joined
from homeostat.serving.messages import Request, Response
from homeostat.stores import frames
from homeostat.stores.memory_log import MemoryLog

INFER = "/v2/models/fraud/infer"
SCHEMA = Schema(
    (
        Field("amount", Kind.NUMBER, low=-1e6, high=1e300),
        Field("maybe", Kind.NUMBER, nullable=True),
        Field("items", Kind.INTEGER),
        Field("member", Kind.BOOLEAN),
        Field("key", Kind.INTEGER, nullable=True),
    ),
    Task.BINARY,
    "fraud",
    ("no", "yes"),
)
WIDE = {"FP16": "<f2", "FP32": "<f4", "FP64": "<f8", "INT8": "<i1", "INT64": "<i8", "UINT64": "<u8", "BOOL": "<u1"}
FLOATS = st.sampled_from([0.0, -0.0, 1.5, 10.5, 12.0, 100.0] * 15 + [math.nan, -2e6, 1e39, 6e4])
INTEGERS = st.sampled_from([0, 1, 3, 127, 2**53 + 1, 2**63 - 1] * 6 + [2**63])


class Pages(MemoryLog):
    """Keeps the bytes too."""

    def __init__(self) -> None:
        super().__init__()
        self.pages: list[bytes] = []

    def append(self, batch: LogBatch) -> None:
        self.pages.append(frames.pack(batch))


@st.composite
def tensors(draw: st.DrawFn) -> dict[str, tuple[str, np.ndarray]]:
    """Name → datatype and the values that it can hold."""
    n = draw(st.sampled_from([1, MANY - 1, MANY, MANY + 5]))

    def column(values: st.SearchStrategy[Any], *datatypes: str) -> tuple[str, np.ndarray]:
        datatype = draw(st.sampled_from(datatypes))
        found = np.array(draw(st.lists(values, min_size=4, max_size=4)), object)
        with np.errstate(all="ignore"):
            wide = found.astype("<f8") if datatype.startswith("FP") else found
            few = wide.astype(WIDE[datatype]) if datatype != "INT8" else (found % 128).astype("<i1")
        return datatype, np.resize(few, n)

    return {
        "amount": column(FLOATS, "FP64", "FP32", "FP16") if draw(st.booleans()) else column(INTEGERS, "UINT64"),
        "maybe": column(FLOATS, "FP64", "FP32"),
        "items": column(INTEGERS, "UINT64", "INT8"),
        "member": column(st.booleans(), "BOOL"),
        "key": column(st.integers(0, 2**62), "INT64"),
    }


def request(columns: dict[str, tuple[str, np.ndarray]], *, raw: bool, name: str) -> Request:
    inputs, contents = [], []
    for field, (datatype, values) in columns.items():
        told = {"name": field, "datatype": datatype, "shape": [len(values)]}
        if raw:
            contents.append(values.tobytes())
            inputs.append({**told, "parameters": {"binary_data_size": len(contents[-1])}})
        else:
            plain = values.astype(bool) if datatype == "BOOL" else values
            inputs.append({**told, "data": [None if value != value else value for value in plain.tolist()]})
    head = json.dumps({"inputs": inputs, "id": name}).encode()
    return Request("POST", INFER, b"".join([head, *contents]), {"inference-header-content-length": str(len(head))})


def finite(columns: dict[str, tuple[str, np.ndarray]]) -> bool:
    """JSON has no infinite number."""
    return not any(np.isinf(values.astype(float)).any() for _, values in columns.values())


def said(log: Pages, *requests: Request) -> list[Response]:
    world = World(log=log)
    world.route(world.bundle(logistic, SCHEMA))
    return world.engine.answer(requests)


@settings(max_examples=80, deadline=None)
@given(st.lists(tensors().filter(finite), min_size=1, max_size=3))
def test_as_json_says_it_to_the_byte(several: list[dict[str, tuple[str, np.ndarray]]]) -> None:
    one, other = Pages(), Pages()
    plain = said(one, *(request(columns, raw=False, name=f"q{i}") for i, columns in enumerate(several)))
    raw = said(other, *(request(columns, raw=True, name=f"q{i}") for i, columns in enumerate(several)))
    assert [(answer.status, answer.body, answer.lines) for answer in raw] == [
        (answer.status, answer.body, answer.lines) for answer in plain
    ]
    assert other.pages == one.pages


def test_numbers_stay_memory_until_the_log() -> None:
    """What a caller sends in one tick, alone or several together, is memory in the columns of the batch."""
    world = World()
    world.route(world.bundle(logistic, SCHEMA))
    codec = world.engine._plan.predict[INFER].codec
    columns = {name: ("FP64", np.arange(MANY, dtype="<f8")) for name in ("amount", "maybe")}
    columns["items"] = columns["key"] = ("INT64", np.arange(MANY, dtype="<i8"))
    columns["member"] = ("BOOL", np.ones(MANY, "<u1"))
    rows = codec.decode(request(columns, raw=True, name="q")).rows
    for made, n in ((rows, MANY), (joined([rows, rows]), 2 * MANY)):
        assert isinstance(made, Columns)
        assert len(made) == n
        assert [one.format if isinstance(one, memoryview) else type(one) for one in made.columns] == [
            *("d", "d", "q", list, "q")
        ]
        assert list(made) == [(float(i), float(i), i, True, i) for i in itertools.chain(*[range(MANY)] * (n // MANY))]
        assert made[1:3][1] == made[2] == (2.0, 2.0, 2, True, 2)
    mixed = joined([rows, [(0.5, None, 1, False, None)]])
    assert (len(mixed), mixed[-1]) == (MANY + 1, (0.5, None, 1, False, None))


@pytest.mark.parametrize("bad", [math.inf, -math.inf, 2e300])
def test_what_json_can_not_say_is_refused_with_its_row(bad: float) -> None:
    values = np.zeros(MANY)
    values[7] = bad
    columns = {name: ("FP64", np.zeros(MANY)) for name in ("amount", "maybe")}
    columns["items"] = columns["key"] = ("INT64", np.arange(MANY, dtype="<i8"))
    columns["member"] = ("BOOL", np.ones(MANY, "<u1"))
    (answer,) = said(Pages(), request({**columns, "maybe": ("FP64", values)}, raw=True, name="q"))
    refused = json.loads(answer.body)
    assert (answer.status, refused["field"], refused["record"]) == (422, "maybe", 7)
