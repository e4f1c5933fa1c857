"""One suite for the control state, over every backend."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from homeostat.domain.bundle import Version
from homeostat.domain.errors import Deposed, HomeostatError, Refused
from homeostat.domain.event import Event
from homeostat.domain.gate import Verdict
from homeostat.domain.monitor import Cause
from homeostat.domain.rollout import ReleaseStep, Rollout, Status, StepKind, Term
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

    def test_a_body_comes_back_as_plain_json(self, stores: tuple[Journal, Rollouts]) -> None:
        """So that nothing passes in memory that would not in a database."""
        journal, _ = stores
        journal.append(replace(event("a"), body={"verdict": Verdict.HARM, "causes": (Cause("log", "x"),)}))
        (read,) = journal.read("price")
        assert read.body == {"verdict": "harm", "causes": [{"kind": "log", "words": "x", "at_ms": 0}]}
        assert type(read.body["verdict"]) is str

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


class LeaseCases:
    @pytest.fixture
    def engine(self) -> Iterator[sa.Engine]:
        raise NotImplementedError

    def test_one_leads_until_another_takes_over(self, engine: sa.Engine) -> None:
        leases = sql.SqlLeases(engine)
        assert leases.read("price") == Term()
        first = leases.take(Term(), "price", "one")
        assert first == Term(1, 0, "one")
        assert leases.take(Term(), "price", "two") is None
        beaten = leases.beat(first, "price")
        assert beaten == leases.read("price") == Term(1, 1, "one")
        assert leases.take(first, "price", "two") is None  # it has moved since
        second = leases.take(beaten, "price", "two")
        assert second == Term(2, 0, "two")
        assert leases.beat(beaten, "price") is None
        leases.leave(beaten, "price")
        leases.leave(second, "price")
        assert leases.read("price") == Term(2, 0, "")
        assert leases.take(Term(), "other", "two") == Term(1, 0, "two")

    def test_of_many_who_take_at_once_one_leads(self, engine: sa.Engine) -> None:
        seen = sql.SqlLeases(engine).take(Term(), "price", "dead")
        assert seen is not None
        taken: list[Term | None] = []
        start = threading.Barrier(4)

        def take(name: str) -> None:
            start.wait()
            taken.append(sql.SqlLeases(engine).take(seen, "price", name))

        threads = [threading.Thread(target=take, args=(f"n{i}",)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [term.number for term in taken if term] == [2]

    def test_what_is_written_in_an_older_term_is_not_written(self, engine: sa.Engine) -> None:
        leases, number = sql.SqlLeases(engine), [0]
        journal, rollouts = sql.SqlJournal(engine, lambda: number[0]), sql.SqlRollouts(engine, lambda: number[0])
        with pytest.raises(Deposed):
            journal.append(event("early"))
        term = leases.take(Term(), "price", "one")
        assert term is not None
        number[0] = 1
        assert journal.append(event("a"))
        saved = rollouts.save(rollout(1))
        assert leases.take(term, "price", "two") is not None
        for late in (event("b"), event("a")):
            with pytest.raises(Deposed):
                journal.append(late)
        with pytest.raises(Deposed):
            rollouts.save(replace(saved, index=1))
        assert [one.key for one in journal.read("price")] == ["a"]
        assert list(rollouts.all("price")) == [saved]
        assert sql.SqlJournal(engine).append(event("asked"))  # a person need not lead


class TestSqliteLeases(LeaseCases):
    @pytest.fixture
    def engine(self, tmp_path: Path) -> Iterator[sa.Engine]:
        engine = sql.connect(f"sqlite:///{tmp_path}/state.db")
        yield engine
        engine.dispose()


class TestPostgresLeases(LeaseCases):
    @pytest.fixture
    def engine(self, postgres_url: str) -> Iterator[sa.Engine]:
        engine = sql.connect(postgres_url)
        with engine.begin() as connection:
            connection.execute(sa.text("TRUNCATE journal, rollouts, leases"))
        yield engine
        engine.dispose()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("postgres", "no database"),
        ("oracel://x", "no database: oracel is neither"),
        ("mysql://x", "no database: mysql is neither"),
        ("sqlite:////nowhere/x.db", "does not answer"),
    ],
)
def test_a_database_that_is_none_is_an_error_that_says_so(url: str, message: str) -> None:
    with pytest.raises(HomeostatError, match=message):
        sql.connect(url)


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
        for table in (sql.JOURNAL, sql.ROLLOUTS, sql.LEASES):
            assert [column["name"] for column in inspector.get_columns(table.name)] == list(table.columns.keys())
        engine.dispose()


@pytest.fixture
def new_postgres(postgres_url: str) -> str:
    engine = sa.create_engine(postgres_url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sa.text("DROP DATABASE IF EXISTS anew"))
        connection.execute(sa.text("CREATE DATABASE anew"))
    engine.dispose()
    return postgres_url.replace("/postgres?", "/anew?")


OPENED = """
import sys, time
from alembic import command, config
from pathlib import Path
from homeostat.stores import sql
url, ready, begin = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
ready.touch()
while not begin.exists():
    time.sleep(0.001)
sql.connect(url)
"""


@pytest.mark.parametrize("of", ["sqlite", "postgres"])
def test_processes_that_open_a_new_database_together_all_can(
    of: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = f"sqlite:///{tmp_path}/state.db" if of == "sqlite" else request.getfixturevalue("new_postgres")
    ready, begin = [tmp_path / f"ready-{i}" for i in range(4)], tmp_path / "begin"
    begun = [
        subprocess.Popen([sys.executable, "-c", OPENED, url, one, begin], stderr=subprocess.PIPE, text=True)
        for one in ready
    ]
    while not all(one.exists() for one in ready):
        assert all(process.poll() is None for process in begun)
        time.sleep(0.01)
    begin.touch()
    errors = [process.communicate(timeout=60)[1] for process in begun]
    assert [process.returncode for process in begun] == [0] * 4, "\n".join(errors)
    engine = sql.connect(url)
    assert sa.inspect(engine).has_table("leases")
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
