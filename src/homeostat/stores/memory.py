"""The control state in memory: for rehearsals, which touch nothing that production uses, and for tests."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from heapq import merge

from homeostat.domain.errors import Deposed, Refused
from homeostat.domain.event import Event
from homeostat.domain.rollout import Rollout, Routing


class MemoryJournal:
    """`ports.Journal` in lists, one for each kind of each model, and of each subject: a rehearsal asks thousands of
    times."""

    def __init__(self) -> None:
        self._by_kind: defaultdict[tuple[str, str], dict[str, list[tuple[int, Event]]]] = defaultdict(dict)
        self._keys: set[tuple[str, str]] = set()

    def append(self, event: Event) -> bool:
        if (event.model, event.key) in self._keys:
            return False
        self._keys.add((event.model, event.key))
        for subject in {"", event.subject}:
            self._by_kind[event.model, subject].setdefault(event.kind, []).append((len(self._keys), event))
        return True

    def read(self, model: str, kind: str = "", subject: str = "") -> Sequence[Event]:
        """Of all subjects where none is named."""
        kinds = [events for known, events in self._by_kind[model, subject].items() if known.startswith(kind)]
        return [event for _, event in (kinds[0] if len(kinds) == 1 else merge(*kinds))]


class MemoryRollouts:
    """`ports.Rollouts` in a dict, in the order of the first write."""

    def __init__(self) -> None:
        self._rollouts: dict[tuple[str, str], Rollout] = {}

    def save(self, rollout: Rollout) -> Rollout:
        stored = self._rollouts.get((rollout.model, rollout.id))
        if rollout.revision != (stored.revision if stored else 0):
            raise Refused(
                f"release {rollout.id} was changed by someone else meanwhile", way_out="Read it again, then decide."
            )
        saved = replace(rollout, revision=rollout.revision + 1)
        self._rollouts[saved.model, saved.id] = saved
        return saved

    def all(self, model: str) -> Sequence[Rollout]:
        return [rollout for rollout in self._rollouts.values() if rollout.model == model]


class MemoryRouter:
    """`ports.Router` in one variable."""

    def __init__(self) -> None:
        self._routing = Routing()

    def read(self) -> Routing:
        return self._routing

    def publish(self, routing: Routing) -> None:
        if routing.term < self._routing.term:
            raise Deposed("another control plane leads by now")
        if routing.version != self._routing.version + 1:
            raise Refused(f"the routing document is at version {self._routing.version} by now")
        self._routing = routing
