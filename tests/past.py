"""A week of recorded requests in memory, a champion that answered them, and candidates to be tried on them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from homeostat import codec
from homeostat.domain.bundle import Bundle, Version
from homeostat.domain.errors import NotFound
from homeostat.domain.policy import DataPolicy, LogPolicy, Policy, ReleasePolicy, TrainPolicy
from homeostat.domain.prediction import LabelBatch, LogBatch
from homeostat.domain.schema import Field, Kind, Schema, Task
from homeostat.domain.units import DAY_MS, HOUR_MS
from homeostat.engines.answer import answers
from homeostat.engines.transform import matrix
from homeostat.ports import Model
from homeostat.services.backtest import Backtests
from homeostat.services.bundles import Bundles
from homeostat.stores.memory_log import MemoryLabels, MemoryLog

MODEL = "fraud"
END_MS = 20_000 * DAY_MS
FIELDS = (
    Field("amount", Kind.NUMBER),
    Field("items", Kind.INTEGER, nullable=True),
    Field("member", Kind.BOOLEAN),
    Field("country", Kind.TEXT, vocabulary=("de", "fr", "pl")),
)
SCHEMA = Schema(FIELDS, Task.BINARY, "fraud", ("no", "yes"))
PL = 2.0
"""The code of pl."""

Matrix = NDArray[np.float32]
Output = NDArray[np.float64]


def truth(x: Matrix) -> Output:
    """(n,) the probability of fraud, as nobody knows it."""
    return np.asarray(1 / (1 + np.exp(-(x[:, 0].astype(np.float64) - 50) / 10)))


def of(p: Output) -> Output:
    return np.column_stack([1 - p, p])


def good(x: Matrix, /) -> Output:
    return of(truth(x))


def better_calibrated(x: Matrix, /) -> Output:
    """Another model that is as good."""
    return of(np.clip(truth(x) + 0.004 * np.sin(x[:, 0]), 0, 1))


def raises(x: Matrix, /) -> Output:
    """On the 5 % with the largest amounts."""
    if (x[:, 0] > 86).any():
        raise ValueError("too large")
    return good(x)


def nan(x: Matrix, /) -> Output:
    return np.where((x[:, 0] > 88)[:, None], np.nan, good(x))


def wrong_in_pl(x: Matrix, /) -> Output:
    return of(np.where(x[:, 3] == PL, 1 - truth(x), truth(x)))


def wrong(x: Matrix, /) -> Output:
    """Plausible: its scores are distributed as they should be."""
    return of(1 - truth(x))


class Clock:
    """Its timer goes on only while a model works: `took_us` says how long."""

    def __init__(self) -> None:
        self.ns = 0

    def now_ms(self) -> int:
        return END_MS

    def timer_ns(self) -> int:
        return self.ns


class Blobs:
    def __init__(self) -> None:
        self.held: dict[str, bytes] = {}

    def put(self, data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        self.held[digest] = data
        return digest

    def get(self, digest: str) -> bytes:
        if digest not in self.held:
            raise NotFound(f"no blob {digest[:12]}")
        return self.held[digest]


class Past:
    """`n` requests over a week at even steps; those of the last day have no label yet."""

    def __init__(self, n: int = 4_000, policy: ReleasePolicy | None = None, log: LogPolicy | None = None) -> None:
        data, train = DataPolicy("x.csv", "fraud", label_horizon=DAY_MS), TrainPolicy("roc_auc")
        release, kept = policy or ReleasePolicy(), log or LogPolicy()
        self.policy = Policy(MODEL, Task.BINARY, data, train, release=release, log=kept)
        self.log, self.labels, self.clock, self.blobs = MemoryLog(), MemoryLabels(), Clock(), Blobs()
        self.functions: dict[bytes, Model] = {}
        self.champion = self.version(1, good)
        self.backtests = Backtests(self.policy, self.log, self.labels, Bundles(self.blobs), self, self.clock)
        self.inputs = self._recorded(n)

    def load(self, onnx: bytes) -> Model:
        """`ports.Runtime`: every model is a Python function whose calls take time on the clock."""
        return self.functions[onnx]

    def version(
        self, number: int, model: Model, took_us: Callable[[Matrix], float] = lambda _x: 100.0, **changes: object
    ) -> Version:
        def timed(x: Matrix, /) -> Output:
            self.clock.ns += round(1_000 * took_us(x))
            return model(x)

        name = f"model {number}".encode()
        self.functions[name] = timed
        files = {"model.onnx": self.blobs.put(name)}
        bundle = replace(Bundle(MODEL, SCHEMA, 0.5, 1.0, files, f"run-{number}", 1, 0), **changes)
        return Version(MODEL, number, self.blobs.put(codec.encode(bundle)), bundle.run)

    def _recorded(self, n: int) -> pl.DataFrame:
        rng = np.random.default_rng(7)
        inputs = pl.DataFrame(
            {
                "amount": np.round(rng.uniform(0, 90, n), 2),
                "items": [None if i % 50 == 0 else i % 7 for i in range(n)],
                "member": rng.random(n) < 0.4,
                "country": rng.choice(["de", "fr", "pl"], n, p=[0.6, 0.3, 0.1]),
            }
        )
        x = matrix(SCHEMA, inputs.to_dict())
        fraud = rng.random(n) < truth(x)
        at_ms = END_MS - 7 * DAY_MS + np.arange(n) * (7 * DAY_MS) // n
        said = answers(SCHEMA, 0.5, good(x))
        for first in range(0, n, 500):
            here = slice(first, min(first + 500, n))
            m = here.stop - here.start
            ids = [f"p{i}" for i in range(n)[here]]
            for at in sorted(set((at_ms[here] // HOUR_MS).tolist())):
                some = [i for i in range(m) if at_ms[first + i] // HOUR_MS == at]
                self._append(ids, some, first, int(at_ms[first + some[0]]), inputs, said)
            due = [i for i in range(m) if at_ms[first + i] < END_MS - DAY_MS]
            self.labels.append(
                LabelBatch(
                    [ids[i] for i in due],
                    ["yes" if fraud[first + i] else "no" for i in due],
                    [int(at_ms[first + i]) + DAY_MS for i in due],
                )
            )
        return inputs

    def _append(self, ids, some, first, at_ms, inputs, said) -> None:
        m = len(some)
        self.log.append(
            LogBatch(
                model=MODEL,
                at_ms=at_ms,
                release="R1",
                weight=0,
                id=[ids[i] for i in some],
                key=[None] * m,
                version=[1] * m,
                arm=["champion"] * m,
                role=["answer"] * m,
                status=["ok"] * m,
                model_us=[100] * m,
                score=[said.score[first + i] for i in some],
                label=[said.label[first + i] for i in some],
                scores=[None] * m,
                inputs={name: [inputs[name][first + i] for i in some] for name in inputs.columns},
            )
        )
