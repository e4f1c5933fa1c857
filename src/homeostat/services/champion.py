"""What is served, and what its losses are held against."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from homeostat import codec
from homeostat.domain.bundle import Bundle
from homeostat.domain.policy import Policy
from homeostat.domain.rollout import Arm, Status
from homeostat.engines.change import Baseline, pooled
from homeostat.engines.drift.profile import Reference
from homeostat.engines.evaluation import Evaluation
from homeostat.ports import Blobs, Journal, Rollouts, Router

POOLED = 5
"""Trainings whose holdouts make the baseline."""
EXCUSED = 2.0
"""How much worse, in odds, an outdated model may have been and still tell what is ordinary."""


@dataclass(frozen=True, slots=True)
class Champion:
    """`started_ms`: when its release started; from then on it scored every row, so that windows are whole.
    `importance`: field → what the loss rises by without it. `again_ms`: when the release started that took it back, 0
    where it has served but once: what it lost in the world between says nothing of this one."""

    arm: Arm
    bundle: Bundle
    reference: Reference
    baseline: Baseline
    started_ms: int
    importance: Mapping[str, float] = field(default_factory=dict)
    again_ms: int = 0


class Champions:
    """`load` gives the bundle of an id."""

    def __init__(
        self,
        policy: Policy,
        journal: Journal,
        router: Router,
        rollouts: Rollouts,
        blobs: Blobs,
        load: Callable[[str], Bundle],
    ) -> None:
        self.policy, self.journal, self.router = policy, journal, router
        self.rollouts, self.blobs, self.load = rollouts, blobs, load
        self._loaded: Champion | None = None

    def now(self) -> Champion | None:
        """None: nothing is served."""
        route = self.router.read().routes.get(self.policy.name)
        if route is None:
            return None
        if self._loaded is None or self._loaded.arm != route.champion:
            bundle_id = route.champion.bundle
            bundle = self.load(bundle_id)
            reference = Reference.from_bytes(self.blobs.get(bundle.files["profile"]))
            own = [r for r in self.rollouts.all(self.policy.name) if r.candidate.bundle == bundle_id]
            first = max(bundle.trained_until_ms, min((r.started_ms for r in own), default=0))
            again = [r.started_ms for r in own if r.status is Status.PROMOTED or r.status.open][1:]
            baseline, importance = self._baseline(bundle_id, bundle), self._evaluation(bundle).importance
            last = max(again, default=0)
            self._loaded = Champion(route.champion, bundle, reference, baseline, first, importance, last)
        return self._loaded

    def _baseline(self, bundle_id: str, champion: Bundle) -> Baseline:
        """What models of this stream lose when they are made: the champion's holdout and those of the releases before
        it. One holdout alone may be an odd week, and that of a model made in haste excuses whatever it does."""
        made = [record.candidate.bundle for record in self.rollouts.all(self.policy.name)]
        before = dict.fromkeys(made[: made.index(bundle_id)] if bundle_id in made else ())
        bundles = [*(self.load(one) for one in list(before)[-(POOLED - 1) :]), champion]
        losses = [(one, self._evaluation(one).loss.scaled(one.loss_scale / champion.loss_scale)) for one in bundles]
        steady = [loss for one, loss in losses if not self._outdated(one)]
        if not steady:
            return pooled([loss for _, loss in losses])
        limit = pooled(steady).worse(EXCUSED)
        return pooled([loss for _, loss in losses if loss in steady or loss.mean < limit])

    def _outdated(self, bundle: Bundle) -> bool:
        """Was it evaluated when it had learned mostly from before the change that it answers? Then its holdout may say
        what an outdated model loses, and would excuse the next one."""
        trained = self.journal.read(self.policy.name, "training.done")
        causes = {event.subject for event in trained if event.body["run"] == bundle.run}
        fired = self.journal.read(self.policy.name, "trigger.fired")
        began = max((event.body.get("since_ms", 0) for event in fired if event.subject in causes), default=0)
        return bundle.evaluated_until_ms - self.policy.train.half_ms < began

    def _evaluation(self, bundle: Bundle) -> Evaluation:
        return codec.decode(self.blobs.get(bundle.files["evaluation.json"]), Evaluation)
