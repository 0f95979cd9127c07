"""Brings a database to the version that this program writes: all steps in one transaction, one process at a time.

Alembic runs the steps and keeps the version in its own table. Versions are whole numbers, in four digits ("0002").
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, inspect, text

from declai.storage.errors import DatabaseTooNew

# Any number that nothing else in the database locks: "DeCL" in ASCII.
MIGRATION_LOCK = 0x4465434C
VERSION_TABLE = "alembic_version"
# Alembic's `op`, which the steps use, is one name for the whole process.
_one_thread = threading.Lock()


@dataclass(frozen=True)
class Migrations:
    """A store's steps: the folder they lie in, as "package:folder", and the version that this program writes.

    `database` is what messages call it: "the gateway's store".
    """

    database: str
    steps: str
    version: int


def migrate(engine: Engine, migrations: Migrations) -> None:
    """Take the steps that are missing. Raises DatabaseTooNew."""
    with engine.begin() as db:
        if db.dialect.name == "postgresql":
            db.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
        version = version_of(db)
        if version > migrations.version:
            raise DatabaseTooNew(
                f"{migrations.database} has version {version}, this program writes version {migrations.version}: "
                "use the DeCLAI release that wrote it or a later one, or another database"
            )
        if version < migrations.version:
            with _one_thread:
                _take_steps(db, migrations)


def version_of(db: Connection) -> int:
    """A database's version; 0 when it is empty, or older than versions are."""
    if not inspect(db).has_table(VERSION_TABLE):
        return 0
    return int(db.execute(text(f"SELECT max(version_num) FROM {VERSION_TABLE}")).scalar() or 0)  # noqa: S608


def _take_steps(db: Connection, migrations: Migrations) -> None:
    # Most who open a database find it up to date: they need not wait for Alembic to load.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "declai.storage:environment")
    config.set_main_option("version_locations", migrations.steps)
    config.set_main_option("path_separator", "newline")
    config.attributes["connection"] = db
    command.upgrade(config, f"{migrations.version:04}")
