"""Hooks of a release: the project's own checks before a step, its own messages after an outcome.

A hook that has ended is never run again for that step or outcome: the journal says so before anything else is
written. One during which the control plane died is run again, with the same id in its message. Only who leads runs
hooks, since the journal must take the note that one begins.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from homeostat.domain.event import Event
from homeostat.domain.policy import HooksPolicy
from homeostat.domain.rollout import ReleaseStep, Rollout
from homeostat.domain.units import HOUR_MS, MINUTE_MS
from homeostat.ports import Clock, Hook, Journal

AGAIN_MS = MINUTE_MS
"""A hook before a step that failed is run again after this long."""

TOLD_MS = HOUR_MS
"""An outcome older than this is told to nobody any more: a hook that is new in the policy hears of no old release."""


class Hooks:
    """The hooks of one model's releases."""

    def __init__(self, policy: HooksPolicy, hook: Hook, journal: Journal, clock: Clock) -> None:
        self._policy, self._hook, self._journal, self._clock = policy, hook, journal, clock

    def before(self, rollout: Rollout, step: ReleaseStep, index: int) -> str:
        """Run the hook before this step, if there is one. → why the step can't begin, "" when it can."""
        if not self._policy.before_step:
            return ""
        key = f"{rollout.id}:before:{index}"
        tries = [e for e in self._journal.read(rollout.model, "release.hook", rollout.id) if e.body["id"] == key]
        ended = [e for e in tries if e.kind == "release.hook"]
        if ended and ended[-1].body["ok"]:
            return ""
        if ended and self._clock.now_ms() - ended[-1].at_ms < AGAIN_MS:
            return ended[-1].text
        message = {"hook": "before_step", "step": str(step), "weight": step.weight}
        return self._run(self._policy.before_step, key, len(ended), rollout, message)

    def after(self, records: Sequence[Rollout]) -> None:
        """Tell the outcomes that have not been told. One that fails is noted, and not told again."""
        now = self._clock.now_ms()
        for rollout in records if self._policy.after_outcome else ():
            if rollout.ended_ms is None or now - rollout.ended_ms >= TOLD_MS:
                continue
            key = f"{rollout.id}:after:{rollout.status.value}"
            told = self._journal.read(rollout.model, "release.hook", rollout.id)
            if not any(e.kind == "release.hook" and e.body["id"] == key for e in told):
                self._run(self._policy.after_outcome, key, 0, rollout, {"hook": "after_outcome"})

    def _run(self, hook: str, key: str, attempt: int, rollout: Rollout, message: dict[str, Any]) -> str:
        name = str(message["hook"]).replace("_", " ")
        about = f"{name} {message['step']}" if "step" in message else name
        begins = {"id": key, "attempt": attempt}
        self._note("release.hook_begun", f"{key}:{attempt}:begun", rollout, f"The hook {about} begins.", begins)
        failure = self._hook.run(hook, _told(key, rollout) | message)
        text = f"The hook {about} failed: {failure}" if failure else f"The hook {about} succeeded."
        self._note("release.hook", f"{key}:{attempt}", rollout, text, {**begins, "ok": not failure})
        return text if failure else ""

    def _note(self, kind: str, key: str, rollout: Rollout, text: str, body: dict[str, Any]) -> None:
        self._journal.append(Event(self._clock.now_ms(), rollout.model, kind, key, rollout.id, text, body))


def _told(key: str, rollout: Rollout) -> dict[str, Any]:
    return {
        "id": key,
        "model": rollout.model,
        "release": rollout.id,
        "version": rollout.candidate.number,
        "champion": rollout.champion.number if rollout.champion else None,
        "status": rollout.status.value,
        "reason": rollout.reason,
    }
