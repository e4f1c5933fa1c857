"""A small world for services: every port they need in memory, a clock that tests move, and crashes on demand."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from homeostat import codec
from homeostat.domain.bundle import Bundle, Version
from homeostat.domain.errors import NotFound
from homeostat.domain.policy import DataPolicy, Policy, ReleasePolicy, TrainPolicy
from homeostat.domain.rollout import Route
from homeostat.domain.schema import Field, Kind, Schema, Task
from homeostat.domain.units import DAY_MS, HOUR_MS
from homeostat.ports import Model
from homeostat.services.backtest import Backtests
from homeostat.services.bundles import Bundles
from homeostat.services.rollouts import Releases
from homeostat.stores.memory import MemoryJournal, MemoryRollouts, MemoryRouter

MODEL = "price"
SCHEMA = Schema((Field("x", Kind.NUMBER),), Task.BINARY, "y", (0, 1))
START_MS = 1_000 * DAY_MS
LOG = {
    "id": pl.String,
    "key": pl.String,
    "at_ms": pl.Int64,
    "release": pl.String,
    "version": pl.Int64,
    "arm": pl.String,
    "role": pl.String,
    "weight": pl.Int64,
    "status": pl.String,
    "model_us": pl.Int64,
    "score": pl.Float64,
    "label": pl.String,
    "scores": pl.List(pl.Float64),
    "inputs": pl.Struct({"x": pl.Float64}),
}
LABELS = {"id": pl.String, "label": pl.String, "at_ms": pl.Int64}

Answer = Callable[[str, int], tuple[str, float | None]]
"""A version's behaviour: prediction id, true class → status and score."""


def unit(*parts: object) -> float:
    """A number in [0, 1) that depends on the parts alone."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def right(share: float, name: str = "") -> Answer:
    """Right with this probability; `name` makes two of them independent."""
    return lambda row, truth: ("ok", float(truth if unit(row, "right", name) < share else 1 - truth))


def failing(share: float, status: str = "error") -> Answer:
    """Fails with this probability, else it is as good as `right(.9)`."""
    return lambda row, truth: (status, None) if unit(row, "fails") < share else right(0.9)(row, truth)


def truth_of(row: str) -> int:
    return int(unit(row, "truth") < 0.5)


GOOD = right(0.9)


class Crash(BaseException):
    """The process was killed: nothing catches it."""


@dataclass
class Calls:
    """Counts port calls, and dies at the `crash_at`th: before it, or `after` it took effect."""

    count: int = 0
    crash_at: int = -1
    after: bool = False
    names: list[str] = field(default_factory=list)


class Port:
    """A port that may die."""

    def __init__(self, target: object, calls: Calls) -> None:
        self._target, self._calls = target, calls

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # asked by copy.deepcopy
            raise AttributeError(name)

        def call(*args: Any) -> Any:
            calls = self._calls
            dies = calls.count == calls.crash_at
            calls.count += 1
            calls.names.append(name)
            if dies and not calls.after:
                raise Crash(name)
            result = getattr(self._target, name)(*args)
            if dies:
                raise Crash(name)
            return result

        return call


class Frames:
    """`PredictionLog` and `LabelLog`, each over one frame."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self.frame = pl.DataFrame(schema=schema)

    def add(self, rows: list[tuple[Any, ...]]) -> None:
        self.frame = pl.concat([self.frame, pl.DataFrame(rows, self.frame.schema, orient="row")])

    def between(self, start_ms: int, end_ms: int) -> pl.DataFrame:
        return self.frame.filter(pl.col("at_ms").is_between(start_ms, end_ms, closed="left"))


class Log(Frames):
    def read(self, _model: str, start_ms: int, end_ms: int, _inputs: bool = True, _share: float = 1.0) -> pl.DataFrame:
        return self.between(start_ms, end_ms)


class Labels(Frames):
    def read(self, start_ms: int, end_ms: int, ids: pl.Series | None = None) -> pl.DataFrame:
        found = self.between(start_ms, end_ms).unique("id", keep="last", maintain_order=True)
        return found if ids is None else found.filter(pl.col("id").is_in(ids.implode()))


class World:
    """One model. `answers` gives each version's behaviour; `coverage` which rows get a label; with `recorded` releases
    begin with their backtest, where the policy says so."""

    def __init__(
        self,
        policy: ReleasePolicy | None = None,
        horizon_ms: int = DAY_MS,
        per_day: int = 48,
        recorded: bool = False,
    ) -> None:
        self.now, self.horizon_ms, self.per_day, self.recorded = START_MS, horizon_ms, per_day, recorded
        data, train = DataPolicy("x.csv", "y", label_horizon=horizon_ms), TrainPolicy("roc_auc")
        self.policy = Policy(MODEL, Task.BINARY, data, train, release=policy or ReleasePolicy())
        self.journal, self.rollouts, self.router = MemoryJournal(), MemoryRollouts(), MemoryRouter()
        self.log, self.labels = Log(LOG), Labels(LABELS)
        self.stored: dict[str, bytes] = {}
        self.hooked: list[str] = []
        self.hook_fails = ""
        self.aliases: dict[str, int] = {}
        self.loaded: set[str] = set()
        self.answers: dict[int, Answer] = {}
        self.coverage: Callable[[str, str], bool] = lambda _row, _arm: True
        self.calls = Calls()
        self.releases = self.restart()
        self._due: list[tuple[int, str, str]] = []
        self._sent = 0

    def restart(self) -> Releases:
        """A new process over the same stores."""
        ports = (self.rollouts, self.journal, self.router, self, self.log, self.labels, self, self, self, self)
        log, labels, blobs = (Port(port, self.calls) for port in (self.log, self.labels, self))
        tried = Backtests(self.policy, log, labels, Bundles(blobs), self, self) if self.recorded else None
        self.releases = Releases(self.policy, *(Port(port, self.calls) for port in ports), tried)
        return self.releases

    def version(self, number: int, answer: Answer) -> Version:
        files = {"model.onnx": self.put(f"model {number}".encode())} if self.recorded else {}
        bundle = Bundle(MODEL, SCHEMA, 0.5, 1.0, files, f"run-{number}", 0, 0)
        self.answers[number] = answer
        return Version(MODEL, number, self.put(codec.encode(bundle)), bundle.run)

    def load(self, onnx: bytes) -> Model:
        """`ports.Runtime`: x is the number of the request."""
        number = int(onnx.decode().removeprefix("model "))

        def model(x: NDArray[np.float32], /) -> NDArray[np.float64]:
            rows = [f"p{int(k)}" for k in x[:, 0]]
            said = [self.answers[number](row, truth_of(row)) for row in rows]
            if any(status == "error" for status, _ in said):
                raise ValueError("a failure")
            p = np.array([np.nan if score is None else score for _, score in said])
            return np.column_stack([1 - p, p])

        return model

    # Clock, Plane, Tracker, Blobs, Hook

    def timer_ns(self) -> int:
        """No call takes any time."""
        return 0

    def put(self, data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        self.stored[digest] = data
        return digest

    def run(self, _hook: str, message: Mapping[str, Any]) -> str:
        self.hooked.append(message["id"])
        return self.hook_fails

    def now_ms(self) -> int:
        return self.now

    def ready(self, _model: str, bundle: str) -> bool:
        return bundle in self.loaded

    def alias(self, version: Version, alias: str) -> None:
        self.aliases[alias] = version.number

    def get(self, digest: str) -> bytes:
        if digest not in self.stored:
            raise NotFound(f"no blob {digest}")
        return self.stored[digest]

    # traffic

    @property
    def route(self) -> Route | None:
        return self.router.read().routes.get(MODEL)

    def serve(self, duration_ms: int) -> None:
        """Requests at an even pace, each answered as the route says; labels that are due by then."""
        end = self.now + duration_ms
        rows: list[tuple[Any, ...]] = []
        route = self.route
        if route is not None:
            self.loaded |= {arm.bundle for arm in (route.champion, route.candidate) if arm}
        pace = DAY_MS / self.per_day
        while START_MS + (self._sent + 1) * pace <= end:
            self._sent += 1
            if route is not None:
                rows += self._answer(f"p{self._sent}", round(START_MS + self._sent * pace), route)
        self.log.add(rows)
        self.now = end
        self.labels.add([(row, label, at) for at, row, label in self._due if at <= end])
        self._due = [due for due in self._due if due[0] > end]

    def _answer(self, row: str, at: int, route: Route) -> list[tuple[Any, ...]]:
        truth, inputs = truth_of(row), {"x": float(row[1:])}
        chosen = route.candidate and unit(route.salt, row) * 10_000 < route.weight
        arm = "candidate" if chosen else "champion"
        first, second = (route.candidate, route.champion) if chosen else (route.champion, route.candidate)
        assert first is not None
        if self.coverage(row, arm):
            self._due.append((at + self.horizon_ms, row, str(truth)))

        def scored(version: int, role: str) -> tuple[Any, ...]:
            status, score = self.answers[version](row, truth)
            under = route.release, version, arm, role, route.weight
            return (row, None, at, *under, status, 100, score, None, None, inputs)

        mine = scored(first.version, "answer")
        if chosen and mine[8] != "ok":
            return [(*mine[:6], "failed", *mine[7:]), scored(route.champion.version, "answer")]
        return [mine, scored(second.version, "shadow")] if second and route.shadow else [mine]

    # the control loop

    def settle(self) -> None:
        """Passes until nothing moves; a killed process starts again."""
        for _ in range(50):
            try:
                if self.releases.reconcile().do.value == "hold":
                    return
            except Crash:
                self.restart()
        raise AssertionError("the loop does not come to rest")

    def live(self, duration_ms: int, step_ms: int = 2 * HOUR_MS) -> None:
        for _ in range(duration_ms // step_ms):
            self.serve(step_ms)
            self.settle()

    def promote_first(self, answer: Answer = GOOD) -> Version:
        first = self.version(1, answer)
        self.releases.start(first)
        self.settle()
        self.live(HOUR_MS, HOUR_MS)
        return first
