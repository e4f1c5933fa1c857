"""What changes around a model is written down when it changes, so that an alert of that time can name it."""

from __future__ import annotations

from homeostat.domain.bundle import Version
from homeostat.domain.errors import Corrupt, NotFound
from homeostat.domain.event import Event
from homeostat.domain.policy import Policy
from homeostat.domain.rollout import Rollout, Status
from homeostat.domain.run import RunRecord
from homeostat.engines import surroundings
from homeostat.engines.causes import DIFFERS, ENVIRONMENT
from homeostat.engines.plan import digest
from homeostat.ports import Clock, Journal, Rollouts
from homeostat.services.bundles import Bundles

NOTED = "environment."


class Surroundings:
    """`environment`: of this process, a line `name==version` each."""

    def __init__(
        self, policy: Policy, journal: Journal, rollouts: Rollouts, bundles: Bundles, clock: Clock, environment: str
    ) -> None:
        self.policy, self.journal, self.rollouts, self.bundles = policy, journal, rollouts, bundles
        self.clock, self.environment = clock, environment
        self._seen: set[str] | None = None

    def begin(self) -> None:
        """A control plane starts: is it where the last one was?"""
        told = self.journal.read(self.policy.name, NOTED)
        before = str(told[-1].body["environment"]) if told else ""
        if before == self.environment:
            return
        now, body = self.clock.now_ms(), {"environment": self.environment}
        kind = ENVIRONMENT if told else f"{NOTED}noted"
        said = f"The environment changed: {surroundings.moved(before, self.environment)}"
        text = said if told else "The environment of the control plane"
        key = f"{kind}:{digest([self.environment])[:12]}:{now}"
        self.journal.append(Event(now, self.policy.name, kind, key, "environment", text, body))

    def turn(self) -> None:
        """Of each release that was promoted: what its version does not have in common with the one it replaced."""
        if self._seen is None:
            self._seen = {event.subject for event in self.journal.read(self.policy.name, DIFFERS)}
        for release in self.rollouts.all(self.policy.name):
            if release.status is Status.PROMOTED and release.champion and release.id not in self._seen:
                self._compare(release, release.champion)
                self._seen.add(release.id)

    def _compare(self, release: Rollout, champion: Version) -> None:
        try:
            found = surroundings.differs(*self._made(champion), *self._made(release.candidate))
        except (NotFound, Corrupt) as error:
            found = f"what can't be read: {error.what}"
        versions = f"Version {release.candidate.number} differs from version {champion.number}"
        text, body = f"{versions} by {found or 'nothing that is known'}", {"by": found}
        at = release.ended_ms or self.clock.now_ms()
        self.journal.append(Event(at, self.policy.name, DIFFERS, f"{DIFFERS}:{release.id}", release.id, text, body))

    def _made(self, version: Version) -> tuple[RunRecord, str]:
        """The run that made it, and where."""
        bundle = self.bundles.load(version.bundle)
        return self.bundles.record(bundle), self.bundles.file(bundle, "environment.txt").decode()
