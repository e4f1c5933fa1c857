"""What came back from the edge counts for its version, and for no release."""

from __future__ import annotations

from homeostat.domain.prediction import EDGE, LogBatch
from homeostat.domain.units import DAY_MS
from homeostat.services.evidence_log import SLACK_US, EvidenceLog, requests_seen, slow_limit, traffic
from homeostat.services.scored import inputs_of, scored_by
from homeostat.stores.memory_log import MemoryLabels, MemoryLog


def batch(release: str, at_ms: int, *ids: str, us: int = 90) -> LogBatch:
    n = len(ids)
    arm, role, status = ["champion"] * n, ["answer"] * n, ["ok"] * n
    none, inputs = [None] * n, {"x": [1.0] * n}
    return LogBatch(
        "m", at_ms, release, 0, ids, none, [2] * n, arm, role, status, [us] * n, [0.5] * n, none, none, inputs
    )


def test_edge_answers_are_answers_of_their_version_and_no_evidence() -> None:
    log = MemoryLog()
    log.append(batch("R2", 0, *(f"r{i}" for i in range(200))))
    for day in range(3):
        log.append(batch(f"{EDGE}{'b' * 64}", day * DAY_MS, *(f"e{day}-{i}" for i in range(500)), us=0))
    rows = log.read("m", 0, 9 * DAY_MS)
    seen, _ = EvidenceLog("m", log, MemoryLabels()).read("R2", 0, 9 * DAY_MS)
    assert set(seen["id"]) == {f"r{i}" for i in range(200)}
    assert requests_seen(seen, 2, 0, False) == 200
    assert traffic(rows, 2 * DAY_MS) == 100  # a day
    assert slow_limit(rows, 2) == slow_limit(seen, 2)
    scored = scored_by(rows, 2)
    assert len(scored) == len(inputs_of(rows, scored)) == 1_700


def test_a_call_is_slow_beyond_the_champions_own_tail_and_what_a_cold_cache_takes() -> None:
    log = MemoryLog()
    for i in range(200):
        log.append(batch("R2", i, f"r{i}", us=1_000 + i))
    assert slow_limit(log.read("m", 0, 99), 2) == 0  # too few
    assert slow_limit(log.read("m", 0, 200), 2) == 1_198 + SLACK_US
