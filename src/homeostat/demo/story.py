"""The script, and the telling of it. Everything told is in the journal of a rehearsal: nothing here decides."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

import polars as pl

from homeostat.adapters.source import Source
from homeostat.config import read_policy
from homeostat.demo import telling
from homeostat.demo.stream import START_MS, Script, payments
from homeostat.demo.telling import Daily, Line, day_of
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
WEEK = 7


Say = Callable[[Line], None]


@dataclass(frozen=True, slots=True)
class Told:
    """What came of it. `misled`: requests that the broken version answered, of `asked` while it was under way."""

    lines: tuple[Line, ...]
    result: RehearsalResult
    broken: int
    misled: int
    asked: int

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
    misled, asked = teller.misled()
    teller.end(result)
    return Told(tuple(teller.lines), result, teller.broken, misled, asked)


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
    _summed: set[str] = field(default_factory=set)

    def tell(self, day: int, kind: str, text: str, verdict: Verdict | None = None) -> None:
        self.lines.append(Line(day, kind, text, verdict))
        self.say(self.lines[-1])

    def turn(self, now_ms: int) -> None:
        for event in self._news():
            line = telling.sentence(event)
            if line:
                self.tell(day_of(event.at_ms), "loop", *line)
            if event.kind == "release.started":
                self.tell(day_of(event.at_ms), "loop", self._made(event))
            if event.kind == "release.rolled_back" and event.body["version"] == self.broken:
                self.tell(day_of(event.at_ms), "loop", self._reached())
        today = day_of(now_ms)
        for day in range(self._day + 1, today + 1):
            self._world(day)
        self._day = today
        self._sums(today)
        if today >= self.script.broken and not self.broken:
            self._mistake(now_ms, today)

    def _events(self, kind: str = "") -> Sequence[Event]:
        return self.system.stores.journal.read(self.system.policy.name, kind)

    def _news(self) -> list[Event]:
        events = self._events()
        fresh, self._seen = list(events[self._seen :]), len(events)
        return fresh

    def _made(self, started: Event) -> str:
        """What was known of a version before its release."""
        releases, bundles = self.system.releases.history(), self.system.bundles
        found = next(release for release in releases if release.id == started.subject)
        record = bundles.record(bundles.load(found.candidate.bundle))
        measured = words.measured(record.measurements[0])
        held = words.duration(self.system.policy.train.holdout)
        known = f"Version {found.candidate.number} on the {held} held out of its training: {measured}"
        return f"{known}. {telling.gates(record.gates)}."

    def _world(self, day: int) -> None:
        first, last = self.script.season
        if day == first:
            self.tell(day, "world", "A season begins: people buy in the evening, and gifts. Fraud stays as it is.")
        if day == last + 1:
            self.tell(day, "world", "The season is over.")
        if day == self.script.concept:
            self.tell(
                day, "world", "Fraud changes its ways: from large payments to small ones. Payments look the same."
            )

    def _sums(self, today: int) -> None:
        """What a season or a repair came to, as soon as the labels are there; each once."""
        for name, sums in (("season", self._season), ("repair", self._repair)):
            told = None if name in self._summed else sums(list(telling.daily(self._events("monitor.metric"))))
            if told:
                self._summed.add(name)
                self.tell(today, "loop", *told)

    def _season(self, days: Sequence[Daily]) -> tuple[str, Verdict | None] | None:
        first, last = self.script.season
        before = [one for one in days if first - WEEK <= one.day < first]
        within = [one for one in days if first <= one.day <= last]
        if not before or not within or within[-1].day < last:
            return None
        made = sum(first <= day_of(event.at_ms) <= last for event in self._events("training."))
        performance = self.system.performances.now()
        harm = f" Loss: {telling.plain(performance.change.reason)}." if performance else ""
        cost = f"{words.counted(made, 'training')} in the season" if made else "Nothing was retrained"
        metric = words.metric(before[0].metric)
        text = f"{cost}: {metric} {telling.shown(within)}; before it {telling.shown(before)}.{harm}"
        return text, None if made else Verdict.OK

    def _repair(self, days: Sequence[Daily]) -> tuple[str, Verdict | None] | None:
        """Told when the version that followed has served for a week."""
        before = [one for one in days if self.script.concept - WEEK <= one.day < self.script.concept]
        changed = [one for one in days if one.day >= self.script.concept]
        during = [one for one in changed if before and one.version == before[-1].version]
        after = [one for one in changed if one not in during][:WEEK]
        if not during or len(after) < WEEK:
            return None
        text = f"{words.metric(before[0].metric)} before the change {telling.shown(before)}; from the change to the "
        text += f"new champion {telling.shown(during)}; since then {telling.shown(after)}."
        better = telling.mean(after).low > telling.mean(during).high
        return text, Verdict.OK if better else Verdict.UNKNOWN

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
        started = self.system.releases.start(result.version)
        self.tell(
            day,
            "world",
            f"Somebody trains version {self.broken} on amounts in cents, and releases it as {started.id}. "
            "On its own data it looks good. Requests still come in dollars.",
        )

    def misled(self) -> tuple[int, int]:
        """(requests that the broken version answered, requests while its release was under way)"""
        found = [one for one in self.system.releases.history() if one.candidate.number == self.broken]
        if not found:
            return 0, 0
        end = found[0].ended_ms or self.system.clock.now_ms()
        rows = self.system.stores.log.read(self.system.policy.name, found[0].started_ms, end + 1)
        answers = rows.filter(pl.col("role") == Role.ANSWER.value)
        return int((answers["version"] == self.broken).sum()), len(answers)

    def _reached(self) -> str:
        misled, asked = self.misled()
        if not misled:
            return "Recorded requests were enough to see it: it answered nobody."
        reached = f"It answered {misled:,} of {asked:,} requests meanwhile ({words.percent(misled / asked)})"
        return f"{reached}; the champion answers all again."

    def end(self, result: RehearsalResult) -> None:
        """The sums, from the journal and the log."""
        changed_ms = START_MS + (self.script.concept - 1) * DAY_MS
        found = [one for one in result.events if one.kind == "trigger.fired" and one.at_ms >= changed_ms]
        if found:
            took = words.duration(found[0].at_ms - changed_ms)
            self.tell(0, "end", f"The change of day {self.script.concept} was found from late labels after {took}.")
        answered = f"{result.rows - result.failed_requests:,} of {result.rows:,} requests were answered"
        self.tell(0, "end", f"{answered}; {words.counted(result.failed_requests, 'request')} failed.")
        self.tell(0, "end", rehearsal_sentence(result))
