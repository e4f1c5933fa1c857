"""Tokens, and what the control plane leaves alone in the routing document."""

from __future__ import annotations

import json
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import polars as pl
import pytest

import projects
from homeostat.domain.errors import ConfigError, NotFound, Refused
from homeostat.domain.policy import ReleasePolicy
from homeostat.domain.rollout import Arm, Route, Routing
from homeostat.domain.units import DAY_MS, HOUR_MS
from homeostat.project import Project
from homeostat.services.evidence_log import traffic
from homeostat.services.scored import scored_by
from homeostat.services.tokens import Tokens
from homeostat.stores.memory import MemoryRouter
from test_cli import homeostat
from world import GOOD, LOG, MODEL, START_MS, World


def test_a_token_is_told_once_and_kept_as_a_digest() -> None:
    router = MemoryRouter()
    testers = Tokens(router)
    token = testers.add("ann")
    assert router.read().testers == {"ann": sha256(token.encode()).hexdigest()}
    assert testers.add("ben") != token
    assert testers.names() == ["ann", "ben"]
    with pytest.raises(Refused, match="has a token already"):
        testers.add("ann")
    testers.remove("ann")
    assert testers.names() == ["ben"]
    with pytest.raises(NotFound, match="Tokens have: ben"):
        testers.remove("ann")


class Busy(MemoryRouter):
    """Somebody else publishes first, so many times."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    def publish(self, routing: Routing) -> None:
        if self.times:
            self.times -= 1
            last = self.read()
            super().publish(replace(last, version=last.version + 1, routes={"m": Route("R9", Arm(9, "b"))}))
        super().publish(routing)


def test_who_publishes_at_the_same_moment_loses_nothing() -> None:
    router = Busy(3)
    Tokens(router).add("ann")
    assert (list(router.read().testers), router.read().routes["m"].release) == (["ann"], "R9")
    with pytest.raises(Refused):
        Tokens(Busy(9)).add("ann")


def test_by_the_command_line(tmp_path: Path) -> None:
    root = projects.make(tmp_path / "cards")
    assert homeostat("token", "list", "-p", root)[1] == "Nobody has a token.\n"
    made = json.loads(homeostat("token", "add", "ann", "-p", root, "--json")[1])
    state = b"".join(path.read_bytes() for path in (root / ".homeostat").rglob("*") if path.is_file())
    assert made["token"].encode() not in state
    assert sha256(made["token"].encode()).hexdigest().encode() in state
    assert homeostat("token", "add", "ann", "-p", root)[0] == 1
    assert homeostat("token", "list", "-p", root)[1] == "ann\n"
    assert homeostat("token", "remove", "ann", "-p", root)[0] == 0
    assert list(Project.open(root).token.list()) == []


def test_a_release_keeps_the_rest_of_the_document_and_follows_its_rules() -> None:
    world = World(ReleasePolicy(never={"x": (1.0,)}), per_day=4_800)
    other = Route("R7", Arm(1, "b"))
    world.router.publish(Routing(1, {"other": other}, {"other": other}, {"ann": "digest"}))
    world.promote_first()
    world.releases.start(world.version(2, GOOD))
    world.live(HOUR_MS, HOUR_MS)
    routing = world.router.read()
    assert (routing.experiments, routing.testers, routing.routes["other"]) == (
        {"other": other},
        {"ann": "digest"},
        other,
    )
    assert routing.routes[MODEL].never == {"x": (1.0,)}
    step = world.releases.history()[-1].index
    world.policy = replace(world.policy, release=ReleasePolicy(only={"x": (2.0,)}))
    world.restart()
    world.settle()
    route = world.route
    assert route is not None
    assert (route.only, route.never, route.release) == ({"x": (2.0,)}, {}, "R2")
    assert world.releases.history()[-1].index == step
    assert world.releases.reconcile().do.value == "hold"


def test_a_rule_about_no_input_starts_no_release() -> None:
    world = World(ReleasePolicy(only={"cuontry": ("de",)}))
    with pytest.raises(ConfigError, match="'cuontry' is no input"):
        world.releases.start(world.version(1, GOOD))


POLICY = """experiments:
  checkout:
    metric: {signal: bought, bounds: [0, 1], missing: 0, margin: 1%s}
    guardrails: [{signal: rated, bounds: [1, 5], margin: 0.2}]
    window: 1h
"""


def test_an_experiment_by_the_command_line(tmp_path: Path) -> None:
    root = projects.make(tmp_path / "cards", policy=projects.POLICY + POLICY % "")
    code, _, err = homeostat("experiment", "start", "chekout", "--version", "2", "-p", root)
    assert (code, "Described are: checkout." in err) == (2, True)
    assert "No experiment was begun yet" in homeostat("experiment", "status", "-p", root)[1]
    code, _, err = homeostat("experiment", "start", "checkout", "--version", "2", "-p", root)
    assert (code, "cards serves no version yet" in err) == (2, True)
    assert homeostat("run", "-p", root)[0] == 0
    project = Project.open(root)
    project.system.plane = project.system.engine
    project.system.control.begin()
    project.system.control.settle()
    projects.edited(root, "lib.py", "return 7", "return 9")
    assert homeostat("run", "-p", root)[0] == 0
    assert homeostat("experiment", "start", "checkout", "--version", "2", "-p", root)[0] == 0
    status = json.loads(homeostat("experiment", "status", "-p", root, "--json")[1])
    assert (status["experiment"]["id"], status["result"]["compared"][0]["conclusion"]) == ("E1", "not yet known")
    code, _, err = homeostat("release", "start", "-p", root)
    assert (code, "experiment E1 is under way" in err) == (1, True)
    code, _, err = homeostat("experiment", "plan", "checkout", "--lift", "5%", "-p", root)
    assert (code, "only 0 entities have their bought" in err) == (2, True)
    said = homeostat("experiment", "stop", "--reason", "a try", "-p", root)[1]
    assert "ended it: a try. Version 2: not yet known" in said
    signals = root / "signals.csv"
    signals.write_text("id,name,value\na,bought,1\nb,rated,4.5\n")
    assert (
        homeostat("feedback", "add", signals, "-p", root)[1]
        == "0\N{NO-BREAK SPACE}labels and 2\N{NO-BREAK SPACE}signals taken, of 2\N{NO-BREAK SPACE}rows.\n"
    )
    assert Project.open(root).system.stores.labels.signals(0, 2**62).height == 2
    signals.write_text("id,name,value\na,bought,much\n")
    assert homeostat("feedback", "add", signals, "-p", root)[0] == 2


def test_a_mistyped_setting_of_an_experiment_is_named(tmp_path: Path) -> None:
    root = projects.make(tmp_path / "cards", policy=projects.POLICY + POLICY.replace("window", "widow") % "")
    code, _, err = homeostat("experiment", "status", "-p", root)
    assert (code, "unknown setting 'widow'" in err, "Did you mean 'window'?" in err) == (2, True, True)


def test_answers_to_chosen_variants_count_nowhere() -> None:
    rows = [
        (
            f"{release}{day}",
            None,
            START_MS + day * DAY_MS,
            release,
            1,
            "champion",
            "answer",
            0,
            "ok",
            9,
            0.5,
            None,
            None,
            None,
        )
        for release in ("R1", "pinned:R1")
        for day in range(3)
    ]
    log = pl.DataFrame(rows, LOG, orient="row")
    assert scored_by(log, 1)["release"].to_list() == ["R1"] * 3
    assert traffic(log, START_MS + 2 * DAY_MS) == 1.5
