"""The policy's metric before its labels are there: one estimate a window. It is called estimated wherever it stands,
and promotes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from homeostat import codec
from homeostat.domain.estimate import Estimate, Estimated
from homeostat.domain.event import Event
from homeostat.domain.gate import Verdict
from homeostat.domain.monitor import Reading, Window
from homeostat.domain.policy import Policy
from homeostat.domain.rollout import Arm
from homeostat.engines.estimate import Expected, estimate, expected, nothing_held
from homeostat.engines.evaluation import Evaluation
from homeostat.engines.importance import matter
from homeostat.engines.report import words
from homeostat.ports import Blobs, Clock, Journal
from homeostat.services.champion import Champion
from homeostat.services.holdout import held
from homeostat.services.windows import Rows

Array = NDArray[np.float64]
KIND = "monitor.estimate"
TEST = "estimated"


class Estimates:
    """What is learned from a champion's holdout is kept while it serves."""

    def __init__(self, policy: Policy, blobs: Blobs, journal: Journal, clock: Clock) -> None:
        self.policy, self.blobs, self.journal, self.clock = policy, blobs, journal, clock
        self._known: tuple[str, Expected, tuple[str, ...]] | None = None
        self._seen: tuple[int, Arm] | None = None
        self._dropped: Estimated | None = None

    def judge(self, champion: Champion, window: Window, rows: Rows, drift: Sequence[Reading]) -> Sequence[Reading]:
        """Record what the metric is expected to be on the rows of a window; `drift`: what was found in it."""
        _, known, matters = self._learned(champion)
        found = estimate(known, rows.inputs, rows.output)
        reading = Reading(found.metric, TEST, found.verdict, _value(found), 1.0, f"{found}{rows.words}")
        moved = {one.subject for one in drift if one.verdict is Verdict.HARM}
        self._record(champion, window, found, reading, [name for name in matters if name in moved])
        return (reading,)

    def dropped(self, champion: Champion) -> Estimated | None:
        """The newest window of some length says that the champion has become worse while inputs that matter drifted. It
        is blind to a changed concept, so that None says nothing."""
        events = self.journal.read(self.policy.name, KIND)
        if self._seen != (len(events), champion.arm):  # nothing is ever changed in a journal, or taken out
            self._seen, self._dropped = (len(events), champion.arm), _dropped(champion.arm, events)
        return self._dropped

    def _learned(self, champion: Champion) -> tuple[str, Expected, tuple[str, ...]]:
        """Of the champion: its bundle, what its holdout says, and the inputs that matter to it."""
        if self._known is None or self._known[0] != champion.arm.bundle:
            metric, bundle = self.policy.train.metric, champion.bundle
            rows = held(self.blobs, bundle)
            made = expected(metric, bundle.schema, rows) if rows else nothing_held(metric)
            evaluation = codec.decode(self.blobs.get(bundle.files["evaluation.json"]), Evaluation)
            self._known = champion.arm.bundle, made, matter(evaluation.importance)
        return self._known

    def _record(
        self, champion: Champion, window: Window, found: Estimate, reading: Reading, drifted: Sequence[str]
    ) -> None:
        readings = [asdict(reading)]
        body = {**asdict(window), "version": champion.arm.version, "readings": readings, "drifted": list(drifted)}
        if found.verdict is not Verdict.UNKNOWN:
            body["estimate"] = asdict(found)
        key, at = f"{KIND}:{window.series}:{window.end_ms}", self.clock.now_ms()
        self.journal.append(Event(at, self.policy.name, KIND, key, window.series, reading.reason, body))


def _value(found: Estimate) -> float:
    return 0.0 if found.verdict is Verdict.UNKNOWN else found.value


def _dropped(arm: Arm, events: Sequence[Event]) -> Estimated | None:
    newest = {event.subject: event.body for event in events if event.body["version"] == arm.version}
    for body in newest.values():
        reading, moved = body["readings"][0], tuple(body["drifted"])
        if reading["verdict"] == Verdict.HARM and moved:
            reason = f"{reading['reason']}; {words.listed(moved)} drifted"
            return Estimated(arm.bundle[:12], reason, body["end_ms"], moved)
    return None
