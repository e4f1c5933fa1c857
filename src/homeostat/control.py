"""The control loop: one pass looks at the world, makes at most one move of each kind, and leaves the rest to the next.

A pass is level-triggered: it reads what is, not what happened since, so a pass that crashed is repeated, not resumed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from homeostat.domain.bundle import Version
from homeostat.domain.errors import HomeostatError, Refused
from homeostat.domain.rollout import Do, Move, Rollout
from homeostat.domain.run import RunResult
from homeostat.domain.trigger import PREVIOUS, SINCE, SWEEP, Trigger
from homeostat.engines.report import run_sentence
from homeostat.ports import Meter
from homeostat.services.classes import NewClasses
from homeostat.services.experiments import Experiments
from homeostat.services.feedback import Feedback
from homeostat.services.monitors import Monitors
from homeostat.services.rollouts import Releases
from homeostat.services.runs import Runs
from homeostat.services.surroundings import Surroundings
from homeostat.services.suspicion import Suspicions
from homeostat.services.telling import Teller
from homeostat.services.triggers import Triggers

SETTLE = 8
"""Moves of a release in one pass, at most: it settles in two or three (traffic, then the record)."""


@dataclass(frozen=True)
class Control:
    """Everything that turns the loop of one model."""

    releases: Releases
    monitors: Monitors
    triggers: Triggers
    runs: Runs
    experiments: Experiments
    feedback: Feedback
    suspicions: Suspicions
    classes: NewClasses
    teller: Teller
    surroundings: Surroundings
    clock: Meter

    def lead(self) -> None:
        """A term of this control plane begins: whoever led before can't change the routing document any more."""
        self.releases.claim()
        self.surroundings.begin()
        self.begin()

    def begin(self) -> None:
        """The first champion of a model that never had a release: its newest version, or one that is trained now."""
        if (first := self.triggers.first()) is not None:
            self.train(first)
            return
        if self.releases.history():
            return
        versions = self._versions()
        if versions:
            self.releases.start(versions[-1], by="the control loop")
        else:
            self.train(self.triggers.begin())

    def turn(self) -> None:
        """One pass. A training that a crash cut short comes first, as it would have."""
        if (cut := self.triggers.pending()) is not None:
            self.train(cut)
        self.settle()
        self.surroundings.turn()
        self.experiments.turn()
        self.feedback.turn()
        self.suspicions.turn()
        self.classes.turn()
        self.monitors.watch()
        self.teller.turn()
        while (trigger := self.triggers.check()) is not None:  # asked again after a training
            self.train(trigger)
            self.settle()

    def settle(self) -> Move:
        """Reconcile the open release until it holds."""
        for _ in range(SETTLE):
            move = self.releases.reconcile()
            if move.do in (Do.HOLD, Do.ASK):
                break
        return move

    def train(self, trigger: Trigger) -> None:
        """Carry out a trigger's remedy. Of a training the challenger, if the gates let one through, starts its release;
        an earlier version starts one at once. The trigger is done last. After a crash in between its release is known
        by the trigger, whatever was learned since; a run that has none yet is found in the cache."""
        by = f"trigger {trigger.key}"
        asked = next((one for one in self.releases.history() if one.by == by), None)
        if asked is not None:
            self.triggers.done(trigger, run=asked.candidate.run, note=_asked(asked))
            return
        what, _, which = trigger.remedy.partition(":")
        if what == PREVIOUS:
            version = next(one for one in self._versions() if one.number == int(which))
            self.triggers.done(trigger, run=version.run, note=self._start(version, by))
            return
        started = self.clock.cpu_ns()
        try:
            since = int(which) if what == SINCE else 0
            window = int(which) if which and not since else None
            result = self.runs.run(window_ms=window, swept=what == SWEEP, since_ms=since)
        except HomeostatError as error:
            self.triggers.fitted(trigger, 0, (self.clock.cpu_ns() - started) / 1e9)
            self.triggers.done(trigger, failure=str(error))
            return
        self.triggers.fitted(trigger, result.fitted, (self.clock.cpu_ns() - started) / 1e9)
        self.triggers.done(trigger, run=result.id, note=self._release(result, by))

    def _versions(self) -> Sequence[Version]:
        return self.releases.tracker.versions(self.releases.model)

    def _release(self, result: RunResult, by: str) -> str:
        """→ what came of the run. Without news, the same version may have had its release before."""
        if result.version is None:
            return run_sentence(result)
        known = next((one for one in self.releases.history() if one.candidate == result.version), None)
        if known is not None:
            return f"It is version {result.version.number} again, of release {known.id}: {known.status.value}."
        return self._start(result.version, by)

    def _start(self, version: Version, by: str) -> str:
        try:
            return _asked(self.releases.start(version, by=by))
        except Refused as refusal:
            return f"No release was started: {refusal.what}."


def _asked(release: Rollout) -> str:
    return f"Release {release.id} of version {release.candidate.number} was asked for."
