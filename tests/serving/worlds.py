"""A data plane in memory, with real models in it."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from homeostat import codec
from homeostat.adapters.runtime import OnnxRuntime
from homeostat.domain.bundle import Bundle
from homeostat.domain.feedback import FeedbackPolicy
from homeostat.domain.rollout import Arm, Route, Routing
from homeostat.domain.schema import Field, Kind, Schema, Task
from homeostat.ports import Model, PredictionLog, Tracing
from homeostat.serving.messages import Request, Response
from homeostat.serving.tick import Engine
from homeostat.stores.memory import MemoryRouter
from homeostat.stores.memory_data import MemoryBlobs
from homeostat.stores.memory_log import MemoryLabels, MemoryLog

FIELDS = (
    Field("amount", Kind.NUMBER, low=0.0, high=1_000.0),
    Field("items", Kind.INTEGER),
    Field("member", Kind.BOOLEAN),
    Field("country", Kind.TEXT, values=("de", "fr", "pl"), vocabulary=("de", "fr")),
    Field("class", Kind.NUMBER, nullable=True),
)
BINARY = Schema(FIELDS, Task.BINARY, "fraud", ("no", "yes"))
GOOD = {"amount": 10.5, "items": 3, "member": True, "country": "de", "class": None}


class Clock:
    def __init__(self) -> None:
        self.ms, self.ns = 1_700_000_000_000, 0

    def now_ms(self) -> int:
        return self.ms

    def timer_ns(self) -> int:
        self.ns += 7_000
        return self.ns


class Runtime:
    """`python:<name>` loads a Python function, everything else goes to onnxruntime."""

    def __init__(self) -> None:
        self.functions: dict[str, Model] = {}

    def load(self, onnx: bytes) -> Model:
        if onnx.startswith(b"python:"):
            return self.functions[onnx.decode()]
        return OnnxRuntime().load(onnx)


def logistic(x: NDArray[np.float32], /) -> NDArray[np.float64]:
    """(n, 5) → (n, 2): a model one can calculate by hand; 10.5 gives .5."""
    p = 1 / (1 + np.exp(-(x[:, 0].astype(np.float64) - 10.5)))
    return np.column_stack([1 - p, p])


@dataclass
class World:
    """An engine and everything behind it."""

    log: PredictionLog = field(default_factory=MemoryLog)
    labels: MemoryLabels = field(default_factory=MemoryLabels)
    clock: Clock = field(default_factory=Clock)
    blobs: MemoryBlobs = field(default_factory=MemoryBlobs)
    runtime: Runtime = field(default_factory=Runtime)
    router: MemoryRouter = field(default_factory=MemoryRouter)
    ids: Iterator[str] = field(default_factory=lambda: (f"p{i}" for i in itertools.count(1)))

    timeout_s: float | None = None
    memory: float = math.inf
    tracing: Tracing | None = None
    told: FeedbackPolicy | None = None

    def __post_init__(self) -> None:
        ports = self.blobs, self.runtime, self.log, self.labels, self.clock, self.router, self.ids
        self.engine = Engine(*ports, timeout_s=self.timeout_s, memory=self.memory, tracing=self.tracing, told=self.told)

    def bundle(self, onnx: bytes | Callable[..., Any], schema: Schema = BINARY, **changes: Any) -> str:
        if callable(onnx):
            name = f"python:{len(self.runtime.functions)}"
            self.runtime.functions[name] = onnx
            onnx = name.encode()
        manifest = Bundle("fraud", schema, 0.5, 1.0, {"model.onnx": self.blobs.put(onnx)}, "run", 1, 0)
        return self.blobs.put(codec.encode(replace(manifest, **changes)))

    def route(self, champion: str, candidate: str | None = None, **changes: Any) -> None:
        arm = Arm(2, candidate) if candidate else None
        route = Route("R1", Arm(1, champion), arm, salt="salt", **changes)
        self.router.publish(Routing(self.router.read().version + 1, {"fraud": route}))
        self.engine.refresh()

    def ask(self, *bodies: Any, path: str = "/v1/models/fraud/predict", plain: bool = True) -> list[Response]:
        encoded = [body if isinstance(body, bytes) else json.dumps(body).encode() for body in bodies]
        return self.engine.answer([Request("POST", path, body, plain=plain) for body in encoded])

    def records(self, *records: Mapping[str, Any]) -> Response:
        return self.ask({"records": list(records)})[0]

    def get(self, path: str) -> Response:
        return self.engine.answer([Request("GET", path)])[0]

    def rows(self) -> list[dict[str, Any]]:
        return self.log.read("fraud", 0, 2**62).to_dicts()


def loads(response: Response) -> Any:
    return json.loads(response.body)
