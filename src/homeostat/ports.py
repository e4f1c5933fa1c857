"""Every shape the outside may fill. A backend is one class in stores/ or adapters/, chosen in wiring."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import date
from types import ModuleType
from typing import Any, Protocol, TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from homeostat.domain.bundle import Version
from homeostat.domain.event import Event
from homeostat.domain.gate import Measurement
from homeostat.domain.message import Message, Output, Standing
from homeostat.domain.prediction import LabelBatch, LogBatch, SignalBatch
from homeostat.domain.rollout import Rollout, Routing, Term
from homeostat.domain.run import CodeState


class Clock(Protocol):
    """Time. `now_ms` is milliseconds since 1970; `timer_ns` measures durations and has no epoch."""

    def now_ms(self) -> int: ...

    def timer_ns(self) -> int: ...


class Meter(Clock, Protocol):
    """A clock that also knows what this process has cost."""

    def cpu_ns(self) -> int:
        """CPU time of all its threads so far."""
        ...


class Tables(Protocol):
    """Tables with versions. A write is atomic: a reader sees all of it or none."""

    def write(self, name: str, frame: pl.DataFrame) -> int:
        """Replace the content. → the new version."""
        ...

    def append(self, name: str, frame: pl.DataFrame) -> int:
        """Add rows. → the new version."""
        ...

    def read(self, name: str, version: int | None = None) -> pl.LazyFrame:
        """The rows of a version, the newest by default. Errors: `NotFound`."""
        ...

    def version(self, name: str) -> int | None:
        """The newest version, None where there is no such table."""
        ...


class Blobs(Protocol):
    """Immutable bytes under their SHA-256 digest."""

    def put(self, data: bytes) -> str:
        """→ the digest; writing the same bytes again changes nothing."""
        ...

    def get(self, digest: str) -> bytes:
        """Errors: `NotFound`, `Corrupt` when the bytes no longer match."""
        ...


class StepCache(Protocol):
    """Results of pipeline steps by key. Written atomically: a half-written result does not exist."""

    def get(self, key: str) -> Any:
        """The result, or `MISSING`."""
        ...

    def put(self, key: str, value: Any) -> None: ...


class PredictionLog(Protocol):
    """The record of every answer. `append` returns only when a `kill -9` can no longer lose the rows."""

    def append(self, batch: LogBatch) -> None: ...

    def read(self, model: str, start_ms: int, end_ms: int, inputs: bool = True, share: float = 1.0) -> pl.DataFrame:
        """Rows with start_ms <= at_ms < end_ms in order of arrival; columns: `LOG_COLUMNS`. No row twice. Whoever does
        not need the `inputs` may be spared them, which are most of the work: there is then no field in them. `share`:
        only the rows of about so many of the ids, always the same ones."""
        ...

    def find(self, prediction_id: str) -> pl.DataFrame:
        """The rows of one prediction id, of any model; else those of one W3C trace id. Empty when there is none."""
        ...


SHEET_BYTES = 262_144
"""Of the memory that a process counts in."""


class Shared(Protocol):
    """Memory of `SHEET_BYTES` for each process of a data plane: it outlives its process, and the others can read it."""

    def own(self) -> Any:
        """This process's, with what it held when its process of this name was there last."""
        ...

    def all(self) -> Sequence[tuple[str, int | None, Any]]:
        """Of every process there is or was: its name, its pid (None: it has ended), its memory."""
        ...


class LabelLog(Protocol):
    """What became of predictions, by id: labels, and signals by name. As received; nothing is overwritten."""

    def append(self, batch: LabelBatch) -> None: ...

    def read(self, start_ms: int, end_ms: int, ids: pl.Series | None = None) -> pl.DataFrame:
        """The label of each id that counts, of those with start_ms <= at_ms < end_ms; columns: `LABEL_COLUMNS`. With
        `ids` of these alone: no more than they are is held in memory."""
        ...

    def received(self, start_ms: int, end_ms: int, ids: pl.Series | None = None) -> pl.DataFrame:
        """Every one of them, in order of time; columns: `LABEL_COLUMNS`."""
        ...

    def mark(self) -> int:
        """Of this moment, for `arrived`."""
        ...

    def arrived(self, mark: int, start_ms: int) -> pl.DataFrame:
        """What was received since then, in that order, of those with start_ms <= at_ms; columns: `LABEL_COLUMNS`. Some
        of what was received shortly before may be told again."""
        ...

    def append_signals(self, batch: SignalBatch) -> None: ...

    def signals(self, start_ms: int, end_ms: int, name: str = "") -> pl.DataFrame:
        """The last of each id and name with start_ms <= at_ms < end_ms; columns: `SIGNAL_COLUMNS`. With `name` of this
        one alone: no others are held in memory."""
        ...

    def events(self, start_ms: int, end_ms: int) -> pl.DataFrame:
        """Every one of them, and those of entities, in order of time; columns: `EVENT_COLUMNS`."""
        ...


class Census(Protocol):
    """Counts rows of the prediction log on their way into its table."""

    def __call__(self, model: str, held: bytes | None, rows: pl.DataFrame, /) -> bytes:
        """What an hour holds with `rows` (`LOG_COLUMNS`), when it held `held` before (None: no row)."""
        ...


class Counted(Protocol):
    """What a `Census` has counted."""

    def read(self, model: str, start_ms: int, end_ms: int, /) -> Mapping[int, bytes] | None:
        """The counts of each hour of the stretch that holds rows, by its start (ms). None: they are not known."""
        ...

    def waits(self, model: str, end_ms: int, /) -> bool:
        """Rows from before `end_ms` are still on their way."""
        ...


class Archive(Protocol):
    """The logs' tables, day by day. A day is in UTC."""

    def compact(self) -> tuple[int, int]:
        """Move what the workers have closed into the tables, each row once. → rows moved, damaged records lost."""
        ...

    def days(self) -> Mapping[date, int]:
        """Bytes of each day, oldest first."""
        ...

    def remove(self, before: date) -> None:
        """Drop the days before that one."""
        ...

    def tidy(self, today: date) -> None:
        """Merge small files, delete those that nobody needs."""
        ...


class Journal(Protocol):
    """Append-only history of the loop."""

    def append(self, event: Event) -> bool:
        """→ False when an event with this model and key is there already; nothing is written then. Errors:
        `Deposed`."""
        ...

    def read(self, model: str, kind: str = "", subject: str = "") -> Sequence[Event]:
        """Events in the order they were written; `kind` matches as a prefix, "" matches all."""
        ...


class Rollouts(Protocol):
    """The records of releases."""

    def save(self, rollout: Rollout) -> Rollout:
        """Write it if the stored revision is `rollout.revision` (0: it must be new). → it, one revision up.
        Errors: `Refused` when another writer was first; `Deposed`."""
        ...

    def all(self, model: str) -> Sequence[Rollout]:
        """Oldest first."""
        ...


class Routes(Protocol):
    """The routing document, for those who follow it."""

    def read(self) -> Routing: ...


class Router(Routes, Protocol):
    """The routing document: replaced whole, never edited."""

    def publish(self, routing: Routing) -> None:
        """The store puts in the term of the writer. Errors: `Refused` unless routing.version is the published version
        + 1; `Deposed` when the published term is a later one."""
        ...


class Leases(Protocol):
    """Who leads, of several control planes on one database: one row a model. What counts is whether the row moves, so
    that no two clocks need to agree."""

    def read(self, model: str) -> Term: ...

    def take(self, seen: Term, model: str, holder: str) -> Term | None:
        """A new term, if the row still is as it was `seen`."""
        ...

    def beat(self, term: Term, model: str) -> Term | None:
        """A sign of life, unless somebody has taken over."""
        ...

    def leave(self, term: Term, model: str) -> None:
        """The next one need not wait."""
        ...


class Hook(Protocol):
    """What the project wants run, or told, when a release moves."""

    def run(self, hook: str, message: Mapping[str, Any]) -> str:
        """`hook`: a command, or an http(s) URL. → why it failed, "" when it did not."""
        ...


class Channels(Protocol):
    """Where people hear of alerts."""

    def tell(self, address: str, title: str, text: str, severity: str) -> str:
        """`severity`: info, warning, critical, or over. → why it was not delivered, "" when it was; the address is a
        secret and in no answer."""
        ...


class Plane(Protocol):
    """What the control plane asks of the data plane."""

    def ready(self, model: str, bundle: str) -> bool:
        """Every worker has the bundle loaded and its sample gives the stored scores."""
        ...


class Asked(Protocol):
    """A request, as far as a trace tells of it."""

    method: str
    path: str
    headers: Mapping[str, str]


class Told(Protocol):
    """An answer that can be given more headers."""

    status: int

    @property
    def headers(self) -> Sequence[tuple[str, str]]: ...

    def add(self, *headers: tuple[str, str]) -> None: ...


class TickTrace(Protocol):
    """What a distributed trace learns of one tick."""

    def stage(self, name: str) -> None:
        """The stage `name` is over; it began with the tick, or with the end of the stage before."""
        ...

    def end(self, requests: Sequence[Asked], answers: Sequence[Told]) -> None:
        """Their spans; the answers carry the trace context on."""
        ...


class Tracing(Protocol):
    """Where the spans of the data plane go."""

    def tick(self) -> TickTrace:
        """A tick begins. Ticks of several threads may run at the same time."""
        ...


class Tracker(Protocol):
    """Experiment tracking and the model registry (MLflow)."""

    def log_run(
        self,
        run: str,
        model: str,
        params: Mapping[str, str],
        measurements: Sequence[Measurement],
        files: Mapping[str, bytes],
    ) -> None:
        """Record a finished run. Repeating it with the same `run` changes nothing."""
        ...

    def register(self, model: str, run: str, bundle: str, onnx: bytes) -> Version:
        """A new version, or the one that this run has already."""
        ...

    def alias(self, version: Version, alias: str) -> None:
        """Point `alias` (champion, challenger) at the version."""
        ...

    def versions(self, model: str) -> Sequence[Version]:
        """Oldest first."""
        ...


class Code(Protocol):
    """The project's own Python code."""

    def module(self, name: str) -> ModuleType:
        """Import it from the project folder. Errors: `PipelineError`."""
        ...

    def at_home(self) -> AbstractContextManager[None]:
        """While it lasts, the project's modules can be imported by name, so that what they define can be pickled."""
        ...

    def sources(self) -> Mapping[str, str]:
        """Every module of the project: dotted name → source text."""
        ...

    def state(self) -> CodeState: ...

    def place(self, error: BaseException) -> str:
        """The innermost line of the project's own code in the error's traceback, as file:line; "" without one."""
        ...


Compute = Callable[[], Any]
Through = Callable[[str, str, Mapping[str, Any], Compute], Any]
"""(name of the step, name of its function, its inputs, how to compute it) → its result, computed or known."""


class Pipeline(Protocol):
    """Runs a graph of plain functions: a function's name is what it makes, its parameters are what it needs."""

    def __call__(
        self, module: ModuleType, wanted: Sequence[str], given: Mapping[str, Any], through: Through
    ) -> Mapping[str, Any]:
        """The `wanted` results that the module makes; every step goes through `through`. Errors: `PipelineError`
        when the graph does not hold together; what the functions raise passes."""
        ...


class Model(Protocol):
    """A loaded model: float32 (n, k) → float64 (n, c), the probabilities of the c classes; c = 1 for a value."""

    def __call__(self, x: NDArray[np.float32], /) -> NDArray[np.float64]: ...


class Runtime(Protocol):
    """Loads the model file of a bundle."""

    def load(self, onnx: bytes) -> Model: ...


class Converter(Protocol):
    """Makes the model file of a bundle."""

    def __call__(self, estimator: Any, features: int) -> bytes:
        """A fitted estimator over (n, features) float32 → ONNX bytes. Errors: `PipelineError`."""
        ...


Item = TypeVar("Item")
Result = TypeVar("Result")


class Cluster(Protocol):
    """Other machines."""

    def each(self, work: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
        """`work` of each item, in the order in which they are ready; what a dead worker had is done again. `work` is
        sent there pickled. Errors: `UsageError` when the cluster's package is not installed, `HomeostatError` when an
        item fails for good."""
        ...


Progress = Callable[[int, int, str], None]
"""done, total, what is being done."""


class Stream(Protocol):
    """One consumer of a topic and the topics that its answers go to. What was taken is taken again, by this consumer
    or by another of its group, until it is settled. Every method raises `Unavailable` while the server does not
    answer, and may be called again then."""

    def take(self, limit: int, wait_s: float) -> Sequence[Message]:
        """What is there, at most `limit`; waits for the first, at most `wait_s`."""
        ...

    def settle(self, taken: Sequence[Message], outputs: Sequence[Output]) -> None:
        """Write the outputs; once the server has confirmed each of them, the messages are done with."""
        ...

    def rest(self, wait_s: float) -> None:
        """Stay in the group for so long without taking a message."""
        ...

    def standing(self) -> Standing: ...

    def close(self) -> None:
        """Leave the group. What is not settled goes to the others."""
        ...


class _Missing:
    """The only value of its type: what `StepCache.get` gives for a key that is not there."""


MISSING = _Missing()
