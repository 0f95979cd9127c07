"""The requester's own book: sessions and every request signed in them, durable before anything is sent.

It answers the two questions that protect the payer: which nonce is next, and what may be acknowledged. A request is
acknowledged only with all earlier ones (the ledger's rule), so the book finds the longest prefix of
requests whose receipts were checked. SQLite in WAL mode: several processes may share one session.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from declai.errors import SessionError
from declai.storage.files import LOCK_TIMEOUT_S, keep_private, write_ahead

# The step at index i brings a book of version i to version i + 1. A step that was released never changes.
# Release 0.1.0 wrote these tables without a version.
STEPS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE IF NOT EXISTS sessions (
            id TEXT PRIMARY KEY, chain_id INTEGER NOT NULL, ledger TEXT NOT NULL, gateway TEXT NOT NULL,
            gateway_url TEXT NOT NULL, payer TEXT NOT NULL, keystore TEXT NOT NULL, budget TEXT NOT NULL,
            opened_at REAL NOT NULL, closed INTEGER NOT NULL DEFAULT 0,
            acked_below INTEGER NOT NULL DEFAULT 0, spent TEXT NOT NULL DEFAULT '0'
        )""",
        """CREATE TABLE IF NOT EXISTS requests (
            session TEXT NOT NULL REFERENCES sessions(id), nonce INTEGER NOT NULL, request TEXT, state TEXT NOT NULL,
            max_cost TEXT NOT NULL, cost TEXT, deadline INTEGER NOT NULL, created_at REAL NOT NULL,
            PRIMARY KEY (session, nonce)
        )""",
    ),
)


class BookedState(StrEnum):
    """What the payer knows of a request."""

    SENT = "sent"  # signed and perhaps being served: its cost is not known
    ACCEPTED = "accepted"  # its receipts were checked; its cost is final
    VOID = "void"  # refused or failed: it costs nothing
    DISPUTED = "disputed"  # its receipts do not check: never acknowledged


@dataclass(frozen=True)
class SessionRecord:
    """One session of this machine. Amounts in base units; `keystore` is the session key's encrypted JSON."""

    id: str
    chain_id: int
    ledger: str
    gateway: str
    gateway_url: str
    payer: str
    keystore: str = field(repr=False)
    budget: int
    opened_at: float
    closed: bool = False
    spent: int = 0


@dataclass(frozen=True)
class RequestRecord:
    """One signed request: its digest (0x-hex), cap and, once known, cost."""

    nonce: int
    request: str | None
    state: BookedState
    max_cost: int
    cost: int | None
    deadline: int


@dataclass(frozen=True)
class Ticket:
    """What the next request must say: its nonce, and *all requests with nonce < acked_below cost me `spent`*."""

    nonce: int
    acked_below: int
    spent: int


SESSION_TYPES: dict[str, Callable[[Any], Any]] = {"budget": int, "spent": int, "closed": bool}


class SessionBook:
    """Sessions and requests of one user, in one SQLite file for its owner alone."""

    def __init__(self, path: Path) -> None:
        """Open or make the book; one of an older release is brought to this release's version.

        Raises:
            SessionError: a later release wrote it.
        """
        keep_private(path)
        self._path = path
        with self._transaction() as db:
            self._migrate(db)

    def _migrate(self, db: sqlite3.Connection) -> None:
        version: int = db.execute("PRAGMA user_version").fetchone()[0]
        if version > len(STEPS):
            raise SessionError(
                f"the book {self._path} has version {version}, this program writes version {len(STEPS)}: "
                "use the DeCLAI release that wrote it or a later one"
            )
        for step in STEPS[version:]:
            for statement in step:
                db.execute(statement)
        if version < len(STEPS):
            db.execute(f"PRAGMA user_version = {len(STEPS)}")

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        db = sqlite3.connect(self._path, timeout=LOCK_TIMEOUT_S, isolation_level=None)
        db.row_factory = sqlite3.Row
        try:
            write_ahead(db.cursor())
            db.execute("PRAGMA synchronous=FULL")
            db.execute("BEGIN IMMEDIATE")
            yield db
            db.execute("COMMIT")
        finally:
            db.close()

    def add_session(self, record: SessionRecord) -> None:
        """Keep a session that was opened on chain; a second call with the same id changes nothing."""
        with self._transaction() as db:
            db.execute(
                "INSERT OR IGNORE INTO sessions"
                " (id, chain_id, ledger, gateway, gateway_url, payer, keystore, budget, opened_at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *(record.id, record.chain_id, record.ledger, record.gateway, record.gateway_url, record.payer),
                    *(record.keystore, str(record.budget), record.opened_at),
                ),
            )

    def sessions(self, chain_id: int, ledger: str, payer: str | None = None) -> list[SessionRecord]:
        """The sessions of one network, newest first."""
        with self._transaction() as db:
            rows = db.execute(
                "SELECT * FROM sessions WHERE chain_id = ? AND ledger = ? AND (? IS NULL OR payer = ?)"
                " ORDER BY opened_at DESC",
                (chain_id, ledger, payer, payer),
            ).fetchall()
        names = SessionRecord.__dataclass_fields__
        return [
            SessionRecord(**{name: SESSION_TYPES.get(name, lambda value: value)(row[name]) for name in names})
            for row in rows
        ]

    def mark_closed(self, session: str) -> None:
        with self._transaction() as db:
            db.execute("UPDATE sessions SET closed = 1 WHERE id = ?", (session,))

    def set_budget(self, session: str, budget: int) -> None:
        with self._transaction() as db:
            db.execute("UPDATE sessions SET budget = ? WHERE id = ?", (str(budget), session))

    def issue(self, session: str, max_cost: int, deadline: int) -> Ticket:
        """Reserve the next nonce, durably, before its request is signed.

        Raises:
            SessionError: the budget does not cover `max_cost` beside all that is spent or in flight.
        """
        with self._transaction() as db:
            row = db.execute("SELECT * FROM sessions WHERE id = ?", (session,)).fetchone()
            if row is None:
                raise SessionError(f"session {session} is not in this machine's book")
            acked_below, spent = row["acked_below"], int(row["spent"])
            later = self._requests(db, session, acked_below)
            committed = spent + sum(r.max_cost if r.cost is None else r.cost for r in later)
            left = int(row["budget"]) - committed
            if max_cost > left:
                raise SessionError(
                    f"session {session} has {left} base units left, this request may cost {max_cost}: "
                    "top it up (`declai session top-up`) or lower max_tokens"
                )
            nonce = later[-1].nonce + 1 if later else acked_below
            db.execute(
                "INSERT INTO requests (session, nonce, state, max_cost, deadline, created_at)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (session, nonce, BookedState.SENT, str(max_cost), deadline, time.time()),
            )
        return Ticket(nonce, acked_below, spent)

    def name(self, session: str, nonce: int, request: str) -> None:
        """Keep the digest of the request that was signed under `nonce`."""
        with self._transaction() as db:
            db.execute("UPDATE requests SET request = ? WHERE session = ? AND nonce = ?", (request, session, nonce))

    def close_request(self, session: str, nonce: int, state: BookedState, cost: int) -> None:
        """Record how a request ended and acknowledge as far as all ends are known; its first end stays."""
        with self._transaction() as db:
            db.execute(
                "UPDATE requests SET state = ?, cost = ? WHERE session = ? AND nonce = ? AND state = ?",
                (state, None if state is BookedState.DISPUTED else str(cost), session, nonce, BookedState.SENT),
            )
            row = db.execute("SELECT acked_below, spent FROM sessions WHERE id = ?", (session,)).fetchone()
            acked_below, spent = row["acked_below"], int(row["spent"])
            for record in self._requests(db, session, acked_below):
                if record.cost is None:
                    break
                acked_below, spent = record.nonce + 1, spent + record.cost
            db.execute(
                "UPDATE sessions SET acked_below = ?, spent = ? WHERE id = ?", (acked_below, str(spent), session)
            )

    def pending(self, session: str) -> list[RequestRecord]:
        """Requests whose end is not known: in flight, or cut off by a crash."""
        with self._transaction() as db:
            row = db.execute("SELECT acked_below FROM sessions WHERE id = ?", (session,)).fetchone()
            records = self._requests(db, session, row["acked_below"])
        return [record for record in records if record.state is BookedState.SENT]

    @staticmethod
    def _requests(db: sqlite3.Connection, session: str, first_nonce: int) -> list[RequestRecord]:
        rows = db.execute(
            "SELECT * FROM requests WHERE session = ? AND nonce >= ? ORDER BY nonce", (session, first_nonce)
        ).fetchall()
        return [
            RequestRecord(
                nonce=row["nonce"],
                request=row["request"],
                state=BookedState(row["state"]),
                max_cost=int(row["max_cost"]),
                cost=None if row["cost"] is None else int(row["cost"]),
                deadline=row["deadline"],
            )
            for row in rows
        ]
