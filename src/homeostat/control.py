"""The control loop: one pass looks at the world, makes at most one move of each kind, and leaves the rest to the next.

A pass is level-triggered: it reads what is, not what happened since, so a pass that crashed is repeated, not resumed.
"""

from __future__ import annotations

from dataclasses import dataclass

from homeostat.domain.errors import HomeostatError, Refused
from homeostat.domain.rollout import Do, Move
from homeostat.domain.run import RunResult
from homeostat.domain.trigger import PREVIOUS, Trigger
from homeostat.engines.report import run_sentence
from homeostat.ports import Clock
from homeostat.services.experiments import Experiments
from homeostat.services.feedback import Feedback
from homeostat.services.monitors import Monitors
from homeostat.services.rollouts import Releases
from homeostat.services.runs import Runs
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
    teller: Teller
    clock: Clock

    def lead(self) -> None:
        """A term of this control plane begins: whoever led before can't change the routing document any more."""
        self.releases.claim()
        self.begin()

    def begin(self) -> None:
        """The first champion of a model that never had a release: its newest version, or one that is trained now."""
        if self.releases.history():
            return
        versions = self.releases.tracker.versions(self.releases.model)
        if versions:
            self.releases.start(versions[-1], by="the control loop")
        else:
            self.train(Trigger("first", "manual", "the first champion", self.clock.now_ms()))

    def turn(self) -> None:
        """One pass."""
        self.settle()
        self.experiments.turn()
        self.feedback.turn()
        self.suspicions.turn()
        self.monitors.watch()
        self.teller.turn()
        while (trigger := self.triggers.check()) is not None:  # asked again after a training, as after a crash in it
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
        an earlier version starts one at once. The trigger is done last: after a crash in between, the run is found in
        the cache and its release under way."""
        what, _, which = trigger.remedy.partition(":")
        if what == PREVIOUS:
            self._again(trigger, int(which))
            return
        try:
            result = self.runs.run(window_ms=int(which)) if which else self.runs.run()
        except HomeostatError as error:
            self.triggers.done(trigger, failure=str(error))
            return
        self.triggers.done(trigger, run=result.id, note=self._release(result, trigger), fitted=result.fitted)

    def _again(self, trigger: Trigger, number: int) -> None:
        """Release an earlier version: through the same steps, for the world may have changed since."""
        version = next(one for one in self.releases.tracker.versions(self.releases.model) if one.number == number)
        by = f"trigger {trigger.key}"
        known = next((one for one in self.releases.history() if one.by == by), None)
        try:
            asked = known or self.releases.start(version, by=by)
            note = f"Release {asked.id} of version {number} was asked for."
        except Refused as refusal:
            note = f"No release was started: {refusal.what}."
        self.triggers.done(trigger, run=version.run, note=note)

    def _release(self, result: RunResult, trigger: Trigger) -> str:
        """→ what came of the run. The same version may have its release already: after a crash, or without news."""
        if result.version is None:
            return run_sentence(result)
        known = next((one for one in self.releases.history() if one.candidate == result.version), None)
        if known is not None:
            return f"It is version {result.version.number} again, of release {known.id}: {known.status.value}."
        try:
            asked = self.releases.start(result.version, by=f"trigger {trigger.key}")
            return f"Release {asked.id} was asked for."
        except Refused as refusal:
            return f"No release was started: {refusal.what}."
