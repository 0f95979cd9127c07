"""The payer's book on disk: its version, books of older releases, and whose it is."""

from __future__ import annotations

import os
import sqlite3
import stat
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from declai.client import book as book_module
from declai.client.book import BookedState, SessionBook, SessionRecord
from declai.errors import SessionError
from tests.support.old_databases import copy_of, rows_of

LEDGER, GATEWAY, PAYER = ("0x" + digits * 20 for digits in ("11", "22", "33"))
FIRST, SECOND = "0x" + "aa" * 32, "0x" + "bb" * 32


def version_of(path: Path) -> Any:
    with closing(sqlite3.connect(path)) as db:
        return db.execute("PRAGMA user_version").fetchone()[0]


def test_a_book_of_the_first_release_opens_with_nothing_lost(tmp_path: Path) -> None:
    path = copy_of("v1/sessions.db", tmp_path)
    before = rows_of(f"sqlite:///{path}")
    assert version_of(path) == 0
    book = SessionBook(path)
    assert version_of(path) == 1
    assert rows_of(f"sqlite:///{path}") == before
    second, first = book.sessions(31337, LEDGER, PAYER)
    assert (second.id, second.closed, second.spent) == (SECOND, True, 0)
    assert first == SessionRecord(
        id=FIRST,
        chain_id=31337,
        ledger=LEDGER,
        gateway=GATEWAY,
        gateway_url="http://127.0.0.1:8080",
        payer=PAYER,
        keystore='{"version": 3}',
        budget=10**24,
        opened_at=1000.5,
        spent=10**22,
    )
    assert [(record.nonce, record.request) for record in book.pending(FIRST)] == [(2, "0x" + "02" * 32), (4, None)]
    book.close_request(FIRST, 2, BookedState.ACCEPTED, 7)
    ticket = book.issue(FIRST, 1, 4_000_000_000)
    # Request 3 is disputed: what follows it is never acknowledged.
    assert (ticket.nonce, ticket.acked_below, ticket.spent) == (5, 3, 10**22 + 7)


def test_a_book_of_a_later_release_is_refused_untouched(tmp_path: Path) -> None:
    path = copy_of("v1/sessions.db", tmp_path)
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 9")
    before = rows_of(f"sqlite:///{path}")
    with pytest.raises(SessionError, match="version 9, this program writes version 1"):
        SessionBook(path)
    assert version_of(path) == 9
    assert rows_of(f"sqlite:///{path}") == before


def test_a_step_that_fails_leaves_the_old_version_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = copy_of("v1/sessions.db", tmp_path)
    before = rows_of(f"sqlite:///{path}")
    broken = (*book_module.STEPS, ("DELETE FROM requests", "no SQL"))
    with monkeypatch.context() as patched:
        patched.setattr(book_module, "STEPS", broken)
        with pytest.raises(sqlite3.OperationalError):
            SessionBook(path)
    assert version_of(path) == 0
    assert rows_of(f"sqlite:///{path}") == before
    assert len(SessionBook(path).sessions(31337, LEDGER)) == 2


def test_columns_that_a_later_step_adds_may_lie_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    added = ("ALTER TABLE sessions ADD COLUMN note TEXT", "ALTER TABLE requests ADD COLUMN note TEXT")
    monkeypatch.setattr(book_module, "STEPS", (*book_module.STEPS, added))
    book = SessionBook(copy_of("v1/sessions.db", tmp_path))
    record = book.sessions(31337, LEDGER, PAYER)[1]
    book.add_session(SessionRecord(**(vars(record) | {"id": "0x" + "cc" * 32, "spent": 0})))
    assert book.issue("0x" + "cc" * 32, 1, 4_000_000_000).nonce == 0


def test_files_are_their_owners_alone_also_those_that_were_not(tmp_path: Path) -> None:
    path = copy_of("v1/sessions.db", tmp_path)
    path.chmod(0o644)
    before = os.umask(0)
    try:
        SessionBook(path)
        SessionBook(tmp_path / "new.db")
    finally:
        os.umask(before)
    assert {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()} == {0o600}
