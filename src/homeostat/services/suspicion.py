"""Watching the sources of labels: one whose labels go wrong is held back, and a person is asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from homeostat.domain.bundle import Bundle
from homeostat.domain.feedback import Hold
from homeostat.domain.monitor import Alert
from homeostat.domain.policy import Policy
from homeostat.domain.prediction import Role
from homeostat.domain.schema import Schema, Task
from homeostat.domain.units import DAY_MS, iso
from homeostat.engines import metrics
from homeostat.engines.answer import output_of
from homeostat.engines.feedback import CLEARED, SUSPECTED, settle
from homeostat.engines.suspicion import LEAST_ROWS, MOST, Jump, contradiction, foretold, jump, turned
from homeostat.engines.transform import matrix
from homeostat.ports import Clock, LabelLog, PredictionLog
from homeostat.services.alerts import Alerts
from homeostat.services.feedback import UNNAMED_TEXT, Feedback
from homeostat.services.scored import labelled

WINDOW_ROWS = 144
"""Labels that a window should have: as many days, at most `LONGEST`, as bring them."""
LONGEST = 30
TURNED = "later labels contradict the answers more than each other: the world has changed"
ALERT = "labels of "
"""How the subjects of its alerts begin."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What a window of `n` labels of one source says; with `others`, beside what theirs say. `loss` None: alone, it
    tells nothing, for the world may have changed. `turned`: alone, they contradict the answers more than each other."""

    n: int
    noise: float
    loss: float | None
    turned: bool

    @property
    def others(self) -> bool:
        return self.loss is not None


@dataclass(frozen=True, slots=True)
class _Told:
    """Of `n` labels: their noise, the mean loss of what was answered, and whether they contradict that more than each
    other."""

    n: int
    noise: float
    loss: float
    turned: bool


class Suspicions:
    """`serving`: the bundle that serves; None: nothing does. `labels`: as received, also those that are held back."""

    def __init__(
        self,
        policy: Policy,
        log: PredictionLog,
        labels: LabelLog,
        clock: Clock,
        serving: Callable[[], Bundle | None],
        feedback: Feedback,
        alerts: Alerts,
    ) -> None:
        self.policy, self.log, self.labels, self.clock = policy, log, labels, clock
        self.serving, self.feedback, self.alerts = serving, feedback, alerts
        self._day = 0
        self._asked: tuple[Hold, ...] | None = None
        self._measured: dict[tuple[str, int, int, float], Measured | None] = {}

    def turn(self) -> None:
        """Judge the labels of each source, once a day."""
        today = self.clock.now_ms() // DAY_MS
        bundle = self.serving() if today != self._day else None
        if bundle is not None:
            recent = self.labels.received((today - LONGEST) * DAY_MS, today * DAY_MS)
            for source in recent["source"].unique().sort().to_list():
                self._judge(bundle, source, today, _days(recent.filter(pl.col("source") == source)))
            self._day = today
        known = self.feedback.suspicions()
        if known != self._asked:
            for source in sorted({one.source for one in (*known, *(self._asked or ()))}):
                self._ask(source)
            self._asked = known

    def _judge(self, bundle: Bundle, source: str, end: int, days: int) -> None:
        now = self._measure(bundle, source, end, days)
        if now is None:
            return
        open_one = self._open(source)
        since_ms = open_one.from_ms if open_one else (end - days) * DAY_MS
        found = _jumps(now, self._before(bundle, source, since_ms // DAY_MS, days))
        if open_one is None:
            worst = next((_words(one, what, now.others) for what, one in found if one.suspicious), "")
            if worst:
                held = self.policy.feedback.on_suspicious == "hold"
                self.feedback.tell(SUSPECTED, Hold(source, since_ms, None, worst, held))
        elif not open_one.rejected and (why := self._over(open_one, now, found, end, days)):
            self.feedback.tell(CLEARED, replace(open_one, until_ms=(end - days) * DAY_MS, reason=why))

    def _over(self, open_one: Hold, now: Measured, found: Sequence[tuple[str, Jump]], end: int, days: int) -> str:
        """Why the newest window is no longer suspicious, "" where it is."""
        if found and all(one.calm for _, one in found):
            return "later labels are again as they were"
        apart = (end - 2 * days) * DAY_MS >= open_one.from_ms  # from the window that was suspicious first
        return TURNED if apart and now.turned else ""

    def _open(self, source: str) -> Hold | None:
        known = [one for one in self.feedback.suspicions() if one.source == source and one.until_ms is None]
        return known[-1] if known else None

    def _ask(self, source: str) -> None:
        """An alert until a person has decided, or the labels are again as they were."""
        now, at = self._open(source), self.clock.now_ms()
        subject, alert = ALERT + (source or UNNAMED_TEXT), None
        if now and not now.rejected:
            order = f"homeostat feedback accept|reject {source}".rstrip()
            done = "held back" if now.held else "learned"
            evidence = f"since {iso(now.from_ms)} {now.reason}; they are {done} until a person decides: {order}"
            alert = Alert("", f"labels of {source or UNNAMED_TEXT} are suspicious", evidence, at, subject=subject)
        self.alerts.settle(subject, alert, at)

    def _before(self, bundle: Bundle, source: str, end: int, days: int) -> list[Measured]:
        """The windows before, newest first, none that is held back. Their history begins with a person's last word,
        or a world that changed."""
        holds = [one for one in self.feedback.suspicions() if one.source == source]
        first = max(self.feedback.accepted_ms(source), self.feedback.cleared_ms(source, TURNED))
        found = []
        for last in range(end, end - MOST * days, -days):
            start_ms, end_ms = (last - days) * DAY_MS, last * DAY_MS
            if start_ms >= first and not any(one.meets(start_ms, end_ms) for one in holds):
                found.append(self._measure(bundle, source, last, days))
        return [one for one in found if one is not None]

    def _measure(self, bundle: Bundle, source: str, end: int, days: int) -> Measured | None:
        """Of the labels given in the `days` before day `end`; None: too few."""
        key = source, end, days, bundle.loss_scale
        if key not in self._measured:
            self._measured[key] = self._look(bundle, source, end, days)
        return self._measured[key]

    def _look(self, bundle: Bundle, source: str, end: int, days: int) -> Measured | None:
        start_ms, end_ms = (end - days) * DAY_MS, end * DAY_MS
        given = self.labels.received(start_ms, end_ms)
        mine = settle(given.filter(given["source"] == source), {})
        others = settle(given.filter(given["source"] != source), {})
        if mine.height < LEAST_ROWS:
            return None
        rows = self._answers(given["id"].unique(), start_ms - self.policy.data.label_horizon - DAY_MS, end_ms)
        comparable = np.isfinite(output_of(bundle.schema, rows)).all(axis=1)  # by a version with as many classes
        rows = rows.filter((rows["status"] == "ok") & pl.Series(comparable, dtype=pl.Boolean))
        own, theirs = self._told(bundle, rows, mine), self._told(bundle, rows, others)
        if own is None:
            return None
        if theirs is None:
            return Measured(own.n, own.noise, None, own.turned)
        return Measured(own.n, own.noise - theirs.noise, own.loss - theirs.loss, False)

    def _answers(self, ids: pl.Series, start_ms: int, end_ms: int) -> pl.DataFrame:
        """The answers to these, of that time: read day by day, the newest first, until all are found. Labels come
        mostly soon, and a horizon may be long."""
        found, begin = [self.log.read(self.policy.name, end_ms, end_ms)], end_ms
        while begin > start_ms and len(ids):
            end, begin = begin, max(start_ms, begin - DAY_MS)
            mine = (pl.col("role") == Role.ANSWER.value) & pl.col("id").is_in(ids.implode())
            rows = self.log.read(self.policy.name, begin, end).filter(mine)
            if len(rows):
                found.append(rows)
                ids = ids.filter(~ids.is_in(rows["id"].implode()))
        return pl.concat(found[::-1], how="diagonal_relaxed")

    def _told(self, bundle: Bundle, rows: pl.DataFrame, labels: pl.DataFrame) -> _Told | None:
        """None where too few of these labels have their prediction among the rows."""
        if labels.height < LEAST_ROWS:
            return None
        known, truth = labelled(bundle.schema, rows, labels)
        if len(known) < LEAST_ROWS:
            return None
        schema, output = bundle.schema, output_of(bundle.schema, known)
        x = np.column_stack([self._inputs(schema, known), output, known["at_ms"].to_numpy() / DAY_MS])
        losses = metrics.losses(schema.task, truth, output, bundle.loss_scale)
        numbers = schema.task is Task.REGRESSION
        answers = output[:, 0] if numbers else np.argmax(output, axis=1).astype(np.float64)
        rows_seen, expected = foretold(x.astype(np.float32), truth, numbers)
        told = truth[rows_seen]
        noisy = contradiction(told, expected, numbers, bundle.loss_scale)
        return _Told(len(known), noisy, float(np.mean(losses)), turned(told, expected, answers[rows_seen]))

    def _inputs(self, schema: Schema, rows: pl.DataFrame) -> NDArray[np.float32]:
        """What the log holds as it was served."""
        inputs = rows["inputs"].struct.unnest()
        kept = tuple(field for field in schema.fields if field.name in inputs.columns)
        kept = tuple(field for field in kept if field.name not in self.policy.log.hidden)
        return matrix(replace(schema, fields=kept), {field.name: inputs[field.name] for field in kept})


def _days(given: pl.DataFrame) -> int:
    """How many days a window of a source has, by the labels of its ordinary day."""
    ordinary = given.group_by(pl.col("at_ms") // DAY_MS).len()["len"].median()
    return int(np.clip(np.ceil(WINDOW_ROWS / max(1.0, float(str(ordinary or 1)))), 1, LONGEST))


def _jumps(now: Measured, before: Sequence[Measured]) -> list[tuple[str, Jump]]:
    """Each measure beside the windows before of the same kind: with other sources, or without."""
    like = [one for one in before if one.others == now.others]
    found = {"noise": jump([one.noise for one in like], now.noise, now.n)}
    if now.loss is not None:
        found["loss"] = jump([one.loss for one in like if one.loss is not None], now.loss, now.n)
    return [(what, one) for what, one in found.items() if one is not None]


def _words(one: Jump, what: str, others: bool) -> str:
    said = "labels of rows that are alike contradict each other" if what == "noise" else "they contradict the answers"
    beside = ", more than those of other sources," if others else ""
    return f"{said}{beside} by {one.now:.2f}, before by {one.before:.2f}"
