"""The engine: requests in, answers out, without a socket. The HTTP protocol and the rehearsal both run this one.

All requests of one turn of the event loop come in together: one model call for each arm and one log append for each
model, before any answer leaves.
"""

from __future__ import annotations

import logging
import math
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import count
from typing import Protocol

import numpy as np

from homeostat.domain.feedback import Exploration, FeedbackPolicy
from homeostat.domain.prediction import LogBatch
from homeostat.domain.rollout import Routing
from homeostat.ports import Blobs, Clock, LabelLog, PredictionLog, Router, Runtime, TickTrace, Tracing
from homeostat.serving import feedback
from homeostat.serving.bundles import Loaded, Shelf
from homeostat.serving.edge import Edge, model_of
from homeostat.serving.explore import marked
from homeostat.serving.group import Group, tally
from homeostat.serving.messages import JSON, Answered, Ask, Refusal, Request, Response, json, refused
from homeostat.serving.meter import METRICS, Counted, Meter
from homeostat.serving.pins import VARIANT
from homeostat.serving.plan import Plan, build, refuse
from homeostat.serving.record import Page, shadowed
from homeostat.serving.records import Records
from homeostat.serving.room import Room
from homeostat.serving.score import (
    Batch,
    Index,
    Patience,
    Scored,
    Served,
    Within,
    attempt,
    input_of,
    patiently,
    score,
)
from homeostat.serving.trace_context import PassedOn, trace_id
from homeostat.serving.typed import media, stem

Shadow = Callable[[], LogBatch | None]
Later = deque[Shadow]
LARGE = 65_536
"""Bytes of a body that takes long to answer."""
_WANTED = 16  # bundles asked for and not yet loaded
_RETRY_MS = 5_000  # how long a bundle that would not load is left alone
_log = logging.getLogger("homeostat.serving")


class Codec(Protocol):
    """One protocol for one model."""

    def decode(self, request: Request) -> Ask: ...

    def salvage(self, request: Request) -> Ask: ...

    def encode(self, ask: Ask, tick: Answered, /) -> Response: ...

    def refuse(self, error: Refusal) -> Response: ...


class Engine:
    """Holds what is loaded; everything else comes in through ports. `ids` gives fresh prediction ids; a candidate that
    has not answered after `timeout_s` has failed, and so has one whose calls take more than the models leave of
    `memory` (bytes); models beyond that are loaded when they are asked for. `told`: what feedback may say."""

    def __init__(
        self,
        blobs: Blobs,
        runtime: Runtime,
        log: PredictionLog,
        labels: LabelLog,
        clock: Clock,
        router: Router,
        ids: Iterator[str],
        timeout_s: float | None = None,
        tracing: Tracing | None = None,
        memory: float = math.inf,
        meter: Meter | None = None,
        told: FeedbackPolicy | None = None,
    ) -> None:
        self.meter, self._told = meter or Meter(), told or FeedbackPolicy()
        self._memory, self._used = memory, dict[str, int]()
        self._rooms: dict[str, Room] = {}
        self._within: Within = Patience(timeout_s) if timeout_s else patiently
        self._tracing = tracing or PassedOn()
        self._log, self._labels, self._clock, self._router, self._ids = log, labels, clock, router, ids
        self._shelf, self._edge = Shelf(blobs, runtime), Edge(blobs)
        self._plan, self._routing, self._again_ms = Plan(), Routing(), 0
        self._wanted: list[str] = []
        self._later: Later = deque()
        self._writing, self._planning = threading.Lock(), threading.Lock()
        self._writable = self._readable = True

    # What it serves

    def refresh(self) -> bool:
        """Follow the routing document, and load what was asked for. → True when the document changed. A document
        that can't be read changes nothing. Safe to run in a thread beside `answer`."""
        while self._wanted:
            loaded = self._shelf.load(self._wanted.pop())
            self._again_ms = 0 if loaded else self._again_ms
        try:
            routing = self._router.read()
        except Exception:  # the data plane goes on with what it has
            if self._readable:  # said once, not five times a second
                _log.exception("the routing document can't be read")
            self._readable = False
            return False
        self._readable = True
        self._unload(routing)
        changed, now_ms = routing.version != self._plan.version, self._clock.now_ms()
        if not changed and (self._plan.complete or now_ms < self._again_ms):
            return False
        self._again_ms = now_ms + _RETRY_MS
        self._build(routing)
        return changed

    def _build(self, routing: Routing) -> None:
        with self._planning:
            self._plan = build(routing, self._shelf, self._plan, self._memory, self._used)
            self._shelf.retain(self._plan.bundles, self._memory)
            self._shelf.pardon({arm.bundle for name in routing.routes for arm in routing.in_force(name).arms})
            self._routing, self._rooms = routing, self._furnished(self._plan)
            self.meter.follows(routing.version, {name: name not in self._plan.missing for name in routing.routes})

    def _furnished(self, plan: Plan) -> dict[str, Room]:
        """What is left of the memory is for the calls of a candidate; at least what it takes itself."""
        if self._memory == math.inf:
            return {}
        left = self._memory - sum(served.size for served in plan.models.values())
        found = [one for served in plan.models.values() for one in served.loaded[:-1]]
        return {one.id: self._rooms.get(one.id) or Room(one, max(left, one.size)) for one in found}

    def _unload(self, routing: Routing) -> None:
        """Candidates that took too much memory go; the champion answers for them."""
        over = [bundle for bundle, room in self._rooms.items() if room.over]
        for bundle in over:
            self._shelf.refuse(bundle, "its calls took more memory than serving.memory leaves")
        if over:
            self._build(routing)

    def _warm(self, requests: Sequence[Request]) -> None:
        """Load the cold models that are asked for; those that were not asked for longest make room."""
        asked = {self._plan.asks_cold(request.path) for request in requests} - {None}
        for model in filter(None, asked):
            self._used[model] = self._clock.now_ms()
            self._build(self._routing)

    def ready(self, model: str, bundle: str) -> bool:
        """`ports.Plane` within one process: load the bundle now, and say whether its sample gives the stored scores."""
        del model
        return self._shelf.load(bundle) is not None

    # Answering

    def slow(self, request: Request) -> bool:
        """Its answer takes so long that others should not wait for it."""
        plan = self._plan
        if request.path in plan.quick:  # nearly always
            return len(request.body) > LARGE
        return (
            len(request.body) > LARGE
            or request.path == METRICS
            or request.path in plan.slow
            or (bool(plan.cold) and plan.asks_cold(request.path) is not None)
        )

    def answer(
        self, requests: Sequence[Request], later: Later | None = None, counted: Counted | None = None
    ) -> list[Response]:
        """One response a request, in order; never raises for what a caller sent. What is to be scored in shadow goes
        to `later`, what was answered to `counted`. Several threads may call it."""
        if self._plan.cold:
            self._warm(requests)
        plan, later, trace = self._plan, self._later if later is None else later, self._tracing.tick()
        responses: list[Response | None] = [None] * len(requests)
        groups = self._decoded(plan, requests, responses)
        trace.stage("decode")
        for group in groups:
            self._tick(group, responses, later, trace)
        answered = [response or _broken() for response in responses]
        if counted is not None:
            tally(groups, answered, counted)
        trace.end(requests, answered)
        return answered

    def shadow(self, later: Later | None = None, ticks: int | None = None) -> None:
        """Score what is to be scored beside the answers, of all `ticks` or the oldest ones. Call it when the answers
        are on their way."""
        later = self._later if later is None else later
        for _ in range(len(later) if ticks is None else min(ticks, len(later))):
            self._write(*filter(None, (later.popleft()(),)))

    def shed(self, requests: Sequence[Request]) -> list[Response]:
        """Refuse them unread, in the log too."""
        plan, now_ms = self._plan, self._clock.now_ms()
        ids = [next(self._fresh(request)) for request in requests]
        asked: defaultdict[str, list[str]] = defaultdict(list)
        for request, name in zip(requests, ids, strict=True):
            asked[request.path].append(name)
        for path, names in asked.items():
            if path in plan.predict:
                served = plan.predict[path].served
                page = Page(served, now_ms)
                page.shed(names)
                self._write(*page.batches())
                self.meter.refused(503, len(names), served.model, served.route.release)
            else:
                self.meter.refused(503, len(names))
        return [_shed(request, name) for request, name in zip(requests, ids, strict=True)]

    def _tick(self, group: Group, responses: list[Response | None], later: Later, trace: TickTrace) -> None:
        served = group.served
        now_ms = self._used[served.model] = self._clock.now_ms()
        batch = group.checked()
        trace.stage("check")
        scored = score(served, batch, self._clock, self._patience) if batch else None
        trace.stage("predict")
        page = Page(served, now_ms, group.traces)
        if batch and scored:
            page.answered(batch, scored)
        for ask in group.asks:
            if ask.refusal:
                page.rejected(ask.rows, ask.ids, ask.keys, ask.refusal)
        if not self._write(*page.batches()):
            group.refuse(Refusal(503, "the prediction log can't be written", rule="log"), responses)
            return
        trace.stage("log")
        answered = group.answered(batch, scored) if batch and scored else None
        if answered and self._told.exploration:
            self._explore(served.model, self._told.exploration, answered, now_ms)
        group.encode(answered, responses)
        trace.stage("encode")
        if batch and scored:
            later.extend(self._shadows(served, batch, scored, now_ms))

    def _decoded(self, plan: Plan, requests: Sequence[Request], responses: list[Response | None]) -> Collection[Group]:
        """What is to be predicted, model by model; the others get their response."""
        groups: dict[int, Group] = {}
        for i in self._together(plan, requests, groups):
            request = requests[i]
            target = plan.predict.get(request.path)
            if target is None or request.method != "POST":
                responses[i] = self._other(plan, request)
                continue
            if VARIANT in request.headers:
                target = plan.chosen(target, request)
            codec, served = target.codec, target.served
            try:
                ask = codec.decode(request)
            except Refusal as error:
                ask = codec.salvage(request)
                ask.refusal = error
            ask.at, ask.codec = i, codec
            self._name(ask, request)
            group = _group(groups, served)
            group.asks.append(ask)
            if "traceparent" in request.headers and (trace := trace_id(request.headers)):
                group.traces.update(dict.fromkeys(ask.ids, trace))
        return groups.values()

    def _together(self, plan: Plan, requests: Sequence[Request], groups: dict[int, Group]) -> list[int]:
        """Decode those that can be decoded together. → the places of the others"""
        alike: defaultdict[str, list[int]] = defaultdict(list)
        for i, request in enumerate(requests):
            alike[request.path if request.plain else ""].append(i)
        others = alike.pop("", [])
        for path, places in alike.items():
            target = plan.predict.get(path)
            if target is not None and isinstance(target.codec, Records):
                singles, places = target.codec.together(requests, places)
                if singles.at:
                    _group(groups, target.served).add(singles, self._ids)
            others += places
        return sorted(others)

    def _name(self, ask: Ask, request: Request) -> None:
        """An id for each row that has none."""
        fresh, ids = self._fresh(request) if "idempotency-key" in request.headers else self._ids, ask.ids
        if len(ids) == 1:  # nearly always
            ids[0] = ids[0] or next(fresh)
            return
        ask.ids = [name or next(fresh) for name in ids]
        if ask.refusal is None and len(set(ask.ids)) < len(ids):
            ask.refusal = Refusal(422, "an id stands twice in one request", rule="once", name="id")

    def _fresh(self, request: Request) -> Iterator[str]:
        """Ids for rows that have none."""
        key = request.headers.get("idempotency-key")
        return _numbered(stem(key)) if key else self._ids

    def _write(self, *pages: LogBatch) -> bool:
        """An answer without a record is no answer."""
        try:
            with self._writing:
                for page in pages:
                    self._log.append(page)
                    self.meter.rows(page)
        except Exception:  # a full disk must not end the worker
            if self._writable:  # told once, however long it lasts
                _log.exception("the prediction log can't be written")
            self._writable = False
        else:
            self._writable = True
        return self._writable

    def _explore(self, model: str, slice_: Exploration, answered: Answered, at_ms: int) -> None:
        """A mark that can't be written down is not told: its label would count as one that the model chose."""
        try:
            answered.explored = marked(slice_, model, answered.ids, at_ms, self._labels)
        except Exception:  # as in _write
            _log.exception("the exploration slice can't be written down")
        answered.act = slice_.answer

    def _shadows(self, served: Served, batch: Batch, scored: Scored, at_ms: int) -> Iterator[Shadow]:
        route = served.route
        if not route.shadow or route.candidate is None or served.candidate is None:
            return
        rest = np.ones(len(scored.status), bool)  # the rows that broke one version too: they may break both
        for _, made in scored.failed:  # the champion has answered these already
            rest[made.rows[~made.good]] = False
        if scored.kept is not None:  # logged as their answers are: without weight
            rows, rest = np.flatnonzero(rest & scored.kept), rest & ~scored.kept
            if len(rows):
                unweighted = replace(served, route=replace(route, weight=0))
                yield partial(self._shadowed, unweighted, batch, 0, rows, at_ms)
        for arm in (0, 1):
            rows = np.flatnonzero(rest & (scored.arm == arm))
            if len(rows):
                yield partial(self._shadowed, served, batch, arm, rows, at_ms)

    def _shadowed(self, served: Served, batch: Batch, arm: int, rows: Index, at_ms: int) -> LogBatch | None:
        """Rows of one arm, scored by the other."""
        if arm:
            made = attempt(served.champion, rows, batch.of, self._clock)
            return shadowed(served, at_ms, batch, arm, served.champion, served.route.champion, made)
        if served.candidate is None or served.route.candidate is None:
            return None
        x, within = partial(input_of, served.candidate, served, batch), self._patience(served.candidate)
        made = attempt(served.candidate, rows, x, self._clock, within)
        return shadowed(served, at_ms, batch, arm, served.candidate, served.route.candidate, made)

    def _patience(self, loaded: Loaded | None) -> Within:
        """How a candidate is called: within its time and its memory."""
        room = self._rooms.get(loaded.id) if loaded else None
        return partial(room, self._within) if room else self._within

    # Everything but predictions

    def _other(self, plan: Plan, request: Request) -> Response:
        try:
            if request.path == "/v1/feedback":
                _only(request, "POST")
                media(request, JSON)
                return self._feedback(plan, request.body)
            if (model := model_of(request.path)) is not None:
                now_ms = self._clock.now_ms()
                return self._edge.answer(request, lambda: plan.one(model).route, self._write, now_ms)
            if request.path.startswith("/v1/bundles/") and request.path.endswith("/ready"):
                _only(request, "GET, HEAD")
                return self._bundle(request.path.split("/")[3])
            if request.path == METRICS:
                from homeostat.serving.exposition import exposed  # only those who are scraped need it

                _only(request, "GET, HEAD")
                return exposed(self.meter, request.headers.get("accept", ""))
            return plan.other(request)
        except Refusal as error:
            return refuse(request, error)

    def _feedback(self, plan: Plan, body: bytes) -> Response:
        parsed = feedback.parse(body)
        served, now_ms = plan.one(parsed.model), self._clock.now_ms()
        batch = feedback.batch(served.champion.schema, self._told, parsed.labels, now_ms)
        signals = feedback.signal_batch(self._told, parsed.signals, now_ms)
        try:
            if parsed.labels:
                self._labels.append(batch)
            if parsed.signals:
                self._labels.append_signals(signals)
        except Exception:  # as in _write
            _log.exception("the label log can't be written")
            raise Refusal(503, "the label log can't be written", rule="log") from None
        self.meter.labels(served.model, len(parsed.labels))
        return json(200, {"accepted": len(parsed.labels) + len(parsed.signals)})

    def _bundle(self, bundle: str) -> Response:
        """Whether a bundle can answer. Asking has it loaded at the next `refresh`."""
        if self._shelf.get(bundle) is not None:
            return json(200, {"ready": True, "reason": ""})
        if len(self._wanted) < _WANTED and bundle not in self._wanted:
            self._wanted.append(bundle)
        return json(503, {"ready": False, "reason": self._shelf.reason(bundle)})


def _numbered(key: str) -> Iterator[str]:
    """The ids of a request that names itself: sent again, it gets the same ones."""
    yield key
    for i in count(1):
        yield f"{key}-{i}"


def _group(groups: dict[int, Group], served: Served) -> Group:
    found = groups.get(id(served))
    if found is None:
        found = groups[id(served)] = Group(served, [])
    return found


def _only(request: Request, methods: str) -> None:
    if request.method not in methods.split(", "):
        raise Refusal(405, f"use {methods.partition(',')[0]}", rule=methods)


def _shed(request: Request, name: str) -> Response:
    refusal = Refusal(503, "too many requests are waiting", rule="queue")
    refusal.ids = [name]
    return refuse(request, refusal)


def _broken() -> Response:
    return refused(Refusal(500, "the request got no answer"))
