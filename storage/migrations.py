"""Brings a database to the version that this program writes: all steps in one transaction, one process at a time.

Alembic runs the steps, and keeps the version in a table that names the kind of database.
Versions are whole numbers, in four digits ("0002").
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, inspect, text

from declai.storage.errors import DatabaseTooNew, DatabaseTooOld, DatabaseUnusable

log = logging.getLogger(__name__)

# Any number that nothing else in the database locks: "DeCL" in ASCII.
MIGRATION_LOCK = 0x4465434C
READ_ONLY = "declai_read_only"  # an execution option of a connection that takes no lock against writers
TELL_AFTER_S = 1.0
# Alembic's `op`, which the steps use, is one name for the whole process.
_one_thread = threading.Lock()


@dataclass(frozen=True)
class Migrations:
    """A store's steps: the folder they lie in, as "package:folder", and the version that this program writes.

    `kind` is what messages call it: "gateway" for the gateway's store. The table with its version is named after it.
    """

    kind: str
    steps: str
    version: int

    @property
    def database(self) -> str:
        return f"the {self.kind}'s store"

    @property
    def version_table(self) -> str:
        return f"declai_{self.kind}_version"


def migrate(engine: Engine, migrations: Migrations, *, may_migrate: bool = True) -> None:
    """Take the steps that are missing.

    Raises:
        DatabaseTooNew: a later release wrote it.
        DatabaseTooOld: steps are missing, and `may_migrate` is False.
        DatabaseUnusable: it is another kind's, or a row cannot be read.
    """
    with engine.connect() as db:
        db.execution_options(**{READ_ONLY: True})
        version = checked_version(db, migrations)
    if version == migrations.version:
        return
    if not may_migrate:
        raise DatabaseTooOld(
            f"{migrations.database} has version {version}, this program reads version {migrations.version}"
        )
    with _alone(engine, migrations) as db:
        version = checked_version(db, migrations)
        if version == migrations.version:
            return
        began, is_new = time.monotonic(), not inspect(db).get_table_names()
        if not is_new:
            log.info("migrating %s from version %d to %d", migrations.database, version, migrations.version)
        with _one_thread:
            _take_steps(db, migrations)
    if not is_new:
        log.info("migrated %s in %.1f s", migrations.database, time.monotonic() - began)


def checked_version(db: Connection, migrations: Migrations) -> int:
    """A database's version; 0 when it is empty, or older than versions are. Raises DatabaseTooNew, DatabaseUnusable."""
    tables = inspect(db).get_table_names()
    others = [name for name in tables if name.startswith("declai_") and name.endswith("_version")]
    if any(name != migrations.version_table for name in others):
        raise DatabaseUnusable(
            f"this is not {migrations.database}, it has the table {others[0]}: name another database"
        )
    if migrations.version_table not in tables:
        return 0
    newest = db.execute(text(f"SELECT max(version_num) FROM {migrations.version_table}")).scalar()  # noqa: S608
    version = int(newest or 0)
    if version > migrations.version:
        raise DatabaseTooNew(
            f"{migrations.database} has version {version}, this program writes version {migrations.version}: "
            "use the DeCLAI release that wrote it or a later one, or another database"
        )
    return version


@contextmanager
def _alone(engine: Engine, migrations: Migrations) -> Iterator[Connection]:
    """A transaction beside which no other process migrates."""
    waiting = threading.Timer(
        TELL_AFTER_S, log.info, ("%s is locked: another process may migrate it", migrations.database)
    )
    waiting.daemon = True
    waiting.start()
    try:
        with engine.begin() as db:
            if db.dialect.name == "postgresql":
                db.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
            waiting.cancel()
            yield db
    finally:
        waiting.cancel()


def _take_steps(db: Connection, migrations: Migrations) -> None:
    # Most who open a database find it up to date: they need not wait for Alembic to load.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "declai.storage:environment")
    config.set_main_option("version_locations", migrations.steps)
    config.set_main_option("path_separator", "newline")
    config.attributes["connection"] = db
    config.attributes["version_table"] = migrations.version_table
    try:
        command.upgrade(config, f"{migrations.version:04}")
    except ValueError as error:  # steps raise it for a row that they cannot read
        raise DatabaseUnusable(f"{migrations.database} cannot be migrated, it is as it was: {error}") from error
