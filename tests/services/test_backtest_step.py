"""The first step of a release: harm in recorded requests ends it before any live traffic."""

from __future__ import annotations

import pytest

from homeostat import codec
from homeostat.domain.backtest import Backtested
from homeostat.domain.bundle import Version
from homeostat.domain.errors import Refused
from homeostat.domain.gate import Verdict
from homeostat.domain.policy import ReleasePolicy
from homeostat.domain.rollout import Do, Rollout, Status
from homeostat.domain.units import DAY_MS
from homeostat.engines.report import release_markdown, release_report
from homeostat.ports import Model
from homeostat.project import view
from homeostat.services import replay
from homeostat.services.rollouts import Releases
from homeostat.stores.memory import MemoryJournal, MemoryRollouts, MemoryRouter
from past import MODEL, Past, as_good, gives_nan, raises, wrong, wrong_in_pl


class Stage(Past):
    """Releases over that week. `routed`: every candidate's version that the routing document has ever named."""

    def __init__(self, release: ReleasePolicy | None = None, n: int = 1_200) -> None:
        super().__init__(n, release)
        self.rollouts, self.journal, self.router = MemoryRollouts(), MemoryJournal(), MemoryRouter()
        self.routed: list[int] = []
        ports = self.rollouts, self.journal, self.router, self, self.log, self.labels, self, self.blobs, self.clock
        self.releases = Releases(self.policy, *ports, None, self.backtests)
        self.releases.start(self.champion)
        self.settle()

    def ready(self, _model: str, _bundle: str) -> bool:
        """`ports.Plane`: the champion's bundle is all that is ever loaded."""
        return self.last.candidate == self.champion

    def alias(self, _version: Version, _alias: str) -> None:
        """`ports.Tracker`, of which nothing is looked at here."""

    @property
    def last(self) -> Rollout:
        return self.rollouts.all(MODEL)[-1]

    def turn(self) -> Do:
        """A pass."""
        done = self.releases.reconcile().do
        route = self.router.read().routes.get(MODEL)
        if route and route.candidate:
            self.routed.append(route.candidate.version)
        return done

    def settle(self) -> None:
        for _ in range(10):
            self.turn()

    def release(self, model: Model) -> Rollout:
        self.releases.start(self.version(2, model))
        self.settle()
        return self.last


@pytest.mark.parametrize(
    ("model", "said"),
    [(raises, "errors"), (gives_nan, "non-finite"), (wrong_in_pl, "country = pl"), (wrong, "quality")],
)
def test_a_bad_candidate_gets_no_traffic(model: Model, said: str) -> None:
    stage = Stage()
    record = stage.release(model)
    assert (record.status, record.index, str(record.steps[0])) == (Status.ROLLED_BACK, 0, "backtest")
    assert said in record.reason
    assert stage.routed == []
    (event,) = stage.journal.read(MODEL, "release.backtest", "R2")
    assert said in event.text
    assert codec.decode(codec.encode(event.body), Backtested).result.recorded.replayed == 1_200
    with pytest.raises(Refused, match="version 2 was refused"):
        stage.releases.start(record.candidate)
    explained = view(stage.releases.explain("R2"), 0.01)
    assert explained.backtest is not None
    assert (explained.backtest.verdict, list(explained.snapshots)) == (Verdict.HARM, [])
    assert explained.backtest.lanes == explained.latest
    assert all(one[:40] in release_markdown(explained) for one in explained.backtest.result.cannot_know)


def test_a_good_candidate_goes_on_to_shadow_and_the_record_says_why() -> None:
    stage = Stage()
    record = stage.release(as_good)
    assert (record.status, str(record.step)) == (Status.RUNNING, "shadow")
    assert record.reason.startswith("backtest → shadow: No harm seen over 1,200")
    assert set(stage.routed) == {2}
    live = ["errors", "slow", "sample_ratio", "quality"]
    standing = stage.releases.status()
    assert standing is not None
    assert [lane.name for lane in standing.seen.lanes] == live
    explained = view(stage.releases.explain("R2"), 0.01)
    assert (explained.names, explained.backtest is not None) == (live, True)
    assert {seen.at_ms for seen in explained.snapshots} == {stage.clock.ms}
    assert "Backtest: before any live request" in release_report(explained)


def test_a_turn_does_a_piece_of_the_work_and_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "ROWS", 500)
    stage = Stage()
    stage.releases.start(stage.version(2, as_good))
    assert stage.turn() is Do.ADVANCE  # it starts
    assert stage.turn() is Do.HOLD
    standing = stage.releases.status()
    assert standing is not None
    assert standing.move.reason == "Hold at backtest: recorded requests are put to both versions."
    assert standing.outlook is None  # nothing live is to be foreseen yet
    assert stage.journal.read(MODEL, "release.backtest") == []


def test_a_pause_waits_for_a_person_who_may_let_it_go_on() -> None:
    stage = Stage(ReleasePolicy(on_harm="pause"))
    assert stage.release(wrong).status is Status.WAITING
    worked = stage.clock.ns
    stage.turn()
    assert stage.clock.ns == worked  # it is not made again
    stage.releases.order("R2", "approve", "the labels were wrong", "ada")
    stage.settle()
    assert (stage.last.status, str(stage.last.step)) == (Status.RUNNING, "shadow")
    assert "approved by a person: ada: the labels were wrong" in stage.last.reason


def test_a_person_ends_it_at_any_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "ROWS", 500)
    stage = Stage()
    stage.releases.start(stage.version(2, as_good))
    stage.turn()
    stage.releases.order("R2", "reject", "not needed", "ada")
    stage.settle()
    assert (stage.last.status, stage.routed) == (Status.REJECTED, [])


def test_without_requests_it_is_left_out_and_that_is_said() -> None:
    stage = Stage()
    stage.clock.ms += 30 * DAY_MS
    record = stage.release(as_good)
    assert str(record.steps[0]) == "shadow"
    assert (
        "Step backtest is left out: the log holds no request of the last week."
        in stage.journal.read(MODEL, "release.started", "R2")[0].text
    )
