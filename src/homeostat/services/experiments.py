"""Experiments: begun and ended in the journal, put in force in the routing document, judged from the log.

As with releases a pass reads the world: what the journal says is under way and what the document routes are made the
same. An experiment never changes the champion: its winner is released like anything else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import msgspec
import polars as pl

from homeostat.domain.bundle import Version
from homeostat.domain.errors import ConfigError, DataError, NotFound, Refused
from homeostat.domain.event import Event
from homeostat.domain.experiment import Experiment, Plan, Result, Split
from homeostat.domain.policy import ExperimentPolicy, Policy
from homeostat.domain.prediction import PINNED, Role
from homeostat.domain.rollout import Arm, Rollout, Route, Share, Status
from homeostat.domain.units import ALL, DAY_MS, show_share
from homeostat.engines import bandit
from homeostat.engines import experiment as rule
from homeostat.engines.experiment import Units
from homeostat.ports import Clock, Journal, LabelLog, Plane, PredictionLog, Rollouts, Router, Tracker
from homeostat.services.evidence_log import EvidenceLog
from homeostat.services.release_seen import refusal

STARTED, SPLIT, ENDED = "experiment.started", "experiment.split", "experiment.ended"
LOOK_BACK_MS = 28 * DAY_MS
"""What a plan is made from."""


@dataclass(frozen=True, slots=True)
class Found:
    """An experiment and what it says."""

    experiment: Experiment
    result: Result


class Experiments:
    """The experiments of one model, one at a time. All state is in the stores."""

    def __init__(
        self,
        policy: Policy,
        journal: Journal,
        router: Router,
        plane: Plane,
        log: PredictionLog,
        labels: LabelLog,
        tracker: Tracker,
        rollouts: Rollouts,
        clock: Clock,
    ) -> None:
        self.policy, self.journal, self.router, self.plane = policy, journal, router, plane
        self.log, self.labels, self.tracker, self.rollouts, self.clock = log, labels, tracker, rollouts, clock
        self.model = policy.name
        self._evidence = EvidenceLog(policy.name, log, labels)

    def start(self, name: str, numbers: Sequence[int], who: str) -> Experiment:
        """Begin one between the champion and the versions of these numbers; the next pass of the control loop routes
        it. Errors: `ConfigError`; `NotFound`; `Refused` while another or a release runs, and for a refused bundle."""
        rules = self._rules(name)
        champion, variants = self._champion(), tuple(self._version(number) for number in dict.fromkeys(numbers))
        self._admit(champion, variants)
        identity = f"E{len(self.history()) + 1}"
        weight = rules.share or ALL // (len(variants) + 1)
        _check_bandit(rules, weight, len(variants), f"homeostat.yaml  experiments.{name}")
        salt, now_ms = f"{self.model}/{identity}", self.clock.now_ms()
        made = Experiment(identity, name, self.model, rules, champion, variants, weight, salt, now_ms)
        shown = ", ".join(str(one.number) for one in variants)
        text = f"{who} began experiment {identity}, {name}: version {shown} against version {champion.number}."
        if not self.journal.append(
            Event(now_ms, self.model, STARTED, f"{identity}:started", identity, text, asdict(made))
        ):
            raise Refused("another experiment was begun at the same moment", way_out="Look at it first.")
        return made

    def stop(self, reason: str, who: str) -> Found:
        """End the one under way, with what it says now. Errors: `NotFound` when there is none."""
        running = self._running()
        if running is None:
            raise NotFound("no experiment is under way", way_out="Begin one with `homeostat experiment start`.")
        return self._end(self._found(running), f"{who} ended it: {reason}" if reason else f"{who} ended it")

    def status(self) -> Found | None:
        """The one under way, else the last; None before the first."""
        known = self.history()
        return self._found(known[-1]) if known else None

    def history(self) -> Sequence[Experiment]:
        """Oldest first."""
        ends = {event.subject: event for event in self.journal.read(self.model, ENDED)}
        made, splits_told = [], self.journal.read(self.model, SPLIT)
        for event in self.journal.read(self.model, STARTED):
            splits = [one for one in splits_told if one.subject == event.subject]
            later = tuple(Split(one.at_ms, tuple(one.body["shares"]), one.text) for one in splits)
            one, end = replace(msgspec.convert(event.body, Experiment), later=later), ends.get(event.subject)
            made.append(replace(one, ended_ms=end.at_ms, outcome=end.text) if end else one)
        return made

    def turn(self) -> None:
        """One pass: end what does harm or has lost its champion, then route what is under way and nothing else."""
        running = self._running()
        if running is not None:
            running = self._further(self._found(running))
        routing = self.router.read()
        wanted = self._route(running) if running else None
        if routing.experiments.get(self.model) == wanted:
            return
        others = {model: route for model, route in routing.experiments.items() if model != self.model}
        experiments = others if wanted is None else {**others, self.model: wanted}
        now_ms = self.clock.now_ms()
        self.router.publish(replace(routing, version=routing.version + 1, experiments=experiments, at_ms=now_ms))

    def plan(self, name: str, lift: float, variants: int) -> Plan:
        """What it would take to find the mean changed by the share `lift`, judged by the last weeks. Errors:
        as `start`; `DataError` where the log and the signals tell too little."""
        rules, now_ms = self._rules(name), self.clock.now_ms()
        log = self.log.read(self.model, now_ms - LOOK_BACK_MS, now_ms + 1)
        log = log.filter(~pl.col("release").str.starts_with(PINNED) & (pl.col("role") == Role.ANSWER.value))
        if rules.bandit:
            way_out = "Plan it without `bandit`: it takes at least as long."
            raise ConfigError(
                "the length of a bandit depends on its results", where=f"experiments.{name}", way_out=way_out
            )
        past = self._past(rules, log)
        if len(past.value) < rule.FEW or not (past.value.std() and past.value.mean()):
            raise DataError(
                f"only {len(past.value)} entities have their {rules.metric.signal} by now, or all the same",
                way_out="Send signals with `homeostat feedback`: they are kept without an experiment too.",
            )
        mean, deviation = float(past.value.mean()), float(past.value.std(ddof=1))
        needed = rule.units_needed(rules, variants, deviation, abs(mean * lift))
        span = now_ms - int(log["at_ms"].to_numpy().min())
        if span < DAY_MS:
            return Plan(name, variants, mean, deviation, mean * lift, needed)
        per_day = log.select(pl.coalesce("key", "id").n_unique()).item() * DAY_MS / span
        windows = 1 if log["key"].null_count() == log.height else 2
        days = needed / per_day + windows * rules.window / DAY_MS
        return Plan(name, variants, mean, deviation, mean * lift, needed, per_day, days)

    def _past(self, rules: ExperimentPolicy, log: pl.DataFrame) -> Units:
        """Of the champion's arm."""
        now_ms, mine = self.clock.now_ms(), log.filter(pl.col("arm") == "champion")
        part = rule.windows(mine.with_columns(arm=pl.lit(0, pl.Int64), turn=pl.lit(0, pl.Int64)), rules.window, now_ms)
        signals = self.labels.signals(now_ms - LOOK_BACK_MS, now_ms + 1)
        return rule.units(rules.metric, rules.window, part.filter("ripe"), signals)

    def _rules(self, name: str) -> ExperimentPolicy:
        found = self.policy.experiments.get(name)
        if found is None:
            known = ", ".join(self.policy.experiments) or "none yet"
            where = "homeostat.yaml  experiments"
            raise ConfigError(f"no experiment {name!r} is described", where=where, way_out=f"Described are: {known}.")
        for metric in (found.metric, *found.guardrails):
            if metric.bounds and not metric.bounds[0] < metric.bounds[1]:
                raise ConfigError(f"the bounds of {metric.signal} are the wrong way round", where=f"experiments.{name}")
        return found

    def _champion(self) -> Version:
        route = self.router.read().routes.get(self.model)
        if route is None:
            raise NotFound(f"{self.model} serves no version yet", way_out="Start with `homeostat up`.")
        return self._version(route.champion.version)

    def _version(self, number: int) -> Version:
        versions = self.tracker.versions(self.model)
        found = next((one for one in versions if one.number == number), None)
        if found is None:
            known = ", ".join(str(one.number) for one in versions[-5:])
            raise NotFound(f"there is no version {number}", way_out=f"The newest are: {known}.")
        return found

    def _admit(self, champion: Version, variants: Sequence[Version]) -> None:
        if running := self._running():
            raise Refused(f"experiment {running.id} is under way", way_out="Stop it first: homeostat experiment stop")
        if release := self._releasing():
            way_out = f"End one first; the release with: homeostat release reject {release}"
            raise Refused(f"release {release} is under way", way_out=way_out)
        for one in variants:
            if one.number == champion.number:
                raise Refused(f"version {one.number} is the champion", way_out="Name other versions.")
            if refused := refusal(one.bundle, self.rollouts.all(self.model)):
                where = f"release {refused.id} was {refused.status.value}: {refused.reason}"
                raise Refused(f"version {one.number} was refused", where=where, way_out="Train a new one.")

    def _releasing(self) -> str:
        """The release that is under way or in the queue and does not give way, "" for none."""
        return next((one.id for one in self._ahead() if not one.gives_way), "")

    def _ahead(self) -> list[Rollout]:
        """Releases that are under way or in the queue."""
        return [one for one in self.rollouts.all(self.model) if one.status.open or one.status is Status.QUEUED]

    def _running(self) -> Experiment | None:
        known = self.history()
        return known[-1] if known and known[-1].ended_ms is None else None

    def _further(self, found: Found) -> Experiment | None:
        """As it goes on, None where it ends."""
        reason = self._over(found)
        if reason:
            self._end(found, reason)
            return None
        return self._followed(found) if found.experiment.rules.bandit else found.experiment

    def _over(self, found: Found) -> str:
        """Why it must end now, "" if it need not. A bandit goes on while a variant has callers and does no harm."""
        running = found.experiment
        route = self.router.read().routes.get(self.model)
        if route is None or route.champion.version != running.champion.number:
            return f"version {running.champion.number} is no longer the champion"
        if release := self._releasing():
            return f"release {release} was asked for at the same moment"
        harmed = _harmed(found)
        left = [arm for arm, share in enumerate(running.splits[-1]) if arm and share and arm not in harmed]
        return "" if not harmed or (left and running.rules.bandit) else "; ".join(harmed.values())

    def _followed(self, found: Found) -> Experiment:
        """With new shares, if the results ask for them: at once for harm, else once a window."""
        one, now_ms = found.experiment, self.clock.now_ms()
        harmed, last = _harmed(found), one.splits[-1]
        shares, reason = None, f"The results of {found.result.units:,} entities."
        if any(last[arm] for arm in harmed):
            shares, reason = bandit.without(last, {*harmed}), f"Harm. {'; '.join(harmed.values())}."
        elif (
            not found.result.invalid
            and now_ms - (one.later[-1].at_ms if one.later else one.started_ms) >= one.rules.window
        ):
            seen = rule.found(one, *self._logged(one, now_ms), now_ms)
            shares = bandit.follow(one.rules.metric, seen, one.splits, one.rules.bandit, one.salt)
        if shares is None:
            return one
        number, versions = len(one.splits), (one.champion, *one.variants)
        shown = ", ".join(f"version {v.number} {show_share(share)}" for v, share in zip(versions, shares, strict=True))
        reason, body = f"{reason} From now on: {shown}.", {"shares": shares}
        self.journal.append(Event(now_ms, self.model, SPLIT, f"{one.id}:split:{number}", one.id, reason, body))
        return self.history()[-1]

    def _route(self, running: Experiment) -> Route | None:
        """None while a variant is not loaded: nobody is sent to what can't answer; nor before a challenger of the
        background has given way."""
        if self._ahead():
            return None
        _, weight, *others = running.splits[-1]
        asked = zip(running.variants, (weight, *others), strict=True)
        if not all(self.plane.ready(self.model, one.bundle) for one, share in asked if share):
            return None
        first, *more = (Arm(one.number, one.bundle) for one in running.variants)
        champion = Arm(running.champion.number, running.champion.bundle)
        shares = tuple(Share(arm, share) for arm, share in zip(more, others, strict=True))
        kept = self.policy.release.only, self.policy.release.never
        return Route(running.route, champion, first, weight, False, running.salt, shares, *kept)

    def _found(self, one: Experiment) -> Found:
        """Of one that has ended, what it said then."""
        until = self.clock.now_ms() if one.ended_ms is None else one.ended_ms
        return Found(one, rule.judge(one, *self._logged(one, until), until))

    def _logged(self, one: Experiment, until_ms: int) -> tuple[pl.DataFrame, pl.DataFrame]:
        """→ its rows, its signals."""
        rows, _ = self._evidence.read(one.id, one.started_ms, until_ms)
        return rows, self.labels.signals(one.started_ms, until_ms + 1)

    def _end(self, found: Found, reason: str) -> Found:
        one, now_ms = found.experiment, self.clock.now_ms()
        said = found.result.invalid or " ".join(compared.sentence for compared in found.result.compared)
        body = msgspec.to_builtins(found.result)
        self.journal.append(Event(now_ms, self.model, ENDED, f"{one.id}:ended", one.id, f"{reason}. {said}", body))
        return replace(found, experiment=replace(one, ended_ms=now_ms, outcome=f"{reason}. {said}"))


def _harmed(found: Found) -> dict[int, str]:
    """Arm → what it did."""
    return {arm: f"version {one.version}: {one.harm}" for arm, one in enumerate(found.result.compared, 1) if one.harm}


def _check_bandit(rules: ExperimentPolicy, weight: int, variants: int, where: str) -> None:
    """Errors: `ConfigError`."""
    if not rules.bandit:
        return
    free = next((one.signal for one in (rules.metric, *rules.guardrails) if one.bounds is None), "")
    if free:
        raise ConfigError(
            f"{free} has no bounds", where=where, way_out="Intervals of a bandit need them: bounds: [0, 1]"
        )
    if min(weight, ALL - variants * weight) < rules.bandit:
        way_out = f"It can be {show_share(ALL // (variants + 1))} at most."
        raise ConfigError(f"not every arm can begin with {show_share(rules.bandit)}", where=where, way_out=way_out)
