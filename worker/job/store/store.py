"""A node's own durable store: jobs it has taken (against replay) and receipts with all that is needed to claim them.

SQLite, written through to the disk before a call returns. The file is the node's only proof of what it earned:
receipts, requests, assignments and acceptances stay in it for good. The node writes it, `declai node claim` beside it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import URL, ColumnElement, Connection, delete, exists, func, insert, select, update
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from declai.protocol.jobs import StageJob
from declai.protocol.receipts import SignedReceipt
from declai.storage.database import insert_missing, open_database, snapshot
from declai.storage.errors import DatabaseTooNew, DatabaseTooOld, StorageError
from declai.worker.errors import StoreError, StoreTooNew, StoreTooOld
from declai.worker.job.store.records import StoredReceipt, receipt_values, to_receipt
from declai.worker.job.store.schema import MIGRATIONS, acceptances, batches, closed, outcomes, receipts, taken

KEEP_TAKEN_S = 3600


@dataclass(frozen=True)
class Earnings:
    """Counts and sums over all stored receipts, in base units."""

    num_receipts: int
    num_unacknowledged: int
    total_cost: int


class NodeStore:
    """One file, any number of threads. Raises StoreError when the file cannot be used."""

    def __init__(self, path: Path, *, may_migrate: bool = True) -> None:
        """Open, and bring to this program's version.

        Raises:
            StoreTooNew: a later release wrote it.
            StoreTooOld: an earlier one did, and `may_migrate` is False.
        """
        self._path = path
        self._is_closed = False
        try:
            url = URL.create("sqlite", database=str(path))
            self._engine = open_database(url, MIGRATIONS, may_migrate=may_migrate)
        except DatabaseTooNew as error:
            raise StoreTooNew(f"{path}: {error}") from error
        except DatabaseTooOld as error:
            raise StoreTooOld(f"{path}: {error}") from error
        except StorageError as error:
            raise StoreError(str(error)) from error

    def close(self) -> None:
        self._is_closed = True
        self._engine.dispose()

    def take(self, job_id: bytes, deadline: int) -> bool:
        """Note that a job is taken; False when it was taken before. Forgotten once its deadline is well past."""
        with self._transaction() as db:
            db.execute(delete(taken).where(taken.c.deadline < int(time.time()) - KEEP_TAKEN_S))
            return insert_missing(db, taken, job=job_id, deadline=deadline)

    def save(self, job: StageJob, receipt: SignedReceipt) -> None:
        """Keep a receipt; a second one for the same job is refused with StoreError (it would be provable fraud)."""
        values = receipt_values(job, receipt)
        with self._transaction() as db:
            db.execute(insert(receipts).values(**values, stored_at=int(time.time()), delivered=False))

    def accept(self, job_id: bytes, acceptance: bytes) -> None:
        """The gateway has the receipt, and signed (65 bytes) that it owes it. The first signature stays."""
        with self._transaction() as db:
            insert_missing(db, acceptances, job=job_id, signature=acceptance)
            db.execute(update(receipts).where(receipts.c.job == job_id).values(delivered=True))

    def unacknowledged(self, since: int = 0) -> list[StoredReceipt]:
        """Receipts that the gateway has not confirmed, stored at or after `since`, oldest first."""
        return self._receipts(~receipts.c.delivered, receipts.c.stored_at >= since)

    def get(self, job_id: bytes) -> StoredReceipt | None:
        found = self._receipts(receipts.c.job == job_id)
        return found[0] if found else None

    def unpaid(self) -> list[StoredReceipt]:
        """Receipts that no batch read so far pays and that are not closed, oldest first."""
        paid = exists().where(outcomes.c.job == receipts.c.job, outcomes.c.paid)
        return self._receipts(~paid, ~exists().where(closed.c.job == receipts.c.job))

    def close_receipt(self, job_id: bytes) -> None:
        """Nothing can be had for a receipt any more, or all was: look at it no more."""
        with self._transaction() as db:
            insert_missing(db, closed, job=job_id)

    def batches(self) -> set[bytes]:
        """Roots of the settled batches whose outcomes are noted here."""
        with self._reads() as db:
            return set(db.execute(select(batches.c.root)).scalars())

    def note_batch(self, root: bytes, paid: Iterable[bytes], left_out: Iterable[bytes]) -> None:
        """Note of which jobs a batch pays the receipts, and of which it takes the money without doing so."""
        with self._transaction() as db:
            insert_missing(db, batches, root=root)
            for jobs, is_paid in ((paid, True), (left_out, False)):
                for job in jobs:
                    insert_missing(db, outcomes, job=job, root=root, paid=is_paid)

    def forget_batch(self, root: bytes) -> None:
        """A reorganisation undid a batch."""
        with self._transaction() as db:
            db.execute(delete(batches).where(batches.c.root == root))

    def earnings(self) -> Earnings:
        with self._reads() as db:
            costs = list(db.execute(select(receipts.c.cost)).scalars())
            waiting = db.execute(select(func.count()).select_from(receipts).where(~receipts.c.delivered)).scalar_one()
        return Earnings(len(costs), waiting, sum(map(int, costs)))

    def _receipts(self, *wanted: ColumnElement[bool]) -> list[StoredReceipt]:
        left_out = exists().where(outcomes.c.job == receipts.c.job, ~outcomes.c.paid)
        columns: tuple[Any, ...] = (receipts, acceptances.c.signature.label("acceptance"), left_out.label("left_out"))
        joined = receipts.outerjoin(acceptances, acceptances.c.job == receipts.c.job)
        query = select(*columns).select_from(joined).where(*wanted)
        with self._reads() as db:
            rows = db.execute(query.order_by(receipts.c.stored_at, receipts.c.job)).all()
        # After the transaction: ten thousand take seconds to read, and no connection is held meanwhile.
        with self._named_errors():
            return [to_receipt(row) for row in rows]

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        """Holds the file's write lock."""
        with self._named_errors(), self._engine.begin() as db:
            yield db

    @contextmanager
    def _reads(self) -> Iterator[Connection]:
        """Waits for no writer, and lets none wait."""
        with self._named_errors(), snapshot(self._engine) as db:
            yield db

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        if self._is_closed:
            raise StoreError(f"{self._path} is closed")
        try:
            yield
        except (SQLAlchemyError, StorageError) as error:
            reason = error.orig if isinstance(error, DBAPIError) else error
            raise StoreError(f"{self._path}: {reason}") from error
