"""The loop on a history into which something is injected whose right answer is known."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl
import pytest

import projects
from homeostat import codec
from homeostat.adapters.source import Source
from homeostat.config import read_policy
from homeostat.domain.dataset import EVENT_MS
from homeostat.domain.errors import UsageError
from homeostat.domain.event import Event
from homeostat.domain.gate import Verdict
from homeostat.domain.monitor import Alert
from homeostat.domain.policy import Policy, RetrainPolicy, Schedule
from homeostat.domain.rehearsal import RehearsalResult
from homeostat.domain.scenario import Reaction
from homeostat.domain.units import DAY_MS
from homeostat.engines.inject import read
from homeostat.engines.report import rehearsal_report
from homeostat.project import Project
from homeostat.services.performance import SILENT
from homeostat.wiring.system import System, rehearsal

DAYS, WARMUP, A_DAY = 54, 10, 60
START_MS, END_MS = projects.START_MS + WARMUP * DAY_MS, projects.START_MS + DAYS * DAY_MS
POLICY = projects.POLICY.replace("{when: [performance, {schedule: 10d}]", "{when: [performance]").replace("20d", "14d")
SHIFT = "drift:hour:+1sd@2026-01-13..2026-01-16"
OUTAGE = "label-outage@2026-01-18..2026-01-25"
RELEASE = "broken-release@2026-01-27"
CONCEPT = "concept:amount:100%@2026-02-01"


@dataclass(frozen=True)
class Life:
    result: RehearsalResult
    system: System
    verdicts: dict[int, Verdict]
    """Of the champion's performance, at each turn."""

    def of(self, text: str) -> Reaction:
        return next(one for one in self.result.reactions if one.injection.text == text)

    def between(self, kind: str, start: int, end: int) -> list[Event]:
        """Events of a kind from one day of the history to another."""
        days = range(projects.START_MS + start * DAY_MS, projects.START_MS + end * DAY_MS)
        return [event for event in self.result.events if event.kind == kind and event.at_ms in days]


def quiet(_done: int, _total: int, _doing: str) -> None:
    pass


def lived(root: Path, *texts: str, policy: Policy | None = None, end_ms: int = END_MS) -> Life:
    policy = policy or read_policy(root)
    history = Source(root, policy.data, policy.task)()
    given = read(texts, history, policy.data.target, START_MS, end_ms)
    staged, system = rehearsal(root, policy, history, START_MS, end_ms, given)
    verdicts: dict[int, Verdict] = {}

    def look(now_ms: int) -> None:
        performance = system.performances.now()
        assert performance is not None
        verdicts[now_ms] = performance.change.verdict

    return Life(replace(staged, each_turn=look).run(quiet), system, verdicts)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return projects.make(tmp_path_factory.mktemp("scenarios") / "cards", projects.rows(DAYS, A_DAY), POLICY)


@pytest.fixture(scope="module")
def life(root: Path) -> Life:
    return lived(root, SHIFT, OUTAGE, RELEASE, CONCEPT)


def test_a_shift_without_harm_alerts_and_trains_nothing(life: Life) -> None:
    found = life.of(SHIFT)
    assert found.noticed is not None
    assert found.noticed.text.startswith("hour drifted: hour: ")
    assert found.detect_ms == DAY_MS
    assert (found.did, found.harmed_ms) == ((), None)


def test_without_labels_quality_is_unknown_and_nothing_is_trained(life: Life) -> None:
    found = life.of(OUTAGE)
    begins = START_MS + 7 * DAY_MS
    assert found.noticed is not None
    assert found.noticed.subject == "labels"
    assert found.detect_ms == SILENT * DAY_MS
    silent = {verdict for at, verdict in life.verdicts.items() if begins + SILENT * DAY_MS < at < begins + 7 * DAY_MS}
    assert silent == {Verdict.UNKNOWN}
    assert found.did == ()
    assert [event.subject for event in life.between("alert.closed", 17, 26)] == ["labels"]
    assert life.verdicts[begins + 8 * DAY_MS] is Verdict.OK  # and when they come, they count


def test_a_broken_version_is_taken_back_by_the_labels(life: Life) -> None:
    found = life.of(RELEASE)
    assert [event.kind for event in found.did] == ["scenario.released", "release.rolled_back"]
    assert found.detect_ms is not None
    assert found.detect_ms <= 3 * DAY_MS
    assert life.result.rollbacks == 1


def test_a_change_of_the_concept_is_trained_away(life: Life) -> None:
    found = life.of(CONCEPT)
    assert found.noticed is not None
    assert found.noticed.subject == "performance"
    cause = Alert.read(found.noticed.body, "performance").causes[0]
    assert (cause.kind, "amount" in cause.words) == ("within", True)
    example = life.system.stores.log.find(found.noticed.body["example"])
    assert example["at_ms"][0] >= found.injection.from_ms - DAY_MS
    assert found.did[0].kind == "trigger.fired"
    assert found.detect_ms is not None
    assert found.recover_ms is not None
    assert found.detect_ms <= 5 * DAY_MS < found.recover_ms
    assert life.result.loop.periods[-1][1].value > life.result.frozen.periods[-1][1].value + 0.5
    assert life.result.loop.trainings <= 1 + life.result.weekly.trainings


def test_no_alert_without_a_cause_and_no_request_failed(life: Life) -> None:
    assert (life.result.false_alarms, life.result.failed_requests) == (0, 0)


def test_the_report_shows_each_injection_and_what_became_of_it(life: Life) -> None:
    page = rehearsal_report(life.result).replace("\N{NO-BREAK SPACE}", " ")
    for text in (SHIFT, OUTAGE, RELEASE, CONCEPT):
        assert page.count(text.replace("+", "&#43;")) + page.count(text) >= 2  # on the timeline and in the table
    assert "0 alerts outside of these effects" in page
    assert "after 1 d: hour drifted" in page


SEASON, AGAIN = "concept:amount:100%@2026-01-20..2026-02-05", "concept:amount:100%@2026-02-20"
CAREFUL = POLICY.replace("{when: [performance]", "{when: [performance, {schedule: 14d}], only_if_it_helps: true")
CAREFUL = CAREFUL.replace("cooldown: 4d}", "cooldown: 4d, remedies: [previous, refit, person]}")


def test_a_season_that_returns_gets_its_model_back_without_a_training(tmp_path: Path) -> None:
    """What is learned in the first one serves again in the second, and in between a model of before: each from its
    first days on, though most labels that a probe or a release looks back on are of the world that went."""
    root = projects.make(tmp_path / "cards", projects.rows(58, A_DAY), CAREFUL)
    life = lived(root, SEASON, AGAIN, end_ms=projects.START_MS + 58 * DAY_MS)
    trained = [event.at_ms for event in life.result.events if event.kind == "training.done"]
    first, back, again = (projects.START_MS + day * DAY_MS for day in (19, 35, 50))
    assert trained[0] < first
    assert all(first < at < back for at in trained[1:])
    taken = [event for event in life.result.events if event.kind == "remedy.done"]
    late = [event.at_ms - begun for event, begun in zip(taken, (back, again), strict=True)]
    assert max(late) <= 3 * DAY_MS
    assert "which served before" in taken[0].text
    promoted = [event.at_ms for event in life.result.events if event.kind == "release.promoted"]
    served = [at - begun for at, begun in zip(promoted[-2:], (back, again), strict=True)]
    assert max(served) <= 7 * DAY_MS
    assert life.between("alert.opened", 36, 50) == life.between("alert.opened", 36, 40), "what serves again is well"
    assert life.result.loop.whole.value > life.result.weekly.whole.value + 0.1
    assert life.result.loop.trainings < life.result.weekly.trainings
    assert life.result.false_alarms == 0


COLUMN = "broken:amount:stuck@2026-01-15..2026-01-18"


def test_nothing_is_learned_from_a_broken_column(root: Path) -> None:
    """Though a training is due every four days: its rows are left out, and no training is started for it."""
    policy = read_policy(root)
    often = replace(policy, retrain=RetrainPolicy(("performance", Schedule("4d")), cooldown=2 * DAY_MS))
    life = lived(root, COLUMN, policy=often, end_ms=START_MS + 14 * DAY_MS)
    found, begun = life.of(COLUMN), START_MS + 4 * DAY_MS
    assert found.noticed is not None
    assert (found.noticed.subject, found.detect_ms) == ("broken amount", DAY_MS)
    of_the_schedule = {"release.rejected", "release.promoted"}
    assert {event.kind for event in found.did} <= of_the_schedule
    later = [one for one in life.system.data.versions() if one.until_ms > begun]
    assert len(later) >= 2
    for version in later:
        amounts = life.system.data.read(version).filter(pl.col(EVENT_MS) >= begun - DAY_MS // A_DAY)["amount"]
        assert len(amounts) > 0
        assert amounts.n_unique() > 0.9 * len(amounts)
    assert [event.kind for event in life.between("alert.closed", 18, 20)] == ["alert.closed"]


def test_a_broken_version_is_released_though_requests_were_refused_before(root: Path) -> None:
    """What was refused is in nobody's training."""
    missing, release = "missing:amount:30%@2026-01-12..2026-01-13", "broken-release@2026-01-15"
    life = lived(root, missing, release, end_ms=START_MS + 8 * DAY_MS)
    assert 0 < life.result.failed_requests < A_DAY
    assert life.of(missing).noticed is not None
    assert life.of(release).did[0].kind == "scenario.released"


def test_policies_side_by_side_from_the_command_line(root: Path) -> None:
    """A broken column upstream is named by its alert, whatever the policy."""
    watched = "monitor: {windows: [1d], value: {true_positive: 5, false_positive: -1}}\n"
    (root / "calm.yaml").write_text(watched)
    (root / "eager.yaml").write_text(watched + "retrain: {when: [{schedule: 4d}], cooldown: 1d}\n")
    command = [sys.executable, "-m", "homeostat", "rehearse", "-p", root, "--to", "2026-01-20", "--inject", COLUMN]
    command += ["--policy", root / "calm.yaml", "--policy", root / "eager.yaml", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    said = json.loads(done.stdout)
    assert list(said["policies"]) == ["calm", "eager"]
    for one in said["policies"].values():
        (found,) = one["injections"]
        assert found["noticed"]["text"].startswith("amount is stuck: it has been ")
        assert found["detect_ms"] == DAY_MS
    calm, eager = said["policies"]["calm"], said["policies"]["eager"]
    project = Project(root, read_policy(root, root / "calm.yaml"))
    alone = project.rehearse(to_ms=projects.START_MS + 19 * DAY_MS, inject=[COLUMN], name="calm")
    assert calm | {"wall_s": 0} == json.loads(codec.encode(alone.json())) | {"wall_s": 0}
    assert calm["trainings"] < eager["trainings"]
    assert 0 < calm["rows_fitted"] < eager["rows_fitted"]
    page = Path(said["report"]).read_text()
    assert "to recover" in page
    assert f"{eager['rows_fitted']:,}" in page
    assert eager["value"] > 0
    assert f"{eager['value']:,.0f}" in page
    assert "eager" in page


def test_the_answers_of_each_way_are_worth_what_the_policy_says(root: Path) -> None:
    """Each right one 1: then their value is how many are right."""
    code = "def of(y, scores, rows):\n    assert len(rows['hour']) == len(y)\n    return (scores[:, 1] >= 0.5) == y\n"
    (root / "worth.py").write_text(code)
    policy, end_ms = read_policy(root), START_MS + 3 * DAY_MS
    right = [
        lived(root, policy=replace(policy, monitor=replace(policy.monitor, value=value)), end_ms=end_ms)
        for value in ({"true_positive": 1.0, "true_negative": 1.0}, "worth:of")
    ]
    result, log = right[0].result, right[0].system.stores.log.read("cards", START_MS, end_ms)
    told = Source(root, policy.data, policy.task)().filter(pl.col(EVENT_MS).is_between(START_MS, end_ms - 1))
    said = log.filter(role="answer").with_columns(pl.col("id").str.slice(1).cast(pl.Int64)).sort("id")["label"]
    assert result.loop.value == (said == told["fraud"].cast(pl.String)).sum()
    assert result.loop.value != result.rows
    ways = [(one.result.loop.value, one.result.frozen.value, one.result.weekly.value) for one in right]
    assert ways[0] == ways[1]


def test_policies_must_agree_on_what_an_answer_is_worth(root: Path) -> None:
    for name in ("dear", "cheap"):
        (root / f"{name}.yaml").write_text(f"monitor: {{value: {{true_positive: {len(name)}}}}}\n")
    with pytest.raises(UsageError, match="disagree on what an answer is worth"):
        Project.open(root).compare([root / "dear.yaml", root / "cheap.yaml"])


def test_the_same_scenario_gives_the_same_history(root: Path) -> None:
    policy = read_policy(root)
    history = Source(root, policy.data, policy.task)()
    given = read(["poison:20%@2026-01-20", "missing:country:9%@2026-01-20"], history, "fraud", START_MS, END_MS)
    worlds = [rehearsal(root, policy, history, START_MS, END_MS, given, seed)[0].history for seed in (0, 0, 1)]
    assert worlds[0].equals(worlds[1])
    assert not worlds[0].equals(worlds[2])
    before = pl.col(EVENT_MS) < START_MS
    assert worlds[0].filter(before).equals(worlds[2].filter(before))
