"""SQLite (write-ahead logging, every commit synced, readable by its owner alone) or PostgreSQL, opened alike."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import Connection, Engine, Table, create_engine, event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError

from declai.storage.errors import DatabaseUnusable
from declai.storage.files import LOCK_TIMEOUT_S, keep_private, write_ahead
from declai.storage.migrations import READ_ONLY, Migrations, checked_version, migrate

BACKENDS = ("sqlite", "postgresql")


def open_database(url: str | URL, migrations: Migrations, *, may_migrate: bool = True) -> Engine:
    """Connect, and bring the database to the version that this program writes; an empty one gets its tables.

    Raises:
        DatabaseUnusable: neither SQLite nor PostgreSQL, no database at all or another kind's, or nobody answers.
        DatabaseTooNew: a later release wrote it.
        DatabaseTooOld: an earlier one did, and `may_migrate` is False.
    """
    parsed = make_url(url)
    backend = parsed.get_backend_name()
    if backend not in BACKENDS:
        raise DatabaseUnusable(f"{migrations.database} is SQLite or PostgreSQL, not {backend}: change its URL")
    engine = _sqlite(parsed) if backend == "sqlite" else create_engine(parsed, pool_pre_ping=True)
    try:
        migrate(engine, migrations, may_migrate=may_migrate)
    except BaseException as error:
        engine.dispose()
        if isinstance(error, DBAPIError):
            where = parsed.database if backend == "sqlite" else f"{parsed.database} at {parsed.host}"
            raise DatabaseUnusable(f"cannot open {where}: {error.orig}") from error
        raise
    return engine


def _sqlite(url: URL) -> Engine:
    if url.database:
        try:
            keep_private(Path(url.database))
        except OSError as error:
            raise DatabaseUnusable(
                f"cannot open {url.database}: {error.strerror}: give this user the right to write the file and its "
                "folder, or name another folder"
            ) from error
    # Several connections: a pool of one is unfair, and who asks again and again would keep the others out for good.
    engine = create_engine(
        url,
        connect_args={"timeout": LOCK_TIMEOUT_S, "check_same_thread": False},
        pool_timeout=LOCK_TIMEOUT_S,
    )

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _: Any) -> None:
        cursor = connection.cursor()
        write_ahead(cursor)
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.close()
        connection.isolation_level = None  # the driver must not begin transactions by itself

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # A transaction that reads and then writes must hold the write lock from its start, or SQLite may refuse it.
        writes = not connection.get_execution_options().get(READ_ONLY)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def insert_missing(db: Connection, table: Table, **values: Any) -> bool:
    """Insert a row unless one with its key is there; whether it was missing. Safe against others who do the same."""
    statement = postgresql.insert(table) if db.dialect.name == "postgresql" else sqlite.insert(table)
    return db.execute(statement.values(**values).on_conflict_do_nothing()).rowcount == 1


@contextmanager
def snapshot(engine: Engine) -> Iterator[Connection]:
    """A connection whose reads all see the database at one moment. It must not write: no lock keeps writers away."""
    with engine.connect() as db:
        db.execution_options(**{READ_ONLY: True})
        if db.dialect.name == "postgresql":
            db.execution_options(isolation_level="REPEATABLE READ")
        yield db


def version_of_file(path: Path, migrations: Migrations) -> int:
    """The version of a SQLite file, which stays as it is. Raises DatabaseTooNew, DatabaseUnusable."""
    # Without a log beside it nobody has the file open, and nothing need be made there to read it.
    mode = "mode=ro" if Path(f"{path}-wal").exists() else "immutable=1"
    engine = create_engine(f"sqlite:///file:{quote(str(path))}?{mode}&uri=true")
    try:
        with engine.connect() as db:
            return checked_version(db, migrations)
    except DBAPIError as error:
        raise DatabaseUnusable(f"cannot open {path}: {error.orig}") from error
    finally:
        engine.dispose()
