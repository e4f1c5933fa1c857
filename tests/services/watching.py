"""A small world to watch: logs in lists, a simulated clock, and a model whose errors the test decides."""

from __future__ import annotations

import numpy as np
import polars as pl

from homeostat import codec
from homeostat.domain.bundle import Bundle, Version
from homeostat.domain.dataset import EVENT_MS
from homeostat.domain.errors import NotFound
from homeostat.domain.estimate import Estimated
from homeostat.domain.moved import Explained
from homeostat.domain.policy import DataPolicy, MonitorPolicy, Policy, TrainPolicy
from homeostat.domain.prediction import LABEL_COLUMNS, LOG_COLUMNS, LabelBatch, LogBatch
from homeostat.domain.rollout import Arm, ReleaseStep, Rollout, Route, Routing, Status, StepKind
from homeostat.domain.schema import Field, Kind, Schema, Task
from homeostat.domain.trigger import Probed, Remembered
from homeostat.domain.units import DAY_MS, HOUR_MS
from homeostat.engines.broken import habits
from homeostat.engines.change import baseline_of
from homeostat.engines.drift.profile import reference
from homeostat.engines.privacy import Mask
from homeostat.ports import Counted
from homeostat.services.alerts import Alerts
from homeostat.services.champion import Champions
from homeostat.services.drifts import Drifts
from homeostat.services.estimates import Estimates
from homeostat.services.holdout import FILE, pack
from homeostat.services.monitors import Monitors
from homeostat.services.moves import Moves
from homeostat.services.performance import Performances
from homeostat.services.quarantine import Quarantine
from homeostat.services.triggers import Triggers
from homeostat.services.windows import Windows
from homeostat.stores.frames import part
from homeostat.stores.memory import MemoryJournal, MemoryRollouts, MemoryRouter
from homeostat.stores.memory_data import MemoryBlobs
from homeostat.stores.memory_log import MemoryCounts

MODEL, A_DAY = "price", 96
SCHEMA = Schema((Field("hour", Kind.INTEGER), Field("amount", Kind.NUMBER)), Task.BINARY, "up", (0, 1))
POLICY = Policy(
    MODEL,
    Task.BINARY,
    DataPolicy("d.csv", "up", label_horizon=DAY_MS),
    TrainPolicy("accuracy"),
    monitor=MonitorPolicy((DAY_MS,)),
)
_TYPES = {
    "id": pl.String, "key": pl.String, "at_ms": pl.Int64, "release": pl.String, "version": pl.Int64,
    "arm": pl.String, "role": pl.String, "weight": pl.Int64, "status": pl.String, "model_us": pl.Int64,
    "score": pl.Float64, "label": pl.String, "scores": pl.List(pl.Float64),
    "inputs": pl.Struct({"hour": pl.Int64, "amount": pl.Float64}),
}  # fmt: skip


class Clock:
    def __init__(self) -> None:
        self.now = 30 * DAY_MS

    def now_ms(self) -> int:
        return self.now

    def timer_ns(self) -> int:
        return self.now * 1_000_000


class Log:
    def __init__(self) -> None:
        self.frames: list[pl.DataFrame] = [pl.DataFrame(schema=_TYPES)]
        self.reads = 0

    def append(self, batch: LogBatch) -> None:
        n = len(batch.id)
        columns = {name: getattr(batch, name) for name in LOG_COLUMNS if name != "inputs"}
        columns |= {name: [getattr(batch, name)] * n for name in ("at_ms", "release", "weight")}
        inputs = pl.DataFrame(dict(batch.inputs)).to_struct()
        self.frames.append(pl.DataFrame(columns | {"inputs": inputs}, schema=_TYPES))

    def read(self, _: str, start_ms: int, end_ms: int, _inputs: bool = True, share: float = 1.0) -> pl.DataFrame:
        self.reads += 1
        rows = pl.concat(self.frames).filter(pl.col("at_ms").is_between(start_ms, end_ms, closed="left"))
        return rows if share >= 1 else rows.filter(part(share))

    def find(self, prediction_id: str) -> pl.DataFrame:
        return pl.concat(self.frames).filter(pl.col("id") == prediction_id)


class Labels:
    def __init__(self) -> None:
        schema = {"id": pl.String, "label": pl.String, "at_ms": pl.Int64, "source": pl.String}
        self.frame = pl.DataFrame(schema=schema)

    def append(self, batch: LabelBatch) -> None:
        new = {name: getattr(batch, name) for name in LABEL_COLUMNS}
        self.frame = pl.concat([self.frame, pl.DataFrame(new, schema=self.frame.schema)])

    def read(self, start_ms: int, end_ms: int, ids: pl.Series | None = None) -> pl.DataFrame:
        within = self.frame.filter(pl.col("at_ms").is_between(start_ms, end_ms, closed="left"))
        found = within.unique("id", keep="last", maintain_order=True)
        return found if ids is None else found.filter(pl.col("id").is_in(ids.implode()))


class World:
    """`day` lives one day of traffic and labels; `monitors` and `triggers` are made anew by `restart`.
    `would_help`: what probes of a window (ms) find, `remembered` that of earlier versions; `probed`: the windows asked
    about; `needed`: the evidence last asked for, `changes`: when the world
    changed, and what was forgotten."""

    def __init__(self, policy: Policy = POLICY) -> None:
        self.policy = policy
        self.mask = Mask(frozenset(policy.log.drop), frozenset(policy.log.hash), None, b"")
        self.troubles: dict[str, str] = {}
        self.unsure = False
        self.counted: Counted = MemoryCounts()
        self.clock, self.log, self.labels, self.blobs = Clock(), Log(), Labels(), MemoryBlobs()
        self.journal, self.rollouts, self.router = MemoryJournal(), MemoryRollouts(), MemoryRouter()
        self.rng = np.random.default_rng(5)
        self.version = 0
        self.would_help: dict[int, Probed] = {}
        self.remembered: Remembered | None = None
        self.probed: list[int] = []
        self.needed, self.changes = 0.0, (0, 0)
        self.release("run-1")
        self.restart()

    def restart(self) -> None:
        self.champions = Champions(self.policy, self.journal, self.router, self.rollouts, self.blobs, self.load)
        self.performances = Performances(
            self.policy, self.log, self.labels, self.journal, self.rollouts, self.clock, self.champions
        )
        self.alerts = Alerts(self.policy, self.journal, self.clock, lambda: dict(self.troubles))
        drifts = Drifts(self.policy, self.log, self.counted, self.journal, self.blobs)
        self.quarantine = Quarantine(self.policy, self.log, self.journal, self.blobs, self.clock, self.alerts)
        self.estimates = Estimates(self.policy, self.blobs, self.journal, self.clock)
        self.moves = Moves(self.policy, self.log, self.labels, self.journal, self.blobs, self.clock)
        watched = (self.champions, drifts, self.performances, self.alerts, self.quarantine, self.estimates)
        windows = Windows(self.policy, self.log)
        self.monitors = Monitors(self.policy, windows, self.labels, self.journal, self.clock, *watched, self.explain)
        asked = (self.performances.now, self._refit, lambda _since, _least: self.remembered)
        self.triggers = Triggers(
            self.policy, self.journal, self.rollouts, self.clock, *asked, self.alerts, self._dropped
        )

    def _dropped(self) -> Estimated | None:
        champion = self.champions.now()
        return self.estimates.dropped(champion) if champion else None

    def explain(self, start_ms: int, end_ms: int) -> Explained:
        champion = self.champions.now()
        found = self.moves.explain(champion.bundle, champion.arm.version, start_ms, end_ms) if champion else None
        if found is None:
            raise NotFound("no label")
        return found

    def _refit(self, window_ms: int, sweep: bool, needed: float, changed: int, forgot: int) -> Probed:
        assert not sweep
        self.needed, self.changes = needed, (changed, forgot)
        self.probed.append(window_ms)
        return self.would_help.get(window_ms, Probed(False, "no gain", rows=9))

    def load(self, bundle: str) -> Bundle:
        return codec.decode(self.blobs.get(bundle), Bundle)

    def release(self, run: str) -> None:
        """A model trained until now answers everybody from now on."""
        self.version += 1
        rng = np.random.default_rng(self.version)
        at = np.arange(30 * A_DAY) * (DAY_MS // A_DAY)
        frame = pl.DataFrame({"hour": at // HOUR_MS % 24, "amount": rng.standard_normal(len(at)), EVENT_MS: at})
        score = rng.choice([0.1, 0.9], len(at))
        profile = reference(
            SCHEMA, frame, np.column_stack([1 - score, score]), (DAY_MS,), self.policy.monitor.rows
        ).to_bytes()
        losses = np.where(rng.random((7, A_DAY)) < 0.1, 0.81, 0.01)
        loss = baseline_of(losses.ravel(), np.repeat(np.arange(7), A_DAY))
        made = {
            "profile": profile,
            "habits.json": codec.encode(habits(SCHEMA, frame)),
            "evaluation.json": codec.encode({"loss": loss, "importance": {"hour": 0.0, "amount": 0.1}}),
            FILE: self.holdout(rng),
        }
        files = {name: self.blobs.put(data) for name, data in made.items()}
        bundle = self.blobs.put(
            codec.encode(Bundle(MODEL, SCHEMA, 0.5, 1.0, files, run, self.version, self.clock.now_ms()))
        )
        version = Version(MODEL, self.version, bundle, run)
        now = self.clock.now_ms()
        steps = (ReleaseStep(StepKind.FULL, 10_000),)
        self.rollouts.save(
            Rollout(f"R{self.version}", MODEL, None, version, steps, 0, Status.PROMOTED, now, now, "", 0, "", now)
        )
        route = Route(f"R{self.version}", Arm(self.version, bundle))
        self.router.publish(Routing(self.router.read().version + 1, {MODEL: route}))

    def holdout(self, rng: np.random.Generator) -> bytes:
        """A week in which a tenth of the answers was wrong, and half of the tenth that it was not sure of."""
        n = 7 * A_DAY
        y, sure = rng.integers(2, size=n), rng.random(n) < 0.9
        score = np.where((rng.random(n) < np.where(sure, 0.1, 0.5)) != (y == 1), 0.9, 0.1)
        score = np.where(sure, score, 0.5 + (score - 0.5) / 4)
        inputs = pl.DataFrame({"hour": np.arange(n) * 24 // A_DAY % 24, "amount": rng.standard_normal(n)})
        return pack(inputs, y.astype(np.float64), np.column_stack([1 - score, score]))

    def day(self, wrong: float = 0.1, shift: float = 0.0, stuck: bool = False, cents: bool = False) -> None:
        """96 answers with the share `wrong` of errors, amounts moved by `shift` sd or always the same, labels a day
        later; or amounts in cents, all refused. The loop looks every six hours."""
        for _ in range(4):
            for _ in range(A_DAY // 4):
                self._answer(wrong, shift, stuck, cents)
                self.clock.now += DAY_MS // A_DAY
            self.monitors.watch()
            self.triggers.check()

    def _answer(self, wrong: float, shift: float, stuck: bool, cents: bool) -> None:
        now, rng = self.clock.now, self.rng
        name, truth = f"p{now}", int(rng.integers(2))
        score = 0.9 if (rng.random() < wrong) != bool(truth) else 0.1
        score = 0.5 + (score - 0.5) / 4 if self.unsure else score
        amount = 0.125 if stuck else float(rng.standard_normal() + shift) * (100 if cents else 1)
        inputs = {"hour": [now // HOUR_MS % 24], "amount": [amount]}
        role, status = ("rejected", "rejected") if cents else ("answer", "ok")
        made = LogBatch(
            MODEL, now, f"R{self.version}", 0, [name], [None], [self.version], ["champion"], [role], [status],
            [9], [score], [str(int(score > 0.5))], [None], inputs,
        )  # fmt: skip
        self.log.append(self.mask(made))
        self.labels.append(LabelBatch([name], [str(truth)], [now + DAY_MS]))

    def kinds(self, prefix: str) -> list[str]:
        return [event.kind for event in self.journal.read(MODEL, prefix)]
