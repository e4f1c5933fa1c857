"""A week of recorded requests in memory, the champion that answered them, and candidates to be tried on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from homeostat import codec
from homeostat.domain.backtest import Backtested
from homeostat.domain.bundle import Bundle, Version
from homeostat.domain.policy import DataPolicy, LogPolicy, Policy, ReleasePolicy, TrainPolicy
from homeostat.domain.prediction import LabelBatch, LogBatch
from homeostat.domain.schema import Field, Kind, Schema, Task
from homeostat.domain.units import DAY_MS, HOUR_MS
from homeostat.engines.answer import answers
from homeostat.engines.transform import matrix
from homeostat.ports import Model
from homeostat.services.backtest import Backtests
from homeostat.services.bundles import Bundles
from homeostat.stores.memory_data import MemoryBlobs
from homeostat.stores.memory_log import MemoryLabels, MemoryLog

MODEL = "fraud"
END_MS = 20_000 * DAY_MS
START_MS = END_MS - 7 * DAY_MS
SCHEMA = Schema(
    (
        Field("amount", Kind.NUMBER),
        Field("items", Kind.INTEGER, nullable=True),
        Field("member", Kind.BOOLEAN),
        Field("country", Kind.TEXT, vocabulary=("de", "fr", "pl")),
    ),
    Task.BINARY,
    "fraud",
    ("no", "yes"),
)
PL = 2.0
"""The code of pl."""

Matrix = NDArray[np.float32]
Output = NDArray[np.float64]


def risk(x: Matrix) -> Output:
    """(n,) the probability of fraud, as nobody knows it."""
    return np.asarray(1 / (1 + np.exp(-(x[:, 0].astype(np.float64) - 50) / 10)))


def of(p: Output) -> Output:
    return np.column_stack([1 - p, p])


def good(x: Matrix, /) -> Output:
    return of(risk(x))


def as_good(x: Matrix, /) -> Output:
    """Another model, with other answers."""
    return of(np.clip(risk(x) + 0.004 * np.sin(x[:, 0]), 0, 1))


def raises(x: Matrix, /) -> Output:
    """On the 5 % with the largest amounts."""
    if (x[:, 0] > 85.5).any():
        raise ValueError("too large")
    return good(x)


def gives_nan(x: Matrix, /) -> Output:
    return np.where((x[:, 0] > 88)[:, None], np.nan, good(x))


def wrong_in_pl(x: Matrix, /) -> Output:
    return of(np.where(x[:, 3] == PL, 1 - risk(x), risk(x)))


def wrong(x: Matrix, /) -> Output:
    """Plausible: its scores are distributed as they should be."""
    return of(1 - risk(x))


def quick(_x: Matrix) -> float:
    return 100.0


def slow_tail(x: Matrix) -> float:
    """Four times as long on the tenth with the largest amounts."""
    return 400.0 if (x[:, 0] > 81).any() else 100.0


def late_tail(x: Matrix) -> float:
    """A little later than the champion ever is."""
    return 340.0 if (x[:, 0] > 81).any() else 100.0


class Clock:
    """Its timer goes on only while a model works."""

    def __init__(self) -> None:
        self.ms, self.ns = END_MS, 0

    def now_ms(self) -> int:
        return self.ms

    def timer_ns(self) -> int:
        return self.ns


class Past:
    """`n` requests at even steps over a week, answered by version 1; those of the last day have no label yet."""

    def __init__(self, n: int = 4_000, release: ReleasePolicy | None = None, kept: LogPolicy | None = None) -> None:
        data, train = DataPolicy("x.csv", "fraud", label_horizon=DAY_MS), TrainPolicy("roc_auc")
        rules = {"release": release or ReleasePolicy(), "log": kept or LogPolicy()}
        self.policy = Policy(MODEL, Task.BINARY, data, train, **rules)
        self.log, self.labels, self.clock, self.blobs = MemoryLog(), MemoryLabels(), Clock(), MemoryBlobs()
        self.models: dict[bytes, Model] = {}
        self.champion = self.version(1, good)
        self.backtests = self.restart()
        self._record(n)

    def restart(self) -> Backtests:
        """In a new process."""
        self.backtests = Backtests(self.policy, self.log, self.labels, Bundles(self.blobs), self, self.clock)
        return self.backtests

    def load(self, onnx: bytes) -> Model:
        """`ports.Runtime`: a model is a Python function whose calls take time on the clock."""
        return self.models[onnx]

    def version(self, number: int, model: Model, took_us: Callable[[Matrix], float] = quick, **changes: Any) -> Version:
        def timed(x: Matrix, /) -> Output:
            self.clock.ns += round(1_000 * took_us(x))
            return model(x)

        name = f"model {number}".encode()
        self.models[name] = timed
        bundle = Bundle(MODEL, SCHEMA, 0.5, 1.0, {"model.onnx": self.blobs.put(name)}, f"run-{number}", 1, 0)
        digest = self.blobs.put(codec.encode(replace(bundle, **changes)))
        return Version(MODEL, number, digest, bundle.run)

    def tried(self, model: Model, took_us: Callable[[Matrix], float] = quick, **changes: Any) -> Backtested:
        """The backtest of that model as version 2."""
        candidate = self.version(2, model, took_us, **changes)
        return self.backtests.between(self.champion, candidate, START_MS, END_MS, lambda *_: None)

    def append(self, ids: list[str], at_ms: int, inputs: pl.DataFrame, **changes: Any) -> None:
        """Answers of version 1 in one turn of the data plane."""
        n, said = len(ids), answers(SCHEMA, 0.5, good(matrix(SCHEMA, inputs.to_dict())))
        batch = LogBatch(
            model=MODEL,
            at_ms=at_ms,
            release="R1",
            weight=0,
            id=ids,
            key=[None] * n,
            version=[1] * n,
            arm=["champion"] * n,
            role=["answer"] * n,
            status=["ok"] * n,
            model_us=[100] * n,
            score=said.score,
            label=said.label,
            scores=said.scores,
            inputs={name: column.to_list() for name, column in inputs.to_dict().items()},
        )
        self.log.append(replace(batch, **changes))

    def _record(self, n: int) -> None:
        rng = np.random.default_rng(7)
        rows = pl.DataFrame(
            {
                "amount": np.round(rng.uniform(0, 90, n), 2),
                "items": [None if i % 50 == 0 else i % 7 for i in range(n)],
                "member": rng.random(n) < 0.4,
                "country": rng.choice(["de", "fr", "pl"], n, p=[0.6, 0.3, 0.1]),
            }
        )
        fraud = np.where(rng.random(n) < risk(matrix(SCHEMA, rows.to_dict())), "yes", "no").tolist()
        at_ms = START_MS + np.arange(n) * (7 * DAY_MS) // n // HOUR_MS * HOUR_MS
        for at in np.unique(at_ms).tolist():
            here = np.flatnonzero(at_ms == at)
            ids = [f"p{i}" for i in here]
            self.append(ids, at, rows[here])
            if at < END_MS - DAY_MS:
                self.labels.append(LabelBatch(ids, [fraud[i] for i in here], [at + DAY_MS] * len(ids)))
