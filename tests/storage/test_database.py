"""Database files are their owner's alone, whatever made them, and stay sound while many open them."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from declai.storage import database
from declai.storage.database import open_database
from declai.storage.errors import UnknownFormat
from declai.storage.forms import FORMAT, RequestForm
from declai.storage.migrations import Migrations
from tests.support.papers import Papers

NOTHING = Migrations("test", "declai.api.store:migrations", version=0)


@pytest.fixture
def generous_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def modes(folder: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}


@pytest.mark.usefixtures("generous_umask")
def test_files_are_private_from_the_first_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, int]] = []
    write_ahead = database.write_ahead

    def look(cursor: sqlite3.Cursor) -> None:
        seen.append(modes(tmp_path / "deep"))
        write_ahead(cursor)
        seen.append(modes(tmp_path / "deep"))

    monkeypatch.setattr(database, "write_ahead", look)
    engine = open_database(f"sqlite:///{tmp_path / 'deep' / 'a.db'}", NOTHING)
    with engine.begin() as db:
        db.execute(text("CREATE TABLE t (x)"))
        seen.append(modes(tmp_path / "deep"))
    assert seen[0] == {"a.db": 0o600}
    assert seen[-1] == {"a.db": 0o600, "a.db-wal": 0o600, "a.db-shm": 0o600}
    assert all(mode == 0o600 for found in seen for mode in found.values())
    assert modes(tmp_path) == {"deep": 0o700}
    engine.dispose()


@pytest.mark.usefixtures("generous_umask")
def test_files_of_before_that_others_could_read_become_private(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    old = sqlite3.connect(path)
    old.execute("PRAGMA journal_mode=WAL")
    old.execute("CREATE TABLE t (x)")
    assert set(modes(tmp_path).values()) == {0o644}
    engine = open_database(f"sqlite:///{path}", NOTHING)
    assert modes(tmp_path) == {"a.db": 0o600, "a.db-wal": 0o600, "a.db-shm": 0o600}
    engine.dispose()
    old.close()


def test_threads_that_open_and_close_one_file_lose_no_write(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'a.db'}"

    def add(number: int) -> None:
        engine = open_database(url, NOTHING)
        with engine.begin() as db:
            db.execute(text("CREATE TABLE IF NOT EXISTS t (x INTEGER)"))
            db.execute(text("INSERT INTO t VALUES (:x)"), {"x": number})
        engine.dispose()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(64)))
    engine = create_engine(url)
    with engine.connect() as db:
        assert sorted(db.execute(text("SELECT x FROM t")).scalars()) == list(range(64))
        assert db.execute(text("PRAGMA integrity_check")).scalar() == "ok"
    engine.dispose()


def test_every_commit_is_synced(tmp_path: Path) -> None:
    engine = open_database(f"sqlite:///{tmp_path / 'a.db'}", NOTHING)
    with engine.connect() as db:
        assert db.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert db.exec_driver_sql("PRAGMA synchronous").scalar() == 2
        assert db.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
    engine.dispose()


def test_a_step_that_fails_leaves_everything_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    broken = Migrations("test", f"{tmp_path / 'steps'}", version=2)
    (tmp_path / "steps").mkdir()
    for number, (before, body) in enumerate([(None, "CREATE TABLE t (x)"), ("0001", "NO SQL")], 1):
        lines = ["from alembic import op", f"revision, down_revision = '{number:04}', {before!r}"]
        lines += ["def upgrade() -> None:", f"    op.execute({body!r})"]
        (tmp_path / "steps" / f"v{number:04}.py").write_text("\n".join(lines))
    with pytest.raises(Exception, match="syntax error"):
        open_database(f"sqlite:///{path}", broken)
    with sqlite3.connect(path) as db:
        assert db.execute("SELECT name FROM sqlite_master").fetchall() == []
    db.close()


def test_who_finds_a_database_up_to_date_writes_nothing(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'a.db'}"
    store = Migrations("test", "declai.api.store:migrations", version=2)
    open_database(url, store).dispose()
    before = (tmp_path / "a.db").read_bytes()
    open_database(url, store).dispose()
    assert (tmp_path / "a.db").read_bytes() == before


def test_a_record_of_a_format_that_nobody_knows_is_refused() -> None:
    message = Papers().request()
    text = RequestForm.of(message).text()
    assert RequestForm.read(FORMAT, text).message() == message
    with pytest.raises(UnknownFormat, match="format 2, this program reads format 1"):
        RequestForm.read(2, text)
