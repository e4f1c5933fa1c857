"""The control state in SQL: the journal and the records of releases, in SQLite (one writer, WAL) or PostgreSQL."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from homeostat import codec
from homeostat.domain.errors import ConfigError, Deposed, Refused, Unavailable
from homeostat.domain.event import Event
from homeostat.domain.rollout import Rollout, Term

HEAD = "0002"
"""The newest revision in migrations/versions."""
_ALONE = {"sqlite": "BEGIN IMMEDIATE", "postgresql": "SELECT pg_advisory_xact_lock(4766)"}
"""Of processes that open a new database at the same moment one migrates it, and the others find that done."""

_metadata = sa.MetaData()

JOURNAL = sa.Table(
    "journal",
    _metadata,
    sa.Column("seq", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
    sa.Column("at_ms", sa.BigInteger, nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.UniqueConstraint("model", "key", name="journal_once"),
)
sa.Index("journal_by_subject", JOURNAL.c.model, JOURNAL.c.subject)

ROLLOUTS = sa.Table(
    "rollouts",
    _metadata,
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("started_ms", sa.BigInteger, nullable=False),
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
)

LEASES = sa.Table(
    "leases",
    _metadata,
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("number", sa.BigInteger, nullable=False),
    sa.Column("beat", sa.BigInteger, nullable=False),
    sa.Column("holder", sa.Text, nullable=False),
)


def connect(url: str) -> sa.Engine:
    """Open the database at `url` and bring its tables to the newest revision. Errors: `ConfigError` for an address
    that can't be one, `Unavailable`."""
    try:
        if (kind := sa.make_url(url).get_backend_name()) not in _ALONE:
            raise sa.exc.NoSuchModuleError(f"{kind} is neither sqlite nor postgresql")
        engine = sa.create_engine(url)
    except (sa.exc.ArgumentError, sa.exc.NoSuchModuleError, ImportError) as error:
        way_out = "Write postgresql+psycopg://…, with pip install 'homeostat[postgres]'."
        raise ConfigError(f"no database: {error}", where="database", way_out=way_out) from None
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine, "connect", _prepare_sqlite)
    try:
        if _revision(engine) != HEAD:
            _migrate(engine)
    except sa.exc.OperationalError as error:
        raise Unavailable("the database does not answer", where=str(error.orig)) from None
    return engine


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=10000"):
        connection.execute(f"PRAGMA {pragma}")


def _revision(engine: sa.Engine) -> str | None:
    if not sa.inspect(engine).has_table("alembic_version"):
        return None
    with engine.connect() as connection:
        return connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()


def _migrate(engine: sa.Engine) -> None:
    from alembic import command  # late: only a new or an old database needs it
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    with engine.begin() as connection:
        connection.exec_driver_sql(_ALONE[engine.dialect.name])
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


class SqlLeases:
    """`ports.Leases` in SQL."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def read(self, model: str) -> Term:
        with self._engine.connect() as connection:
            row = connection.execute(sa.select(LEASES).where(LEASES.c.model == model)).first()
        return Term(row.number, row.beat, row.holder) if row else Term()

    def take(self, seen: Term, model: str, holder: str) -> Term | None:
        term = Term(seen.number + 1, 0, holder)
        if seen.number:
            return self._put(model, seen, term)
        try:
            with self._engine.begin() as connection:
                connection.execute(LEASES.insert().values(model=model, **asdict(term)))
        except sa.exc.IntegrityError:
            return None
        return term

    def beat(self, term: Term, model: str) -> Term | None:
        return self._put(model, term, replace(term, beat=term.beat + 1))

    def leave(self, term: Term, model: str) -> None:
        self._put(model, term, replace(term, holder=""))

    def _put(self, model: str, seen: Term, term: Term) -> Term | None:
        here = (LEASES.c.model == model) & (LEASES.c.number == seen.number) & (LEASES.c.beat == seen.beat)
        with self._engine.begin() as connection:
            written = connection.execute(LEASES.update().where(here).values(**asdict(term))).rowcount
        return term if written else None


class Fence:
    """Lets a transaction through only in the term that leads: it is asked after the write and before the commit, and
    the row it reads stays as it is until then."""

    def __init__(self, term: Callable[[], int] | None = None) -> None:
        """`term` None: whoever asks this need not lead."""
        self._term = term

    def check(self, connection: sa.Connection, model: str) -> None:
        """Errors: `Deposed`."""
        if self._term is None:
            return
        leads = sa.select(LEASES.c.number).where(LEASES.c.model == model).with_for_update(read=True)
        number = connection.execute(leads).scalar()
        if not number or number != self._term():
            raise Deposed("another control plane leads by now")


class SqlJournal:
    """`ports.Journal` in SQL."""

    def __init__(self, engine: sa.Engine, term: Callable[[], int] | None = None) -> None:
        """`term`: of a writer that must lead."""
        self._engine, self._fence = engine, Fence(term)
        self._lock = threading.Lock()

    def append(self, event: Event) -> bool:
        row = {
            "at_ms": event.at_ms,
            "model": event.model,
            "kind": event.kind,
            "key": event.key,
            "subject": event.subject,
            "text": event.text,
            "body": codec.encode(event.body).decode(),
        }
        try:
            with self._lock, self._engine.begin() as connection:
                connection.execute(JOURNAL.insert().values(row))
                self._fence.check(connection, event.model)
        except sa.exc.IntegrityError:
            with self._engine.begin() as connection:
                self._fence.check(connection, event.model)
            return False
        return True

    def read(self, model: str, kind: str = "", subject: str = "") -> Sequence[Event]:
        query = JOURNAL.select().where(JOURNAL.c.model == model).order_by(JOURNAL.c.seq)
        if kind:
            query = query.where(JOURNAL.c.kind.startswith(kind, autoescape=True))
        if subject:
            query = query.where(JOURNAL.c.subject == subject)
        with self._engine.connect() as connection:
            return [self._event(row) for row in connection.execute(query)]

    @staticmethod
    def _event(row: Any) -> Event:
        body = codec.decode(row.body.encode(), dict[str, Any])
        return Event(row.at_ms, row.model, row.kind, row.key, row.subject, row.text, body)


class SqlRollouts:
    """`ports.Rollouts` in SQL: a write names the revision it replaces."""

    def __init__(self, engine: sa.Engine, term: Callable[[], int] | None = None) -> None:
        """`term`: of a writer that must lead."""
        self._engine, self._fence = engine, Fence(term)

    def save(self, rollout: Rollout) -> Rollout:
        saved = replace(rollout, revision=rollout.revision + 1)
        body = codec.encode(saved).decode()
        with self._engine.begin() as connection:
            if not self._write(connection, saved, body):
                raise Refused(
                    f"release {rollout.id} was changed by someone else meanwhile", way_out="Read it again, then decide."
                )
            self._fence.check(connection, rollout.model)
        return saved

    @staticmethod
    def _write(connection: sa.Connection, saved: Rollout, body: str) -> bool:
        here = (ROLLOUTS.c.model == saved.model) & (ROLLOUTS.c.id == saved.id)
        if saved.revision > 1:
            stored = here & (ROLLOUTS.c.revision == saved.revision - 1)
            update = ROLLOUTS.update().where(stored).values(revision=saved.revision, body=body)
            return connection.execute(update).rowcount == 1
        row = {"model": saved.model, "id": saved.id, "started_ms": saved.started_ms, "revision": 1, "body": body}
        try:
            connection.execute(ROLLOUTS.insert().values(row))
        except sa.exc.IntegrityError:
            return False
        return True

    def all(self, model: str) -> Sequence[Rollout]:
        query = sa.select(ROLLOUTS.c.body).where(ROLLOUTS.c.model == model)
        with self._engine.connect() as connection:
            bodies = connection.execute(
                query.order_by(ROLLOUTS.c.started_ms, sa.func.length(ROLLOUTS.c.id), ROLLOUTS.c.id)
            )
            return [codec.decode(body.encode(), Rollout) for (body,) in bodies]
