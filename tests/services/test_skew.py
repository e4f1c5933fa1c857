"""Rows of the log, scored once more: by the model that served them, and by one that did not."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

import projects
from homeostat.adapters.runtime import OnnxRuntime
from homeostat.domain.gate import Verdict
from homeostat.domain.policy import LogPolicy
from homeostat.domain.units import DAY_MS
from homeostat.services.champion import Champion
from homeostat.services.skew import Skew
from homeostat.serving.messages import Request
from homeostat.wiring.system import System

WHOLE = LogPolicy()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> tuple[System, Champion, int]:
    """A day of which the last hour has a few answers; → with when it ends."""
    one = projects.system(projects.make(tmp_path_factory.mktemp("cards") / "cards"))
    one.control.begin()
    one.control.settle()
    one.engine.refresh()
    end = one.clock.now_ms() // DAY_MS * DAY_MS + DAY_MS
    one.clock.move_to(end - 60_000)
    champion = one.champions.now()
    assert champion is not None
    names = list(champion.bundle.schema.names)
    records = projects.rows(days=1).select(names).head(20).to_dicts()
    body = msgspec.json.encode({"records": records})
    (answer,) = one.engine.answer([Request("POST", "/v1/models/cards/predict", body)])
    assert answer.status == 200, answer.body
    return one, champion, end


def reading(served: tuple[System, Champion, int], champion: Champion, log: LogPolicy = WHOLE) -> tuple[Verdict, str]:
    one, _, end = served
    skew = Skew(replace(one.policy, log=log), one.stores.log, one.stores.blobs, OnnxRuntime())
    found = skew.reading(champion, end - DAY_MS, end)
    return found.verdict, found.reason


def test_what_was_served_is_what_the_bundle_says(served: tuple[System, Champion, int]) -> None:
    verdict, reason = reading(served, served[1])
    assert verdict is Verdict.OK
    assert "0 of 20 rows" in reason


def test_a_transform_that_serving_does_otherwise_is_found(served: tuple[System, Champion, int]) -> None:
    """The bundle's fields stand in another order than those that were served."""
    champion = served[1]
    turned = replace(champion.bundle.schema, fields=champion.bundle.schema.fields[::-1])
    verdict, reason = reading(served, replace(champion, bundle=replace(champion.bundle, schema=turned)))
    assert verdict is Verdict.HARM
    assert "give other scores, as test" in reason


def test_without_the_inputs_or_without_rows_it_is_unknown(served: tuple[System, Champion, int]) -> None:
    one, champion, end = served
    name = champion.bundle.schema.names[0]
    assert reading(served, champion, LogPolicy(drop=(name,)))[0] is Verdict.UNKNOWN
    assert reading((one, champion, end + 9 * DAY_MS), champion)[0] is Verdict.UNKNOWN
