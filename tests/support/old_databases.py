"""Databases that older releases wrote (tests/storage): copies of them, what is in them, and deadly openings."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, MetaData, create_engine, event, select, text
from sqlalchemy.engine import make_url

from tests.support.postgres import new_database

FOLDER = Path(__file__).resolve().parents[1] / "storage"
Rows = dict[str, list[dict[str, Any]]]

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["tests.support.old_databases", "declai.api.store.store", "declai.worker.job.store"])


def copy_of(name: str, folder: Path) -> Path:
    """A copy of `tests/storage/NAME` ("v1/node.db") in a folder, to be opened and so changed."""
    copy = folder / Path(name).name
    shutil.copy(FOLDER / name, copy)
    return copy


def load_dump(name: str, url: str) -> str:
    """A new PostgreSQL database with the dump `tests/storage/NAME` in it; returns its URL. `url`: of the server."""
    database = new_database(url)
    engine = create_engine(database)
    with engine.begin() as db:
        db.connection.cursor().execute((FOLDER / name).read_text())
    engine.dispose()
    return database


def clone(url: str) -> str:
    """A new PostgreSQL database that is the same as another one, which nobody may have open."""
    server = make_url(url).set(database="postgres").render_as_string(hide_password=False)
    copy = new_database(server)
    names = make_url(url).database, make_url(copy).database
    engine = create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as db:
        db.execute(text(f"DROP DATABASE {names[1]}"))
        db.execute(text(f"CREATE DATABASE {names[1]} TEMPLATE {names[0]}"))
    engine.dispose()
    return copy


def rows_of(url: str) -> Rows:
    """Every table's rows, in one order, as the database has them; nothing is migrated."""
    engine = create_engine(url)
    tables = MetaData()
    with engine.connect() as db:
        tables.reflect(db)
        found = {
            name: sorted((dict(row) for row in db.execute(select(table)).mappings()), key=repr)
            for name, table in tables.tables.items()
        }
    engine.dispose()
    return found


def narrowed(rows: Rows, to: Rows) -> Rows:
    """The tables and columns that `to` has as well."""
    columns = {name: list(table[0]) if table else [] for name, table in to.items()}
    return {
        name: sorted(({column: row[column] for column in columns[name]} for row in rows[name]), key=repr) for name in to
    }


def without_versions(changes: list[Any]) -> list[Any]:
    """Changes that Alembic finds, but for its own table: that one has a name of ours."""
    return [change for change in changes if change[0] != "remove_table" or not change[1].name.endswith("_version")]


def killed_openings(open_store: Callable[[str], object], fresh_copy: Callable[[], str]) -> Iterator[str]:
    """URLs of copies that a process opened and was killed (SIGKILL) in: at each statement, at the commit, after it."""
    step = 0
    while True:
        step += 1
        url = fresh_copy()
        child = PROCESSES.Process(target=_open_and_die, args=(open_store, url, step))
        child.start()
        child.join(60)
        if child.exitcode == 0:
            return
        assert child.exitcode == -signal.SIGKILL, f"the child ended with {child.exitcode} in step {step}"
        yield url


def _open_and_die(open_store: Callable[[str], object], url: str, step: int) -> None:
    num_steps = 0

    def count(*_: object) -> None:
        nonlocal num_steps
        num_steps += 1
        if num_steps == step:
            os.kill(os.getpid(), signal.SIGKILL)

    event.listen(Engine, "before_cursor_execute", count)
    event.listen(Engine, "commit", count)
    open_store(url)
    count()


def is_sound(path: Path) -> bool:
    """Whether SQLite finds nothing wrong in a file."""
    with closing(sqlite3.connect(path)) as db:
        return (
            db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            and not db.execute("PRAGMA foreign_key_check").fetchall()
        )
