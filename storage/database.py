"""SQLite (write-ahead logging, every commit synced, readable by its owner alone) or PostgreSQL, opened alike."""

from __future__ import annotations

import os
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Table, create_engine, event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError

from declai.storage.errors import DatabaseUnusable
from declai.storage.migrations import Migrations, migrate

LOCK_TIMEOUT_S = 30
BACKENDS = ("sqlite", "postgresql")


def open_database(url: str | URL, migrations: Migrations) -> Engine:
    """Connect, and bring the database to the version that this program writes; an empty one gets its tables.

    Raises:
        DatabaseUnusable: neither SQLite nor PostgreSQL, no database at all, or nobody answers.
        DatabaseTooNew: a later release wrote it.
    """
    parsed = make_url(url)
    backend = parsed.get_backend_name()
    if backend not in BACKENDS:
        raise DatabaseUnusable(f"{migrations.database} is SQLite or PostgreSQL, not {backend}: change its URL")
    engine = _sqlite(parsed) if backend == "sqlite" else create_engine(parsed, pool_pre_ping=True)
    try:
        migrate(engine, migrations)
    except BaseException as error:
        engine.dispose()
        if isinstance(error, DBAPIError):
            where = parsed.database if backend == "sqlite" else f"{parsed.database} at {parsed.host}"
            raise DatabaseUnusable(f"cannot open {where}: {error.orig}") from error
        raise
    return engine


def _sqlite(url: URL) -> Engine:
    if url.database:
        _keep_private(Path(url.database))
    # Each transaction holds the database's only write lock: a second connection of this process could only wait for it.
    engine = create_engine(
        url,
        connect_args={"timeout": LOCK_TIMEOUT_S, "check_same_thread": False},
        pool_size=1,
        max_overflow=0,
        pool_timeout=LOCK_TIMEOUT_S,
    )

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


def _keep_private(path: Path) -> None:
    """Mode 0600 from the first byte on, for the file and those that SQLite makes beside it: they take its mode.

    HAZARD: whoever closes the file itself drops this process's locks on it, also those of SQLite's connections
    (sqlite.org/howtocorrupt.html, 2.2). So a new one is made under another name.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not path.exists():
        handle, fresh = tempfile.mkstemp(dir=path.parent, prefix=path.name)
        os.close(handle)
        with suppress(FileExistsError):
            os.link(fresh, path)
        os.unlink(fresh)
    for suffix in ("", "-wal", "-shm"):
        with suppress(FileNotFoundError):
            file = Path(f"{path}{suffix}")
            if file.stat().st_mode & 0o077:
                file.chmod(0o600)


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


def insert_missing(db: Connection, table: Table, **values: Any) -> bool:
    """Insert a row unless one with its key is there; whether it was missing. Safe against others who do the same."""
    statement = postgresql.insert(table) if db.dialect.name == "postgresql" else sqlite.insert(table)
    return db.execute(statement.values(**values).on_conflict_do_nothing()).rowcount == 1


@contextmanager
def snapshot(engine: Engine) -> Iterator[Connection]:
    """A connection whose reads all see the database at one moment."""
    with engine.connect() as db:
        if db.dialect.name == "postgresql":
            db.execution_options(isolation_level="REPEATABLE READ")
        yield db
