"""How the store talks to its database: SQLite (WAL, every commit synced) or PostgreSQL, opened alike."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Table, create_engine, event, select, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url

from declai.api.errors import StoreUnusable
from declai.api.store import schema

LOCK_TIMEOUT_S = 30
# Any number that nothing else in the database locks: "DeCL" in ASCII.
SCHEMA_LOCK = 0x4465434C
BACKENDS = ("sqlite", "postgresql")


def open_engine(url: str) -> Engine:
    """Connect, and create the tables when they are not there.

    Raises:
        StoreUnusable: neither SQLite nor PostgreSQL, or a database of another version of this schema.
    """
    parsed = make_url(url)
    backend = parsed.get_backend_name()
    if backend not in BACKENDS:
        raise StoreUnusable(f"the store is SQLite or PostgreSQL, not {backend}: change DECLAI_DATABASE_URL")
    engine = _sqlite(url, parsed.database) if backend == "sqlite" else create_engine(url, pool_pre_ping=True)
    try:
        _create_tables(engine)
    except BaseException:
        engine.dispose()
        raise
    return engine


def _sqlite(url: str, path: str | None) -> Engine:
    if path:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url, connect_args={"timeout": LOCK_TIMEOUT_S, "check_same_thread": False})

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _: Any) -> None:
        cursor = connection.cursor()
        _write_ahead(cursor)
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.close()
        connection.isolation_level = None  # the driver must not begin transactions by itself

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # A transaction that reads and then writes must hold the write lock from its start, or SQLite may refuse it.
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def _write_ahead(cursor: sqlite3.Cursor) -> None:
    """Turn to write-ahead logging. The database remembers it, so only the first who open a new one contend.

    HAZARD: two that upgrade their read locks for it would wait for each other; SQLite refuses one at once, whatever its
    timeout says (sqlite.org/c3ref/busy_handler.html).
    """
    deadline = time.monotonic() + LOCK_TIMEOUT_S
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _create_tables(engine: Engine) -> None:
    """All in one transaction, and one process at a time: a gateway and its settlement worker start together."""
    with engine.begin() as db:
        if db.dialect.name == "postgresql":
            db.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": SCHEMA_LOCK})
        schema.metadata.create_all(db)
        insert_missing(db, schema.versions, version=schema.SCHEMA_VERSION)
        versions = set(db.execute(select(schema.versions.c.version)).scalars())
        if versions != {schema.SCHEMA_VERSION}:
            raise StoreUnusable(
                f"the store has schema version {min(versions)}, this program writes {schema.SCHEMA_VERSION}: "
                "use the DeCLAI release that wrote it, or another database"
            )


def insert_missing(db: Connection, table: Table, **values: Any) -> None:
    """Insert a row unless one with its key is there; safe against others who do the same."""
    statement = postgresql.insert(table) if db.dialect.name == "postgresql" else sqlite.insert(table)
    db.execute(statement.values(**values).on_conflict_do_nothing())


@contextmanager
def snapshot(engine: Engine) -> Iterator[Connection]:
    """A connection whose reads all see the database at one moment."""
    with engine.connect() as db:
        if db.dialect.name == "postgresql":
            db.execution_options(isolation_level="REPEATABLE READ")
        yield db
