"""What starts a training. A new kind is one function and one name in `KINDS`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from cronsim import CronSim, CronSimError

from homeostat.domain.errors import ConfigError
from homeostat.domain.gate import Verdict
from homeostat.domain.policy import RetrainPolicy, Schedule
from homeostat.domain.trigger import Trigger
from homeostat.domain.units import DAY_MS, duration_ms, is_duration, show_duration
from homeostat.engines.change import Change


@dataclass(frozen=True, slots=True)
class TriggerSeen:
    """Everything a decision may look at.

    `change` is the champion's, and `change_key` names what it was measured on; `trained_ms`: when the champion was
    trained and released; `trainings`: when each training was triggered, in order; `fired`: the keys of the causes that
    fired; `asked`: manual orders that did not fire yet; `release`: the open release, "" when there is none;
    `watched_ms`: from when on `change` was measured; `began_ms`: when the change began that the last trigger answered,
    0 for none.
    """

    now_ms: int
    change: Change | None
    change_key: str
    trained_ms: int
    trainings: tuple[int, ...] = ()
    fired: frozenset[str] = frozenset()
    asked: tuple[Trigger, ...] = ()
    release: str = ""
    watched_ms: int = 0
    began_ms: int = 0


@dataclass(frozen=True, slots=True)
class NotFired:
    """Why no training starts. `cause` is the key of the cause that is held back by `rule`; both "" without one."""

    reason: str
    cause: str = ""
    rule: str = ""


Kind = Callable[[TriggerSeen, str], Trigger | NotFired]
"""(seen, the kind's setting) → the cause as it stands, or why there is none."""


def performance(seen: TriggerSeen, _: str) -> Trigger | NotFired:
    """The labels show that the champion has become worse."""
    if seen.change is None:
        return NotFired("nothing is served yet")
    if seen.change.verdict is not Verdict.HARM:
        return NotFired(seen.change.reason)
    return Trigger(f"performance:{seen.change_key}", "performance", seen.change.reason, seen.now_ms)


def schedule(seen: TriggerSeen, expression: str) -> Trigger | NotFired:
    """The newest tick of a cron expression (UTC) since the champion's training and the last triggered one, where
    ticks missed meanwhile count once; or the age that the last of these trainings has reached. Errors:
    `ConfigError`."""
    last = max((seen.trained_ms, *seen.trainings))
    if is_duration(expression):
        return _aged(seen, int(str(duration_ms(expression))), last)
    now = datetime.fromtimestamp(seen.now_ms / 1000, UTC)
    try:
        tick = next(CronSim(expression, now.replace(microsecond=0) + timedelta(seconds=1), reverse=True))
    except (CronSimError, StopIteration) as error:
        raise ConfigError(
            f"{expression!r} is not a schedule: {error}",
            where="retrain.when",
            way_out='Write five cron fields, as "0 3 * * MON", or an age, as 30d.',
        ) from error
    tick_ms = int(tick.timestamp() * 1000)
    if tick_ms <= last:
        return NotFired(f"trained since the last tick of {expression}")
    return Trigger(f"schedule:{expression}:{tick_ms}", "schedule", f"schedule {expression}", seen.now_ms)


def _aged(seen: TriggerSeen, age: int, last: int) -> Trigger | NotFired:
    if not seen.trained_ms:
        return NotFired("nothing is served yet")
    if seen.now_ms - last < age:
        return NotFired(f"trained {show_duration(seen.now_ms - last)} ago, less than {show_duration(age)}")
    reason = f"the last training is {show_duration(seen.now_ms - last)} old; the schedule is {show_duration(age)}"
    return Trigger(f"schedule:{age}:{last}", "schedule", reason, seen.now_ms)


def manual(seen: TriggerSeen, _: str) -> Trigger | NotFired:
    """Somebody asked for it."""
    return seen.asked[0] if seen.asked else NotFired("nobody asked")


KINDS: Mapping[str, Kind] = {"performance": performance, "schedule": schedule, "manual": manual}


def fire(policy: RetrainPolicy, seen: TriggerSeen) -> Trigger | NotFired:
    """The first cause, in the policy's order after the manual ones, that did not fire yet and that nothing forbids:
    no open release, the cooldown over, the budget not spent. A person's order needs only the first."""
    reasons = []
    held = None
    for kind, setting in _kinds(policy):
        cause = KINDS[kind](seen, setting)
        if isinstance(cause, NotFired):
            reasons.append(cause.reason)
        elif cause.key not in seen.fired:
            forbidden = _forbidden(policy, seen, cause)
            if forbidden is None:
                return replace(cause, since_ms=_began(seen))
            held = held or forbidden
    return held or NotFired("; ".join(reasons) or "every cause fired already")


def _began(seen: TriggerSeen) -> int:
    """When the change began that the evidence speaks for, if not yet aloud: halfway, on its logarithm, to harm. A
    champion that was worse from its first day on has not repaired the change that it was trained for."""
    change = seen.change
    if change is None or change.since is None or change.evidence < math.sqrt(change.threshold):
        return 0
    since_ms = change.since * DAY_MS
    return seen.began_ms if seen.began_ms and since_ms <= seen.watched_ms + DAY_MS else since_ms


def _kinds(policy: RetrainPolicy) -> Iterator[tuple[str, str]]:
    yield "manual", ""
    for entry in policy.when:
        name, setting = ("schedule", entry.schedule) if isinstance(entry, Schedule) else (entry, "")
        if name not in KINDS or (name == "schedule" and not setting):
            raise ConfigError(
                f"{name!r} is no kind of trigger" if setting or name != "schedule" else "a schedule needs its times",
                where="retrain.when",
                way_out=f'Known kinds: {", ".join(KINDS)}; a schedule is written {{schedule: "0 3 * * MON"}}.',
            )
        yield name, setting


def _forbidden(policy: RetrainPolicy, seen: TriggerSeen, cause: Trigger) -> NotFired | None:
    if seen.release:
        return NotFired(f"not retrained, because release {seen.release} is under way", cause.key, "release")
    if cause.kind == "manual":
        return None
    rest = max((seen.trained_ms, *seen.trainings)) + policy.cooldown - seen.now_ms
    if rest > 0:
        return NotFired(f"not retrained, because of the cooldown: {show_duration(rest)} left", cause.key, "cooldown")
    spent = sum(at > seen.now_ms - policy.budget.per for at in seen.trainings)
    if spent >= policy.budget.trainings:
        words = f"not retrained, because all {spent} trainings of {show_duration(policy.budget.per)} are spent"
        return NotFired(words, cause.key, "budget")
    return None
