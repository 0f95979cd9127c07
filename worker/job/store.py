"""A node's own durable store: jobs it has taken (against replay) and receipts with all that is needed to claim them.

SQLite, written through to the disk before a call returns. The file is the node's only proof of what it earned:
receipts, requests, assignments and acceptances stay in it for good. The node writes it, `declai node claim` beside it.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from declai.protocol.jobs import StageJob
from declai.protocol.receipts import SignedReceipt
from declai.worker.errors import StoreError

SCHEMA = """
CREATE TABLE IF NOT EXISTS taken (job BLOB PRIMARY KEY, deadline INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS receipts (
    job BLOB PRIMARY KEY,
    task TEXT NOT NULL,
    receipt TEXT NOT NULL,
    cost TEXT NOT NULL,
    stored_at INTEGER NOT NULL,
    acknowledged INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS unacknowledged ON receipts (stored_at) WHERE NOT acknowledged;
CREATE TABLE IF NOT EXISTS acceptances (job BLOB PRIMARY KEY, signature BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS batches (root BLOB PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS outcomes (
    job BLOB NOT NULL,
    root BLOB NOT NULL REFERENCES batches ON DELETE CASCADE,
    paid INTEGER NOT NULL,
    PRIMARY KEY (job, root)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS closed (job BLOB PRIMARY KEY) WITHOUT ROWID;
"""
SELECT_RECEIPTS = """
SELECT r.task, r.receipt, r.stored_at, a.signature, EXISTS (SELECT 1 FROM outcomes o WHERE o.job = r.job AND NOT o.paid)
FROM receipts r LEFT JOIN acceptances a USING (job)"""
UNPAID = """NOT EXISTS (SELECT 1 FROM outcomes o WHERE o.job = r.job AND o.paid)
AND job NOT IN (SELECT job FROM closed)"""


@dataclass(frozen=True)
class StoredReceipt:
    """A receipt and the job (request, assignment, both signatures) that it is for; `stored_at` in Unix seconds.

    `acceptance` is the gateway's signature over the receipt's acceptance. `left_out`: a batch took the session's money
    for the request, and does not pay this receipt.
    """

    job: StageJob
    receipt: SignedReceipt
    stored_at: int
    acceptance: bytes | None = None
    left_out: bool = False


@dataclass(frozen=True)
class Earnings:
    """Counts and sums over all stored receipts, in base units."""

    num_receipts: int
    num_unacknowledged: int
    total_cost: int


class NodeStore:
    """One file, any number of threads. Raises StoreError when the file cannot be used."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.execute("PRAGMA foreign_keys=ON")
            self._db.executescript(SCHEMA)
        except sqlite3.Error as error:
            raise StoreError(f"cannot open {path}: {error}") from error
        path.chmod(0o600)

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def take(self, job_id: bytes, deadline: int) -> bool:
        """Note that a job is taken; False when it was taken before. Forgotten once its deadline is well past."""
        with self._transaction() as db:
            db.execute("DELETE FROM taken WHERE deadline < ?", (int(time.time()) - 3600,))
            return db.execute("INSERT OR IGNORE INTO taken VALUES (?, ?)", (job_id, deadline)).rowcount == 1

    def save(self, job: StageJob, receipt: SignedReceipt) -> None:
        """Keep a receipt; a second one for the same job is refused with StoreError (it would be provable fraud)."""
        row = (
            job.job_id,
            job.model_dump_json(),
            receipt.model_dump_json(),
            str(receipt.receipt.cost),
            int(time.time()),
        )
        with self._transaction() as db:
            db.execute("INSERT INTO receipts (job, task, receipt, cost, stored_at) VALUES (?, ?, ?, ?, ?)", row)

    def accept(self, job_id: bytes, acceptance: bytes) -> None:
        """The gateway has the receipt, and signed (65 bytes) that it owes it. The first signature stays."""
        with self._transaction() as db:
            db.execute("INSERT OR IGNORE INTO acceptances VALUES (?, ?)", (job_id, acceptance))
            db.execute("UPDATE receipts SET acknowledged = 1 WHERE job = ?", (job_id,))

    def unacknowledged(self, since: int = 0) -> list[StoredReceipt]:
        """Receipts that the gateway has not confirmed, stored at or after `since`, oldest first."""
        return self._receipts("NOT acknowledged AND stored_at >= ?", (since,))

    def get(self, job_id: bytes) -> StoredReceipt | None:
        found = self._receipts("job = ?", (job_id,))
        return found[0] if found else None

    def unpaid(self) -> list[StoredReceipt]:
        """Receipts that no batch read so far pays and that are not closed, oldest first."""
        return self._receipts(UNPAID, ())

    def close_receipt(self, job_id: bytes) -> None:
        """Nothing can be had for a receipt any more, or all was: look at it no more."""
        with self._transaction() as db:
            db.execute("INSERT OR IGNORE INTO closed VALUES (?)", (job_id,))

    def batches(self) -> set[bytes]:
        """Roots of the settled batches whose outcomes are noted here."""
        with self._transaction() as db:
            return {root for (root,) in db.execute("SELECT root FROM batches")}

    def note_batch(self, root: bytes, paid: Iterable[bytes], left_out: Iterable[bytes]) -> None:
        """Note of which jobs a batch pays the receipts, and of which it takes the money without doing so."""
        rows = [(job, root, 1) for job in paid] + [(job, root, 0) for job in left_out]
        with self._transaction() as db:
            db.execute("INSERT OR IGNORE INTO batches VALUES (?)", (root,))
            db.executemany("INSERT OR IGNORE INTO outcomes VALUES (?, ?, ?)", rows)

    def forget_batch(self, root: bytes) -> None:
        """A reorganisation undid a batch."""
        with self._transaction() as db:
            db.execute("DELETE FROM batches WHERE root = ?", (root,))

    def earnings(self) -> Earnings:
        with self._transaction() as db:
            rows = db.execute("SELECT cost, acknowledged FROM receipts").fetchall()
        unacknowledged = sum(1 for _, acknowledged in rows if not acknowledged)
        return Earnings(len(rows), unacknowledged, sum(int(cost) for cost, _ in rows))

    def _receipts(self, where: str, values: tuple[object, ...]) -> list[StoredReceipt]:
        query = f"{SELECT_RECEIPTS} WHERE {where} ORDER BY stored_at, job"
        with self._transaction() as db:
            rows = db.execute(query, values).fetchall()
        return [
            StoredReceipt(
                StageJob.model_validate_json(task), SignedReceipt.model_validate_json(text), at, acceptance, bool(out)
            )
            for task, text, at, acceptance, out in rows
        ]

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                try:
                    yield self._db
                except BaseException:
                    self._db.execute("ROLLBACK")
                    raise
                self._db.execute("COMMIT")
            except sqlite3.Error as error:
                raise StoreError(f"{self._path}: {error}") from error
