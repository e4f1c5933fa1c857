"""What starts a training. A new kind is one function and one name in `KINDS`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from homeostat.domain.errors import ConfigError
from homeostat.domain.estimate import Estimated
from homeostat.domain.gate import Verdict
from homeostat.domain.policy import Background, OtherWindow, RetrainPolicy, Schedule
from homeostat.domain.trigger import BACKGROUND, PREVIOUS, Spent, Trigger
from homeostat.domain.units import DAY_MS, duration_ms, is_duration, show_duration
from homeostat.engines import cron
from homeostat.engines.change import Change


@dataclass(frozen=True, slots=True)
class TriggerSeen:
    """Everything a decision may look at.

    `change` is the champion's since it was made or an attempt to replace it ended, and `change_key` names that;
    `trained_ms`: when the champion was trained and released, see `trained`; `since_made`: its change since it was made,
    whatever was tried, and `made_ms`: from when on that was measured; `last`: the trigger that fired last; `trainings`:
    when each training was triggered, in order, `taken`: when an earlier version was taken back; `fired`: the keys of
    the causes that fired; `asked`: manual orders that did not fire yet; `release`: the open release, "" when there is
    none that keeps its place; `declined`: when a cause of which kind was answered with "it would not help", since the
    last training; `failed`: so many trainings and releases in a row, these being the last, brought no new champion;
    `estimated`: an estimated drop, None when there is none; `silent`: so many days that are due have no label that
    counts, 0 where that is too few to mean anything; `labels`: so many that count came since the champion was trained;
    `spent`: on challengers of the background, None where the policy wants none.
    """

    now_ms: int
    change: Change | None
    change_key: str
    trained_ms: int
    since_made: Change | None = None
    made_ms: int = 0
    last: Trigger | None = None
    trainings: tuple[int, ...] = ()
    taken: tuple[int, ...] = ()
    fired: frozenset[str] = frozenset()
    asked: tuple[Trigger, ...] = ()
    release: str = ""
    declined: tuple[tuple[str, int], ...] = ()
    failed: int = 0
    estimated: Estimated | None = None
    silent: int = 0
    labels: int = 0
    spent: Spent | None = None

    @property
    def harmed(self) -> bool:
        """Whether the champion is worse since it was made, whatever was tried."""
        return self.since_made is not None and self.since_made.verdict is Verdict.HARM


@dataclass(frozen=True, slots=True)
class NotFired:
    """Why no training starts. `cause` is the key of the cause that is held back by `rule`; both "" without one."""

    reason: str
    cause: str = ""
    rule: str = ""


Kind = Callable[[TriggerSeen, str], Trigger | NotFired]
"""(seen, the kind's setting) → the cause as it stands, or why there is none."""

SIGN = "sign"
"""The setting of `performance` where a probe is asked first."""
WRITTEN = {
    "schedule": 'a schedule is written {schedule: "0 3 * * MON"}',
    BACKGROUND: "the background {background: 5%}",
}
"""Kinds that need a setting."""
LONGEST = 5
"""So often at most a wait is doubled."""
ASKED_MS = 4 * DAY_MS
"""The longest wait after a probe's no. The labels that a probe looks at are those of three days: after four all are
new."""


def performance(seen: TriggerSeen, setting: str) -> Trigger | NotFired:
    """The labels show that the champion has become worse. Where a probe is asked first (`SIGN`), half the evidence, on
    its logarithm, will do: a false alarm costs a probe, not a training."""
    change = seen.change
    if change is None:
        return NotFired("nothing is served yet")
    harm = change.verdict is Verdict.HARM
    if not harm and not (setting == SIGN and change.verdict is Verdict.OK and _suspicious(change)):
        return NotFired(change.reason)
    held = f"(E = {change.evidence:.3g}, harm at {change.threshold:g})"
    sign = f"a sign that the loss rose: {change.mean:.3g}, {change.baseline:.3g} when made {held}"
    return Trigger(f"performance:{seen.change_key}", "performance", change.reason if harm else sign, seen.now_ms)


def _suspicious(change: Change) -> bool:
    return change.evidence >= math.sqrt(change.threshold)


CRON = 'Write five cron fields, as "0 3 * * MON", or an age, as 30d.'


def schedule(seen: TriggerSeen, expression: str) -> Trigger | NotFired:
    """The newest tick of a cron expression (UTC) since the champion's training and the last triggered one, or since a
    no, where ticks missed meanwhile count once; or the age that the last of these trainings has reached: a no makes it
    no younger. Errors: `ConfigError`."""
    last = max((seen.trained_ms, *seen.trainings))
    if is_duration(expression):
        return _aged(seen, int(str(duration_ms(expression))), last)
    tick_ms = cron.newest(expression, seen.now_ms, "retrain.when", CRON)
    if tick_ms <= max((last, *(at for kind, at in seen.declined if kind == "schedule"))):
        return NotFired(f"trained, or asked, since the last tick of {expression}")
    return Trigger(f"schedule:{expression}:{tick_ms}", "schedule", f"schedule {expression}", seen.now_ms)


def _aged(seen: TriggerSeen, age: int, last: int) -> Trigger | NotFired:
    if not seen.trained_ms:
        return NotFired("nothing is served yet")
    old = seen.now_ms - last
    if old < age:
        return NotFired(f"trained {show_duration(old)} ago, less than {show_duration(age)}")
    reason = f"the last training is {show_duration(old)} old; the schedule is {show_duration(age)}"
    return Trigger(f"schedule:{age}:{last}", "schedule", reason, seen.now_ms)


def estimated(seen: TriggerSeen, _: str) -> Trigger | NotFired:
    """The champion's metric is estimated to have dropped, and inputs that matter drifted. No label says so yet."""
    if seen.estimated is None:
        return NotFired("no estimated drop with drift of inputs that matter")
    return Trigger(f"estimated:{seen.change_key}", "estimated", seen.estimated.reason, seen.now_ms)


def background(seen: TriggerSeen, _: str) -> Trigger | NotFired:
    """Nothing is under way, labels came that no training has seen, and the budget has room for one more. A training
    each at most for what came: labels count when their day is complete."""
    if seen.change is None or seen.spent is None:
        return NotFired("nothing is served yet")
    if under_way := seen.release or seen.spent.waits_for:
        return NotFired(f"{under_way} is under way")
    if seen.silent or not seen.labels:
        return NotFired("no new label that counts")
    if not seen.spent.room:
        return NotFired(f"no challenger in the background: {seen.spent}")
    champion = seen.change_key.partition(":")[0]
    reason = f"a challenger in the background: {seen.labels:,} labels since the champion was trained; {seen.spent}"
    return Trigger(f"{BACKGROUND}:{champion}:{seen.labels}", BACKGROUND, reason, seen.now_ms)


def manual(seen: TriggerSeen, _: str) -> Trigger | NotFired:
    """Somebody asked for it."""
    return seen.asked[0] if seen.asked else NotFired("nobody asked")


KINDS: Mapping[str, Kind] = {
    "performance": performance,
    "estimated": estimated,
    "schedule": schedule,
    "manual": manual,
    BACKGROUND: background,
}


def fire(policy: RetrainPolicy, seen: TriggerSeen) -> Trigger | NotFired:
    """The first cause, in the policy's order after the manual ones, that did not fire yet and that nothing forbids:
    no open release, labels that come, the cooldown over, the budget not spent. A person's order needs only the
    first; the background, which comes last, has a budget of its own. While a training has to wait, harm is answered
    by an earlier version, which costs none: `remedy` is `PREVIOUS` then."""
    reasons = []
    held = None
    for kind, setting in _kinds(policy):
        cause = KINDS[kind](seen, setting)
        if isinstance(cause, NotFired):
            reasons.append(cause.reason)
        elif cause.key not in seen.fired:
            forbidden = _forbidden(seen, cause)
            waits = forbidden or _waits(policy, seen, cause)
            since_ms, surely = _began(seen)
            cause = replace(cause, since_ms=since_ms, surely=surely)
            if waits is None:
                return cause
            if forbidden is None and _may_go_back(policy, seen, cause):
                return replace(cause, remedy=PREVIOUS)
            held = held or waits
    return held or NotFired("; ".join(reasons) or "every cause fired already")


def _began(seen: TriggerSeen) -> tuple[int, bool]:
    """When the change began that the evidence speaks for, if not yet aloud (halfway, on its logarithm, to harm), and
    whether it is sure: (0, False) for none. An attempt that failed ends no change, so that its beginning is looked for
    since the champion was made. A champion that was worse from its first day on has not repaired the change that it was
    trained for: that one goes on, and is as sure as it was."""
    change, made, last = seen.change, seen.since_made, seen.last
    if change is None or made is None or made.since is None or not _suspicious(change):
        return 0, False
    since_ms = made.since * DAY_MS
    if last is None or not last.since_ms or since_ms > seen.made_ms + DAY_MS:
        return since_ms, seen.harmed
    return last.since_ms, seen.harmed or last.surely


def check(policy: RetrainPolicy, now_ms: int) -> None:
    """Errors: `ConfigError` for a kind of trigger or a schedule that is none."""
    for kind, setting in _kinds(policy):
        if kind == "schedule" and not is_duration(setting):
            cron.newest(setting, now_ms, "retrain.when", CRON)


def _kinds(policy: RetrainPolicy) -> Iterator[tuple[str, str]]:
    yield "manual", ""
    for entry in policy.when:
        if isinstance(entry, Background):
            continue
        name, setting = ("schedule", entry.schedule) if isinstance(entry, Schedule) else (entry, "")
        setting = SIGN if name == "performance" and policy.only_if_it_helps else setting
        if name not in KINDS or (name in WRITTEN and not setting):
            raise ConfigError(
                f"{name!r} is no kind of trigger" if name not in KINDS else f"{name} needs its setting",
                where="retrain.when",
                way_out=f"Known kinds: {', '.join(KINDS)}; {', '.join(WRITTEN.values())}.",
            )
        yield name, setting
    if any(isinstance(entry, Background) for entry in policy.when):
        yield BACKGROUND, ""


def _forbidden(seen: TriggerSeen, cause: Trigger) -> NotFired | None:
    """Why nothing at all may be done."""
    if seen.release:
        return NotFired(f"not retrained, because release {seen.release} is under way", cause.key, "release")
    if cause.kind in ("manual", BACKGROUND):
        return None
    if seen.silent:  # there is nothing new to learn from, and a release would find no label to be judged on
        words = f"not retrained, because no label that counts came for the last {seen.silent} days that are due"
        return NotFired(words, cause.key, "labels")
    return None


def _waits(policy: RetrainPolicy, seen: TriggerSeen, cause: Trigger) -> NotFired | None:
    """Why nothing may be trained yet."""
    if cause.kind in ("manual", BACKGROUND):
        return None
    rest = max((seen.trained_ms, *seen.trainings)) + policy.cooldown * _doubled(seen.failed) - seen.now_ms
    if rest > 0:
        after = f", {seen.failed} times in a row without success" if seen.failed > 1 else ""
        words = f"not retrained, because of the cooldown{after}: {show_duration(rest)} left"
        return NotFired(words, cause.key, f"cooldown {seen.failed}" if after else "cooldown")
    # whoever asks, it is the same question; but a no from before a change says nothing of it
    asked = [at for kind, at in seen.declined if kind != PREVIOUS and at >= _began(seen)[0]]
    wait = min(DAY_MS * _doubled(len(asked)), max(policy.cooldown, DAY_MS), ASKED_MS)
    rest = max(asked, default=seen.now_ms - wait) + wait - seen.now_ms
    if rest > 0:
        return NotFired(f"not asked again whether a training helps for {show_duration(rest)}", cause.key, "back-off")
    if left(policy, seen) <= 0:
        budget = policy.budget
        words = f"not retrained, because all {budget.trainings} trainings of {show_duration(budget.per)} are spent"
        return NotFired(words, cause.key, "budget")
    return None


def _may_go_back(policy: RetrainPolicy, seen: TriggerSeen, cause: Trigger) -> bool:
    """Earlier versions are compared with once a day, when labels have come."""
    newest = max((at for _, at in seen.declined), default=0)
    asked = PREVIOUS in policy.remedies and cause.kind == "performance"
    return asked and not rests(policy, seen) and seen.now_ms - newest >= DAY_MS


def left(policy: RetrainPolicy, seen: TriggerSeen) -> int:
    """So many trainings of the budget may still be spent now."""
    return policy.budget.trainings - sum(at > seen.now_ms - policy.budget.per for at in seen.trainings)


def _doubled(times: int) -> int:
    """How a wait grows: 1, 1, 2, 4, …"""
    return int(2 ** min(max(times - 1, 0), LONGEST))


def trained(released_ms: int, trainings: Sequence[int], taken: Sequence[int]) -> int:
    """When the champion was trained and its release began; one that was taken back is as old as the last training
    before that, for nothing was trained for it."""
    before = max((at for at in trainings if at <= released_ms), default=0)
    back = max((at for at in taken if at <= released_ms), default=0)
    return before if before and back > before else released_ms


def rests(policy: RetrainPolicy, seen: TriggerSeen) -> bool:
    """An earlier version was taken back within the cooldown. That trained nothing, so that trainings need not wait for
    it; but if it did not help, the next one would not."""
    return seen.now_ms - max(seen.taken, default=seen.now_ms - policy.cooldown) < policy.cooldown


def called(policy: RetrainPolicy, seen: TriggerSeen) -> str:
    """Why a person is needed, "" when none is: every remedy of the policy was tried since the last that succeeded, and
    the champion is still worse."""
    automatic = len(policy.remedies) - policy.remedies.count("person")
    if "person" not in policy.remedies or not seen.harmed or seen.failed < automatic:
        return ""
    return f"{seen.failed} attempts in a row brought no better model, and the champion is worse than it was"


def ladder(policy: RetrainPolicy, failed: int) -> tuple[str | OtherWindow, ...]:
    """The remedies, without the person, the next one first: one that failed is passed over."""
    known = [one for one in policy.remedies if one != "person"]
    turn = failed % len(known) if known else 0
    return tuple(known[turn:] + known[:turn])
