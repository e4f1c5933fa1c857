"""The script, and the telling of it. Everything told is in the journal of a rehearsal: nothing here decides."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

import polars as pl

from homeostat.adapters.source import Source
from homeostat.config import read_policy
from homeostat.demo.stream import START_MS, Script, payments
from homeostat.domain.dataset import EVENT_MS
from homeostat.domain.errors import UsageError
from homeostat.domain.event import Event
from homeostat.domain.gate import Verdict
from homeostat.domain.prediction import Role
from homeostat.domain.rehearsal import RehearsalResult
from homeostat.domain.units import DAY_MS
from homeostat.engines.report import rehearsal_report, rehearsal_sentence, words
from homeostat.ports import Progress
from homeostat.stores.files import write_atomic
from homeostat.wiring.system import System, beside, rehearsal, write_report

DATA = "payments.parquet"
SCRIPT = Script()


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the story. `day` counts from 1; 0: no day. `kind`: world (what happens, as nobody in the loop knows
    it), loop (what the loop sees and does), end (the sums)."""

    day: int
    kind: str
    text: str
    verdict: Verdict | None = None


Say = Callable[[Line], None]


@dataclass(frozen=True, slots=True)
class Told:
    """What came of it. `misled`: callers that the broken version answered."""

    lines: tuple[Line, ...]
    result: RehearsalResult
    broken: int
    misled: int

    @property
    def report(self) -> str:
        return self.result.report


def tell(root: Path, seed: int, say: Say, progress: Progress, script: Script = SCRIPT) -> Told:
    """Make the demo's project in folder `root`, live through the script, tell it as it happens.

    Errors: `UsageError` when the folder holds something else.
    """
    make(root, seed, script)
    policy = read_policy(root)
    policy = replace(policy, train=replace(policy.train, seed=seed))
    history = Source(root, policy.data, policy.task)()
    start, end = START_MS + script.warmup * DAY_MS, START_MS + script.days * DAY_MS
    staged, system = rehearsal(root, policy, history, start, end)
    teller = _Teller(script, system, history, say)
    teller.tell(0, "world", f"{len(history):,} card payments, {script.payments_a_day} a day; seed {seed}.")
    teller.tell(0, "world", f"Whether one was fraud is known a day later. The first {script.warmup} days are history.")
    result = replace(staged, each_turn=teller.turn).run(progress)
    result = replace(result, report=write_report(root, f"demo-seed{seed}", rehearsal_report(result)))
    answers = system.stores.log.read(policy.name, 0, end + DAY_MS).filter(pl.col("role") == Role.ANSWER.value)
    misled = int((answers["version"] == teller.broken).sum())
    teller.end(result, misled, len(answers))
    return Told(tuple(teller.lines), result, teller.broken, misled)


def make(root: Path, seed: int, script: Script) -> None:
    """The project's files and its data. Errors: `UsageError`."""
    ours = dict(_files(files("homeostat.demo") / "project"))
    policy = root / "homeostat.yaml"
    foreign = policy.read_text() != ours["homeostat.yaml"] if policy.exists() else root.exists() and any(root.iterdir())
    if foreign:
        raise UsageError("the folder is in use", where=str(root), way_out="Choose another one with --dir.")
    for name, text in ours.items():
        write_atomic(root / name, text.encode())
    payments(seed, script).write_parquet(root / DATA)


def _files(folder: Traversable, below: str = "") -> Iterator[tuple[str, str]]:
    for one in folder.iterdir():
        if one.is_dir() and one.name != "__pycache__":
            yield from _files(one, f"{below}{one.name}/")
        elif one.name.endswith((".py", ".yaml")):
            yield below + one.name, one.read_text()


@dataclass
class _Teller:
    """Looks into the journal after each turn, and plays the part of the person who makes a mistake."""

    script: Script
    system: System
    history: pl.DataFrame
    say: Say
    lines: list[Line] = field(default_factory=list)
    broken: int = 0
    _seen: int = 0
    _day: int = 0

    def tell(self, day: int, kind: str, text: str, verdict: Verdict | None = None) -> None:
        self.lines.append(Line(day, kind, text, verdict))
        self.say(self.lines[-1])

    def turn(self, now_ms: int) -> None:
        for event in self._news():
            line = _told(event)
            if line:
                self.tell(_day(event.at_ms), "loop", *line)
        today = _day(now_ms)
        for day in range(self._day + 1, today + 1):
            self._world(day)
        self._day = today
        if today >= self.script.broken and not self.broken:
            self._mistake(now_ms, today)

    def _news(self) -> list[Event]:
        events = self.system.stores.journal.read(self.system.policy.name)
        fresh, self._seen = list(events[self._seen :]), len(events)
        return fresh

    def _world(self, day: int) -> None:
        first, last = self.script.season
        if day == first:
            self.tell(day, "world", "A season begins: people buy in the evening, and gifts. Fraud stays as it is.")
        if day == last + 1:
            self.tell(day, "world", "The season is over.")
            self.tell(day, "loop", f"{self._trainings(first, day)}: {self._quality()}.", Verdict.OK)
        if day == self.script.concept:
            self.tell(
                day, "world", "Fraud changes its ways: from large payments to small ones. Payments look the same."
            )

    def _mistake(self, now_ms: int, day: int) -> None:
        """A model trained on amounts in cents, by the project's own pipeline; on its own data it looks good."""
        standing = self.system.releases.status()
        if standing and standing.rollout.status.open:
            return
        known = self.history.filter(pl.col(EVENT_MS) <= now_ms).with_columns(pl.col("amount") * 100)
        result = beside(self.system, lambda: known).runs.run()
        if result.version is None:
            raise RuntimeError(f"the gates stopped the broken version: {result.gates}")
        self.broken = result.version.number
        gates = "; ".join(f"{words.metric(gate.name)}: {gate.reason}" for gate in result.gates)
        self.tell(day, "world", f"Somebody trains version {self.broken} on amounts in cents. Its gates pass: {gates}.")
        started = self.system.releases.start(result.version)
        self.tell(day, "world", f"They release it, as {started.id}. Requests still come in dollars.")

    def _trainings(self, first: int, last: int) -> str:
        events = self.system.stores.journal.read(self.system.policy.name, "training.")
        made = [event for event in events if first <= _day(event.at_ms) < last]
        return f"{words.counted(len(made), 'training')} because of it" if made else "Nothing was retrained"

    def _quality(self) -> str:
        performance = self.system.monitors.performance()
        return performance.change.reason if performance else "nothing is served"

    def end(self, result: RehearsalResult, misled: int, answers: int) -> None:
        """The sums, from the journal and the log."""
        found = next(
            (
                event
                for event in result.events
                if event.kind == "training.done" and _day(event.at_ms) >= self.script.concept
            ),
            None,
        )
        if found:
            took = words.duration(found.at_ms - START_MS - (self.script.concept - 1) * DAY_MS)
            self.tell(0, "end", f"The change of day {self.script.concept} was found from late labels after {took}.")
        share = words.percent(misled / answers)
        self.tell(
            0, "end", f"The broken version answered {misled:,} of {answers:,} callers ({share}), none with an error."
        )
        self.tell(0, "end", rehearsal_sentence(result))


def _told(event: Event) -> tuple[str, Verdict | None] | None:
    """An event worth telling, as a sentence."""
    text = event.text.rstrip(".")
    match event.kind:
        case "alert.opened":
            first, *others = text.split("; ")
            more = f" (and {words.counted(len(others), 'more sign')})" if others else ""
            return f"Alert: {first}{more}.", Verdict.UNKNOWN
        case "alert.closed":
            return f"Alert closed: {text}.", Verdict.OK
        case "training.done":
            return f"A model is trained: {text.partition(' was trained: ')[2]}.", None
        case "training.failed":
            return f"A training failed: {text}.", Verdict.HARM
        case "release.started" | "release.advanced":
            return f"{event.subject}: {text}.", None
        case "release.promoted":
            return f"{event.subject}: {text}.", Verdict.OK
        case "release.rolled_back":
            return f"{event.subject} rolled back: {text}.", Verdict.HARM
        case "release.rejected":
            return f"{event.subject}: {text}.", Verdict.INVALID
        case "monitor.metric" if event.subject == str(7 * DAY_MS):
            week = f"The week that ended on day {_day(event.body['end_ms']) - 1}"
            return f"{week}: {' '.join(words.metric(part) for part in text.split(' '))}.", None
    return None


def _day(at_ms: int) -> int:
    return (at_ms - START_MS) // DAY_MS + 1
