"""One suite for the control state, over every backend."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from homeostat.domain.bundle import Version
from homeostat.domain.errors import Refused
from homeostat.domain.event import Event
from homeostat.domain.rollout import ReleaseStep, Rollout, Status, StepKind
from homeostat.ports import Journal, Rollouts
from homeostat.stores import memory, sql


def event(key: str, kind: str = "release.started", model: str = "price", subject: str = "R1") -> Event:
    return Event(7, model, kind, key, subject, "Release 1 started.", {"weight": 100, "lanes": [{"e": 2.5}]})


def rollout(number: int, model: str = "price") -> Rollout:
    candidate = Version(model, number, "b" * 64, f"run-{number}")
    steps = (ReleaseStep(StepKind.SHADOW, 0), ReleaseStep(StepKind.CANARY, 100))
    return Rollout(f"R{number}", model, None, candidate, steps, 0, Status.RUNNING, number, number, "salt", 0)


class ControlStateCases:
    @pytest.fixture
    def stores(self) -> Iterator[tuple[Journal, Rollouts]]:
        raise NotImplementedError

    def test_events_come_back_as_written_and_in_order(self, stores: tuple[Journal, Rollouts]) -> None:
        journal, _ = stores
        events = [event("a"), event("b", "alert.opened", subject="drift"), event("a", model="other"), event("c")]
        assert all(journal.append(one) for one in events)
        assert list(journal.read("price")) == [events[0], events[1], events[3]]
        assert list(journal.read("price", "release.")) == [events[0], events[3]]
        assert list(journal.read("price", subject="drift")) == [events[1]]
        assert list(journal.read("price", "release_")) == []

    def test_a_key_is_recorded_once(self, stores: tuple[Journal, Rollouts]) -> None:
        journal, _ = stores
        assert journal.append(event("a"))
        assert not journal.append(replace(event("a"), text="again"))
        assert [one.text for one in journal.read("price")] == ["Release 1 started."]

    def test_of_two_writers_of_one_revision_the_second_is_refused(self, stores: tuple[Journal, Rollouts]) -> None:
        _, rollouts = stores
        first = rollouts.save(rollout(1))
        assert first.revision == 1
        moved = rollouts.save(replace(first, index=1))
        with pytest.raises(Refused, match="changed by someone else"):
            rollouts.save(replace(first, status=Status.REJECTED))
        with pytest.raises(Refused):
            rollouts.save(rollout(1))
        assert list(rollouts.all("price")) == [moved]

    def test_releases_are_listed_oldest_first(self, stores: tuple[Journal, Rollouts]) -> None:
        _, rollouts = stores
        saved = [rollouts.save(rollout(n)) for n in (1, 2, 10)]
        rollouts.save(rollout(3, "other"))
        assert list(rollouts.all("price")) == saved


class TestMemory(ControlStateCases):
    @pytest.fixture
    def stores(self) -> Iterator[tuple[Journal, Rollouts]]:
        yield memory.MemoryJournal(), memory.MemoryRollouts()


class TestSqlite(ControlStateCases):
    @pytest.fixture
    def stores(self, tmp_path: Path) -> Iterator[tuple[Journal, Rollouts]]:
        engine = sql.connect(f"sqlite:///{tmp_path}/state.db")
        yield sql.SqlJournal(engine), sql.SqlRollouts(engine)
        engine.dispose()


class TestPostgres(ControlStateCases):
    @pytest.fixture
    def stores(self, postgres_url: str) -> Iterator[tuple[Journal, Rollouts]]:
        engine = sql.connect(postgres_url)
        with engine.begin() as connection:
            connection.execute(sa.text("TRUNCATE journal, rollouts"))
        yield sql.SqlJournal(engine), sql.SqlRollouts(engine)
        engine.dispose()


def test_a_database_is_migrated_once_and_matches_the_tables(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/state.db"
    for _ in range(2):
        engine = sql.connect(url)
        inspector = sa.inspect(engine)
        for table in (sql.JOURNAL, sql.ROLLOUTS):
            assert [column["name"] for column in inspector.get_columns(table.name)] == list(table.columns.keys())
        engine.dispose()


def test_writers_in_parallel_lose_no_event(tmp_path: Path) -> None:
    engine = sql.connect(f"sqlite:///{tmp_path}/state.db")
    journal = sql.SqlJournal(engine)
    threads = [
        threading.Thread(target=lambda n=n: [journal.append(event(f"{n}-{i}")) for i in range(25)]) for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(journal.read("price")) == 100
    engine.dispose()
