"""Classes that appear: labels that name one which the model does not know, and how they are told from typing errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from difflib import get_close_matches

import polars as pl

from homeostat.domain.errors import NotFound
from homeostat.domain.event import Event
from homeostat.domain.feedback import NewClass
from homeostat.domain.monitor import Alert, Cause, Severity
from homeostat.domain.policy import Policy
from homeostat.domain.schema import Schema, Task
from homeostat.domain.units import DAY_MS, HOUR_MS, iso
from homeostat.ports import Clock, Journal, LabelLog
from homeostat.services.alerts import Alerts

KIND = "feedback.class"
FOUND, ACCEPTED, REJECTED, WAITING = "found", "accepted", "rejected", "waiting"
LEAST, LEAST_SHARE = 20, 0.002
"""Predictions that must be told to be of a class, and their share of those labelled since, before it is taken for one;
a typing error is rarer."""
LOOK_BACK_MS = 30 * DAY_MS
SUBJECT = "class "
"""How the subjects of its alerts begin."""


class NewClasses:
    """`labels`: as received. `schema`: of what serves; None: nothing does. Only where there are more than two classes:
    elsewhere feedback refuses a label that is none of them."""

    def __init__(
        self,
        policy: Policy,
        labels: LabelLog,
        journal: Journal,
        clock: Clock,
        schema: Callable[[], Schema | None],
        alerts: Alerts,
    ) -> None:
        self.policy, self.labels, self.journal, self.clock = policy, labels, journal, clock
        self.schema, self.alerts = schema, alerts
        self._told: dict[str, str] | None = None
        self._looked_ms = 0

    def turn(self) -> None:
        """See what a person has decided; once an hour look for classes that appear."""
        if self.policy.task is not Task.MULTICLASS:
            return
        self._told = None
        now = self.clock.now_ms()
        if self.schema() is None or now < self._looked_ms + HOUR_MS:
            return
        for one in self.standing():
            if one.state == WAITING and one.often and not one.written_alike:
                self._write(FOUND, one.name, str(one), one)
        self._alert(self.standing())
        self._looked_ms = now

    def believed(self) -> frozenset[str] | None:
        """What labels may say to count: the classes of what serves, those that were found, or accepted by a person.
        None: anything."""
        schema = self.schema() if self.policy.task is Task.MULTICLASS else None
        if schema is None:
            return None
        taken = [name for name, state in self._states().items() if state in (FOUND, ACCEPTED)]
        return frozenset([*map(str, schema.classes), *taken])

    def standing(self) -> tuple[NewClass, ...]:
        """The classes that labels of the last 30 days name and what serves does not know, by name."""
        schema = self.schema() if self.policy.task is Task.MULTICLASS else None
        if schema is None:
            return ()
        now, own = self.clock.now_ms(), [str(one) for one in schema.classes]
        given = self.labels.received(now - LOOK_BACK_MS, now + 1)
        told = pl.col("id").n_unique(), pl.col("at_ms").min(), pl.col("id").last().alias("example")
        named = given.filter(~pl.col("label").is_in(own)).group_by("label").agg(*told)
        return tuple(self._made(own, given, *row) for row in named.sort("label").iter_rows())

    def _made(
        self, own: Sequence[str], given: pl.DataFrame, name: str, n: int, first_ms: int, example: str
    ) -> NewClass:
        share = n / given.filter(pl.col("at_ms") >= first_ms)["id"].n_unique()
        like = next(iter(get_close_matches(_plain(name), [_plain(one) for one in own], 1, 0.8)), "")
        like = next((one for one in own if like and _plain(one) == like), "")
        often = n >= LEAST and share >= LEAST_SHARE
        state = self._states().get(name, WAITING)
        return NewClass(name, n, share, first_ms, like, _plain(like) == _plain(name), often, state, example)

    def _alert(self, seen: Sequence[NewClass]) -> None:
        """One for each class that counts and is not known, or that a person must decide, until that is over."""
        now, open_ones = self.clock.now_ms(), {one.subject for one in self.alerts.open() if one.kind == "class"}
        due = {SUBJECT + one.name: one for one in seen if one.often or one.state == ACCEPTED}
        due = {subject: one for subject, one in due.items() if one.state != REJECTED}
        for subject in sorted({*open_ones, *due}):
            one = due.get(subject)
            self.alerts.settle(subject, None if one is None else _alert_of(one, subject, now), now)

    def decide(self, state: str, name: str, reason: str, who: str) -> Event:
        """A person's word: `ACCEPTED`, its labels count and are learned from; or `REJECTED`, they are errors. Errors:
        `NotFound` for a class that no label names, or that the model knows."""
        one = next((one for one in self.standing() if one.name == name), None)
        if one is None:
            raise NotFound(
                f"no label of the last 30 days names a new class {name!r}",
                way_out="`homeostat feedback status` lists them.",
            )
        return self._write(state, name, f"{state} by {who}; {reason or 'no reason given'}", one)

    def _write(self, state: str, name: str, said: str, one: NewClass) -> Event:
        now = self.clock.now_ms()
        body = {"class": name, "state": state, "predictions": one.predictions, "share": one.share}
        event = Event(
            now, self.policy.name, KIND, f"{KIND}:{name}:{state}:{now}", name, f"New class {name!r}: {said}.", body
        )
        self.journal.append(event)
        self._told = None
        return event

    def _states(self) -> dict[str, str]:
        if self._told is None:
            self._told = dict(self._decided())
        return self._told

    def _decided(self) -> Iterator[tuple[str, str]]:
        for event in self.journal.read(self.policy.name, KIND):
            yield str(event.body["class"]), str(event.body["state"])


def _plain(name: str) -> str:
    """Without case and spaces."""
    return "".join(name.casefold().split())


def _alert_of(one: NewClass, subject: str, now_ms: int) -> Alert:
    order = f"homeostat feedback accept|reject --class {one.name!r}"
    counted = "each counts as a wrong answer until a version has learned it"
    done = f"not counted until a person decides: {order}" if one.state == WAITING else f"{counted}; or: {order}"
    evidence = f"{one}; {done}"
    return Alert(
        "",
        f"labels name a class that the model does not know: {one.name}",
        evidence,
        now_ms,
        subject=subject,
        severity=Severity.WARNING,
        causes=(Cause("class", f"new class {one.name!r}, first told on {iso(one.first_ms)}", one.first_ms),),
        example=one.example,
    )
