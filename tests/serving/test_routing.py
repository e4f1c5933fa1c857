"""The routing document as callers meet it: segment rules, chosen variants, several arms, documents that change."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from hashlib import sha256
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import GOOD, World, loads, logistic

from homeostat.domain.rollout import Arm, Route, Routing, Share
from homeostat.domain.units import ALL
from homeostat.engines.routing import assign
from homeostat.serving.messages import Request, Response

PATH = "/v1/models/fraud/predict"
COUNTRIES = ("de", "fr", "pl")
TOKEN = "only-for-tests"
TESTERS = {"other": sha256(b"another").hexdigest(), "ann": sha256(TOKEN.encode()).hexdigest()}


def failing(x: Any, /) -> Any:
    raise RuntimeError(f"{len(x)} rows")


def always(score: float) -> Any:
    return lambda x: np.tile([1 - score, score], (len(x), 1))


def world(candidate: Any = logistic, **changes: Any) -> World:
    made = World()
    made.route(made.bundle(logistic), made.bundle(candidate), **changes)
    made.router.publish(replace(made.router.read(), version=2, testers=TESTERS))
    made.engine.refresh()
    return made


def rows(countries: str = "de fr pl") -> list[dict[str, Any]]:
    return [{**GOOD, "country": country, "id": f"{country}{i}"} for country in countries.split() for i in range(20)]


class TestSegments:
    @pytest.mark.parametrize("weight", [0, 3_000, ALL])
    @pytest.mark.parametrize(
        ("rules", "barred"),
        [({"only": {"country": ("de", "fr")}}, {"pl"}), ({"never": {"country": ("de",)}}, {"de"})],
    )
    def test_stay_with_the_champion_and_have_no_weight(self, rules: Any, barred: set[str], weight: int) -> None:
        made = world(weight=weight, shadow=True, **rules)
        assert made.records(*rows()).status == 200
        made.engine.shadow()
        met = set()
        for row in made.rows():
            kept = row["id"][:2] in barred
            assert row["weight"] == (0 if kept else weight)
            assert not (kept and row["arm"] == "candidate")
            met |= {row["id"][:2]} if row["arm"] == "candidate" else set()
        assert len(made.rows()) == 120
        assert met == (set(COUNTRIES) - barred if weight else set())

    def test_a_refused_row_beside_them_is_logged_once(self) -> None:
        made = world(weight=5_000, never={"country": ("de",)})
        bad = {"records": [{**GOOD, "amount": -1, "id": "bad"}]}
        assert [one.status for one in made.ask({"records": rows()}, bad)] == [200, 422]
        kept = {row["id"]: (row["role"], row["weight"]) for row in made.rows()}
        assert len(kept) == len(made.rows()) == 61
        assert kept["bad"] == ("rejected", 5_000)


def ask(made: World, variant: str, token: str | None = TOKEN, path: str = PATH, n: int = 1) -> Response:
    headers = {"x-homeostat-variant": variant} | ({"authorization": f"Bearer {token}"} if token else {})
    body = json.dumps({"records": [{**GOOD, "id": f"{variant}-{i}"} for i in range(n)]}).encode()
    return made.engine.answer([Request("POST", path, body, headers)])[0]


class TestChosenVariants:
    @pytest.mark.parametrize(("variant", "version"), [("champion", 1), ("candidate", 2), ("1", 1), ("2", 2)])
    def test_a_caller_with_a_token_gets_it(self, variant: str, version: int) -> None:
        made = world(weight=100, shadow=True, never={"country": ("de",)})
        response = ask(made, variant)
        assert (response.status, loads(response)["model_version"]) == (200, version)
        assert dict(response.headers)["x-release-id"] == "pinned:R1"
        made.engine.shadow()
        (row,) = made.rows()
        assert (row["release"], row["version"]) == ("pinned:R1", version)

    @pytest.mark.parametrize("token", [None, "wrong", "", "\udc80"])
    def test_without_a_token_it_is_refused_and_logged(self, token: str | None) -> None:
        made = world(weight=100)
        response = ask(made, "candidate", token)
        assert (response.status, loads(response)["error"]["rule"]) == (403, "token")
        assert [row["status"] for row in made.rows()] == ["rejected"]

    def test_only_what_is_there_can_be_chosen(self) -> None:
        assert loads(ask(world(weight=100), "7"))["error"]["rule"] == "variant"
        alone = World()
        alone.route(alone.bundle(logistic))
        alone.router.publish(replace(alone.router.read(), version=2, testers=TESTERS))
        alone.engine.refresh()
        assert [ask(alone, one).status for one in ("candidate", "champion")] == [404, 200]

    def test_a_token_that_was_taken_away_is_refused(self) -> None:
        made = world(weight=100)
        made.router.publish(replace(made.router.read(), version=3, testers={}))
        made.engine.refresh()
        assert ask(made, "candidate").status == 403

    def test_a_candidate_that_fails_is_replaced(self) -> None:
        made = world(failing, weight=100)
        response = ask(made, "candidate")
        assert (response.status, loads(response)["model_version"]) == (200, 1)

    def test_others_in_the_same_tick_are_routed_as_ever(self) -> None:
        made = world(weight=0)
        headers = {"x-homeostat-variant": "candidate", "authorization": f"Bearer {TOKEN}"}
        body = json.dumps({"records": [GOOD]}).encode()
        sent = [Request("POST", PATH, body), Request("POST", PATH, body, headers), Request("POST", PATH, body)]
        assert [loads(one)["model_version"] for one in made.engine.answer(sent)] == [1, 2, 1]


class TestSeveralArms:
    def test_each_answers_its_share_and_a_failed_one_is_replaced(self) -> None:
        made = World()
        names = [made.bundle(one) for one in (logistic, always(0.2), failing)]
        more = (Share(Arm(3, names[2]), 3_000),)
        over = Route("E1", Arm(1, names[0]), Arm(2, names[1]), 3_000, salt="s", more=more)
        made.router.publish(Routing(1, {"fraud": Route("R1", Arm(1, names[0]))}, {"fraud": over}))
        made.engine.refresh()
        sent = [{**GOOD, "id": f"r{i}"} for i in range(60)]
        answered = loads(made.records(*sent))
        due = [min(int(bucket) // 3_000, 2) for bucket in assign("s", [one["id"] for one in sent])]
        assert set(due) == {0, 1, 2}
        answers = {row["id"]: row for row in made.rows() if row["role"] == "answer"}
        for place, one in zip(due, answered["predictions"], strict=True):
            arm, version = [("candidate", 2), ("version 3", 1), ("champion", 1)][place]
            row = answers[one["id"]]
            assert (row["release"], row["arm"], row["version"]) == ("E1", arm, version)
            assert one["score"] == (0.2 if version == 2 else 0.5)
        failed = [(row["arm"], row["version"], row["status"]) for row in made.rows() if row["role"] == "failed"]
        assert failed == [("version 3", 3, "error")] * due.count(1)


# Documents at random. Versions 1 to 4 answer with a score of their own; version 4 can't be loaded.
SCORES = {1: 0.1, 2: 0.2, 3: 0.3}
arm = st.integers(1, 4)
rule = st.dictionaries(st.just("country"), st.lists(st.sampled_from(COUNTRIES), max_size=2).map(tuple), max_size=1)


@st.composite
def routes(draw: Any) -> Mapping[str, Any]:
    many = {"champion": draw(arm), "candidate": draw(st.none() | arm), "only": draw(rule), "never": draw(rule)}
    if many["candidate"] is not None:
        many |= {"weight": draw(st.sampled_from([0, 100, 5_000, ALL])), "shadow": draw(st.booleans())}
        if many["weight"] <= 5_000:
            many["more"] = draw(st.lists(st.tuples(arm, st.integers(0, 2_500)), max_size=2))
    return many


documents = st.fixed_dictionaries(
    {"route": st.none() | routes(), "over": st.none() | routes(), "tester": st.booleans()}
)
steps = st.lists(st.tuples(documents, st.sampled_from([None, "champion", "candidate", "1", "2", "3"])), max_size=8)


def published(made: World, bundles: Mapping[int, str], number: int, spec: Mapping[str, Any]) -> Routing:
    def route(name: str, drawn: Mapping[str, Any]) -> Route:
        arms = {key: Arm(drawn[key], bundles[drawn[key]]) for key in ("champion", "candidate") if drawn[key]}
        more = tuple(Share(Arm(n, bundles[n]), weight) for n, weight in drawn.get("more", ()))
        rest = {key: drawn[key] for key in ("weight", "shadow", "only", "never") if key in drawn}
        return Route(f"{name}{number}", **arms, more=more, salt=f"{name}{number}", **rest)

    given = {key: {"fraud": route(key, spec[key])} if spec[key] else {} for key in ("route", "over")}
    document = Routing(number, given["route"], given["over"], TESTERS if spec["tester"] else {})
    made.router.publish(document)
    return document


@settings(max_examples=150)
@given(steps)
def test_no_sequence_of_documents_leaks_an_old_route(drawn: list[tuple[Mapping[str, Any], str | None]]) -> None:
    made = World()
    bundles = {n: made.bundle(always(score)) for n, score in SCORES.items()} | {4: "missing"}
    kept: Route | None = None
    for number, (spec, variant) in enumerate(drawn, 1):
        document = published(made, bundles, number, spec)
        made.engine.refresh()
        kept = expected(document, kept)
        made.engine.shadow()
        said = [ask(made, variant, n=6)] if variant else made.ask({"records": rows()[::7]})
        check(said[0], kept, document, variant)


def expected(document: Routing, before: Route | None) -> Route | None:
    """What must be in force: a champion that can't be loaded leaves the route before, a model that is gone none."""
    route, over = document.routes.get("fraud"), document.experiments.get("fraud")
    if route is None:
        return None
    if over is not None and route.candidate is None and over.champion == route.champion:
        route = over
    return before if route.champion.version == 4 else route


def check(said: Response, route: Route | None, document: Routing, variant: str | None) -> None:
    if route is None:
        assert said.status in (404, 503)
        return
    told = {str(one.arm.version) for one in route.shares} | {str(route.champion.version), "champion"}
    told |= {"candidate"} if route.candidate else set()
    if variant:
        assert said.status == (403 if not document.testers else 200 if variant in told else 404)
        if said.status != 200:
            return
    body = loads(said)
    assert dict(said.headers)["x-release-id"] == ("pinned:" if variant else "") + route.release
    for one in body["predictions"]:
        version = one.get("model_version", body["model_version"])
        assert one["score"] == SCORES[version]
        assert version == (pinned_version(route, variant) if variant else due(route, one["id"]))


def pinned_version(route: Route, variant: str) -> int:
    names = {"champion": route.champion.version}
    if route.candidate:
        names["candidate"] = route.candidate.version
    wanted = names.get(variant) or int(variant)
    return wanted if wanted != 4 else route.champion.version


def due(route: Route, name: str) -> int:
    """The version that a row's bucket and country lead to, worked out by hand."""
    country = name[:2]
    admitted = all(country in values for values in route.only.values())
    if not admitted or any(country in values for values in route.never.values()):
        return route.champion.version
    bucket, end = int(assign(route.salt, [name])[0]), 0
    for share in route.shares:
        end += share.weight
        if bucket < end:
            return share.arm.version if share.arm.version != 4 else route.champion.version
    return route.champion.version


class TestSignals:
    def test_are_kept_by_name_beside_labels(self) -> None:
        made = world()
        signals = [{"id": 7, "name": "amount", "value": 12.5}, {"id": "7", "name": "bought", "value": True, "at": 5}]
        (answer,) = made.ask({"labels": [{"id": "7", "label": "yes"}], "signals": signals}, path="/v1/feedback")
        assert (answer.status, loads(answer)) == (200, {"accepted": 3})
        kept = made.labels.signals(0, 2**62)
        assert sorted(kept.rows()) == [("7", "amount", 12.5, made.clock.ms), ("7", "bought", 1.0, 5)]
        assert made.labels.read(0, 2**62)["label"].to_list() == ["yes"]

    @pytest.mark.parametrize(
        "signal",
        [{"value": "many"}, {"name": ""}, {"name": "x" * 65}, {"id": ""}, {"more": 1}, {"value": None}, {"at": -1}],
    )
    def test_all_or_none(self, signal: dict[str, Any]) -> None:
        made = world()
        good = {"id": "a", "name": "amount", "value": 1}
        (answer,) = made.ask({"signals": [good, good | signal]}, path="/v1/feedback")
        assert answer.status == 422
        assert made.ask({"signals": []}, path="/v1/feedback")[0].status == 422
        assert made.labels.signals(0, 2**62).is_empty()
