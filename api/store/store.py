"""The durable store behind every promise of the gateway. SQLite (WAL, every commit synced) or PostgreSQL.

Methods are synchronous and short; the event loop calls them through `asyncio.to_thread`. Each is one transaction.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, delete, event, func, insert, select, update
from sqlalchemy.engine import Row, make_url
from sqlalchemy.exc import IntegrityError

from api.errors import NonceReplayed
from api.store import schema
from api.store.schema import api_keys, batches, requests, sessions, signin_nonces, stages
from chain.messages import Assignment, InferenceReceipt, InferenceRequest
from worker.receipts import SignedReceipt


class RequestState(StrEnum):
    """A request runs, then is finished (it may cost something) or failed (it costs nothing)."""

    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"


class BatchState(StrEnum):
    """A batch is planned, sent (its raw transaction is stored), and confirmed."""

    PLANNED = "planned"
    SENT = "sent"
    CONFIRMED = "confirmed"


@dataclass(frozen=True)
class StoredStage:
    """One stage of a finished request: who was to do what, and the signed receipt. `cost` in base units."""

    stage: int
    assignment: Assignment
    assignment_signature: bytes
    receipt: SignedReceipt

    @property
    def cost(self) -> int:
        return self.receipt.receipt.cost


@dataclass(frozen=True)
class StoredRequest:
    """A request as the store has it; hashes are 0x-hex, amounts base units, times Unix seconds."""

    request: str
    message: InferenceRequest
    signature: bytes
    state: RequestState
    cost: int
    fee: int
    finish_reason: str | None
    num_prompt_tokens: int | None
    num_output_tokens: int | None
    error: str | None
    batch: int | None
    created_at: float


@dataclass(frozen=True)
class StoredBatch:
    """A settlement batch and the raw transactions that were signed for it, oldest first."""

    id: int
    state: BatchState
    root: bytes
    cid: str
    call_data: bytes
    transactions: list[bytes]
    confirmed_block: int | None


@dataclass(frozen=True)
class SessionTotals:
    """`finished_total`: base units that all ended requests cost; `next_nonce`: above all known ones."""

    finished_total: int
    next_nonce: int
    running: dict[str, int]


class Store:
    """All tables of one gateway."""

    def __init__(self, url: str) -> None:
        self.engine = _engine(url)
        schema.metadata.create_all(self.engine)
        with self.engine.begin() as db:
            if db.execute(select(schema.versions)).first() is None:
                db.execute(insert(schema.versions).values(version=schema.SCHEMA_VERSION))

    def close(self) -> None:
        self.engine.dispose()

    # Requests

    def begin_request(self, request: str, message: InferenceRequest, signature: bytes) -> None:
        """Record a request before anything is done for it.

        Raises:
            NonceReplayed: the session has used this nonce.
        """
        session = "0x" + message.session.hex()
        try:
            with self.engine.begin() as db:
                _ensure_session(db, session)
                db.execute(
                    insert(requests).values(
                        request=request,
                        session=session,
                        nonce=message.nonce,
                        message=message.model_dump_json(),
                        signature="0x" + signature.hex(),
                        state=RequestState.RUNNING,
                        max_cost=str(message.max_cost),
                        created_at=time.time(),
                        excluded=False,
                    )
                )
        except IntegrityError:
            raise NonceReplayed(
                f"nonce {message.nonce} of session {session} was used before: sign the request with a fresh nonce"
            ) from None

    def finish_request(
        self,
        request: str,
        *,
        finish_reason: str,
        num_prompt_tokens: int,
        num_output_tokens: int,
        fee: int,
        stages_done: Sequence[StoredStage],
    ) -> int:
        """Record a finished request with its receipts, durably; returns its cost. A second call changes nothing."""
        cost = sum(stage.cost for stage in stages_done) + fee
        with self.engine.begin() as db:
            row = _lock_request(db, request)
            if row.state != RequestState.RUNNING:
                return int(row.cost or 0)
            for stage in stages_done:
                db.execute(insert(stages).values(request=request, **_stage_values(stage)))
            _end_request(
                db,
                row,
                state=RequestState.FINISHED,
                cost=cost,
                fee=str(fee),
                finish_reason=finish_reason,
                num_prompt_tokens=num_prompt_tokens,
                num_output_tokens=num_output_tokens,
            )
        return cost

    def fail_request(self, request: str, error: str) -> None:
        """Record that a request ended without cost. A request that ended before stays as it is."""
        with self.engine.begin() as db:
            row = _lock_request(db, request)
            if row.state == RequestState.RUNNING:
                _end_request(db, row, state=RequestState.FAILED, cost=0, fee="0", error=error[:500])

    def fail_all_running(self, error: str) -> int:
        """After a restart: whatever ran is lost and costs nothing. Returns how many."""
        with self.engine.begin() as db:
            running = db.execute(select(requests.c.request).where(requests.c.state == RequestState.RUNNING)).scalars()
            names = list(running)
        for name in names:
            self.fail_request(name, error)
        return len(names)

    def request(self, request: str) -> StoredRequest | None:
        with self.engine.connect() as db:
            row = db.execute(select(requests).where(requests.c.request == request)).first()
        return None if row is None else _to_request(row)

    def request_stages(self, request: str) -> list[StoredStage]:
        """The stages of a finished request in order."""
        with self.engine.connect() as db:
            rows = db.execute(select(stages).where(stages.c.request == request).order_by(stages.c.stage)).all()
        return [_to_stage(row) for row in rows]

    # Sessions

    def session_totals(self, session: str) -> SessionTotals:
        with self.engine.connect() as db:
            row = db.execute(select(sessions).where(sessions.c.session == session)).first()
            newest = db.execute(select(func.max(requests.c.nonce)).where(requests.c.session == session)).scalar()
            running = db.execute(
                select(requests.c.request, requests.c.max_cost).where(
                    requests.c.session == session, requests.c.state == RequestState.RUNNING
                )
            ).all()
        total = int(row.finished_total) if row else 0
        return SessionTotals(total, 0 if newest is None else newest + 1, {r.request: int(r.max_cost) for r in running})

    def spent_below(self, session: str, nonce: int) -> tuple[int, int, int]:
        """(cost of the ended requests with a lower nonce, how many of those still run, ended ones not below)."""
        with self.engine.begin() as db:
            _ensure_session(db, session)
            row = db.execute(select(sessions).where(sessions.c.session == session)).one()
            base, spent = (row.acked_below, int(row.acked_spent)) if nonce >= row.acked_below else (0, 0)
            later = db.execute(
                select(requests.c.nonce, requests.c.cost).where(requests.c.session == session, requests.c.nonce >= base)
            ).all()
            below = [r for r in later if r.nonce < nonce]
            num_running = sum(r.cost is None for r in below)
            spent += sum(int(r.cost or 0) for r in below)
            if not num_running and nonce > row.acked_below:
                values = {"acked_below": nonce, "acked_spent": str(spent)}
                db.execute(update(sessions).where(sessions.c.session == session).values(**values))
            return spent, num_running, sum(r.cost is not None for r in later if r.nonce >= nonce)

    def acknowledgement(self, session: str) -> tuple[int, int]:
        """(acked_below, spent) of the longest prefix of ended requests: what the gateway's own session keys sign."""
        with self.engine.connect() as db:
            running = db.execute(
                select(func.min(requests.c.nonce)).where(requests.c.session == session, requests.c.cost.is_(None))
            ).scalar()
            newest = db.execute(select(func.max(requests.c.nonce)).where(requests.c.session == session)).scalar()
        acked_below = running if running is not None else (0 if newest is None else newest + 1)
        return acked_below, self.spent_below(session, acked_below)[0]

    # Batches

    def unsettled(self, limit: int) -> list[StoredRequest]:
        """Finished requests with a cost that no batch holds, oldest first."""
        with self.engine.connect() as db:
            rows = db.execute(
                select(requests)
                .where(
                    requests.c.state == RequestState.FINISHED,
                    requests.c.batch.is_(None),
                    requests.c.cost != "0",
                    requests.c.excluded.is_(False),
                )
                .order_by(requests.c.finished_at)
                .limit(limit)
            ).all()
        return [_to_request(row) for row in rows]

    def unsettled_of(self, session: str, up_to_nonce: int) -> list[StoredRequest]:
        """A session's finished requests with a cost that no batch holds, up to a nonce (inclusive)."""
        with self.engine.connect() as db:
            rows = db.execute(
                select(requests)
                .where(
                    requests.c.session == session,
                    requests.c.nonce <= up_to_nonce,
                    requests.c.state == RequestState.FINISHED,
                    requests.c.batch.is_(None),
                    requests.c.cost != "0",
                )
                .order_by(requests.c.nonce)
            ).all()
        return [_to_request(row) for row in rows]

    def finished_from(self, session: str, nonce: int) -> list[StoredRequest]:
        """A session's finished requests with a cost and at least this nonce, by nonce."""
        with self.engine.connect() as db:
            rows = db.execute(
                select(requests)
                .where(
                    requests.c.session == session,
                    requests.c.nonce >= nonce,
                    requests.c.state == RequestState.FINISHED,
                    requests.c.cost != "0",
                )
                .order_by(requests.c.nonce)
            ).all()
        return [_to_request(row) for row in rows]

    def plan_batch(self, root: bytes, cid: str, call_data: bytes, members: Sequence[str]) -> int:
        """Bind requests to a new batch, all or none; returns its id."""
        with self.engine.begin() as db:
            result = db.execute(
                insert(batches).values(
                    state=BatchState.PLANNED,
                    root="0x" + root.hex(),
                    cid=cid,
                    call_data=call_data.hex(),
                    transactions="[]",
                    created_at=time.time(),
                )
            )
            batch: int = result.inserted_primary_key[0]  # type: ignore[index]
            for member in members:
                changed = db.execute(
                    update(requests).where(requests.c.request == member, requests.c.batch.is_(None)).values(batch=batch)
                )
                if changed.rowcount != 1:
                    raise RuntimeError(f"request {member} is in another batch already")
        return batch

    def open_batch(self) -> StoredBatch | None:
        """The one batch that is planned or sent and not confirmed."""
        with self.engine.connect() as db:
            row = db.execute(
                select(batches)
                .where(batches.c.state.in_([BatchState.PLANNED, BatchState.SENT]))
                .order_by(batches.c.id)
                .limit(1)
            ).first()
        return None if row is None else _to_batch(row)

    def add_transaction(self, batch: int, raw: bytes) -> None:
        """Store a signed transaction before it is broadcast."""
        with self.engine.begin() as db:
            row = db.execute(select(batches).where(batches.c.id == batch).with_for_update()).one()
            known = [*json.loads(row.transactions), raw.hex()]
            values = {"state": BatchState.SENT, "transactions": json.dumps(known)}
            db.execute(update(batches).where(batches.c.id == batch).values(**values))

    def confirm_batch(self, batch: int, block: int) -> None:
        self._set_batch(batch, state=BatchState.CONFIRMED, confirmed_block=block)

    def reopen_batch(self, batch: int) -> None:
        """A reorganisation undid it."""
        self._set_batch(batch, state=BatchState.SENT, confirmed_block=None)

    def refuse_batch(self, batch: int, excluded_session: str | None) -> None:
        """The contract refuses it for good: free its requests; those of a session at fault are never tried again."""
        with self.engine.begin() as db:
            mine = requests.c.batch == batch
            if excluded_session is not None:
                at_fault = requests.c.session == excluded_session
                db.execute(update(requests).where(mine, at_fault).values(excluded=True))
            db.execute(update(requests).where(mine).values(batch=None))
            # The root is unique among batches that stand; the same receipts may form the same batch again.
            db.execute(delete(batches).where(batches.c.id == batch))

    def confirmed_since(self, block: int) -> list[StoredBatch]:
        """Batches that were confirmed in `block` or later: a reorganisation may still undo them."""
        with self.engine.connect() as db:
            rows = db.execute(
                select(batches).where(batches.c.state == BatchState.CONFIRMED, batches.c.confirmed_block >= block)
            ).all()
        return [_to_batch(row) for row in rows]

    def batch(self, batch: int) -> StoredBatch | None:
        with self.engine.connect() as db:
            row = db.execute(select(batches).where(batches.c.id == batch)).first()
        return None if row is None else _to_batch(row)

    def _set_batch(self, batch: int, **values: Any) -> None:
        with self.engine.begin() as db:
            db.execute(update(batches).where(batches.c.id == batch).values(**values))

    # Sign-in and API keys

    def add_signin_nonce(self, nonce: str, expires_at: float) -> None:
        with self.engine.begin() as db:
            db.execute(delete(signin_nonces).where(signin_nonces.c.expires_at < time.time()))
            db.execute(insert(signin_nonces).values(nonce=nonce, expires_at=expires_at))

    def take_signin_nonce(self, nonce: str) -> bool:
        """Use a nonce up; whether it was there and fresh."""
        with self.engine.begin() as db:
            fresh = signin_nonces.c.expires_at >= time.time()
            return db.execute(delete(signin_nonces).where(signin_nonces.c.nonce == nonce, fresh)).rowcount == 1

    def add_api_key(self, key_hash: str, session: str, payer: str, expires_at: float) -> None:
        with self.engine.begin() as db:
            values = {"key_hash": key_hash, "session": session, "payer": payer, "expires_at": expires_at}
            db.execute(insert(api_keys).values(**values, revoked=False))

    def api_key(self, key_hash: str) -> tuple[str, str] | None:
        """(session, payer) of a key that is neither expired nor revoked."""
        with self.engine.connect() as db:
            row = db.execute(select(api_keys).where(api_keys.c.key_hash == key_hash)).first()
        if row is None or row.revoked or row.expires_at < time.time():
            return None
        return row.session, row.payer

    def revoke_api_keys(self, session: str) -> int:
        """Revoke every key of a session; returns how many."""
        with self.engine.begin() as db:
            return db.execute(update(api_keys).where(api_keys.c.session == session).values(revoked=True)).rowcount


def _engine(url: str) -> Engine:
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite":
        return create_engine(url, pool_pre_ping=True)
    if parsed.database:
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url, connect_args={"timeout": 30, "check_same_thread": False})

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _: Any) -> None:
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=30000"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()
        connection.isolation_level = None  # the driver must not begin transactions by itself

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # A transaction that reads and then writes must hold the write lock from its start, or SQLite may refuse it.
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def _ensure_session(db: Connection, session: str) -> None:
    if db.execute(select(sessions.c.session).where(sessions.c.session == session)).first() is None:
        db.execute(insert(sessions).values(session=session, finished_total="0", acked_below=0, acked_spent="0"))


def _lock_request(db: Connection, request: str) -> Row[Any]:
    return db.execute(select(requests).where(requests.c.request == request).with_for_update()).one()


def _end_request(db: Connection, row: Row[Any], *, cost: int, **values: Any) -> None:
    db.execute(
        update(requests)
        .where(requests.c.request == row.request)
        .values(cost=str(cost), finished_at=time.time(), **values)
    )
    total = db.execute(select(sessions).where(sessions.c.session == row.session).with_for_update()).one()
    new_total = str(int(total.finished_total) + cost)
    db.execute(update(sessions).where(sessions.c.session == row.session).values(finished_total=new_total))


def _stage_values(stage: StoredStage) -> dict[str, Any]:
    return {
        "stage": stage.stage,
        "node": stage.assignment.node,
        "assignment": stage.assignment.model_dump_json(),
        "assignment_signature": "0x" + stage.assignment_signature.hex(),
        "receipt": stage.receipt.receipt.model_dump_json(),
        "receipt_signature": "0x" + stage.receipt.signature.hex(),
        "records": stage.receipt.records,
        "cost": str(stage.cost),
    }


def _unhex(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))


def _to_stage(row: Row[Any]) -> StoredStage:
    receipt = InferenceReceipt.model_validate_json(row.receipt)
    signed = SignedReceipt(receipt=receipt, signature=_unhex(row.receipt_signature), records=row.records)
    assignment = Assignment.model_validate_json(row.assignment)
    return StoredStage(row.stage, assignment, _unhex(row.assignment_signature), signed)


def _to_request(row: Row[Any]) -> StoredRequest:
    return StoredRequest(
        request=row.request,
        message=InferenceRequest.model_validate_json(row.message),
        signature=_unhex(row.signature),
        state=RequestState(row.state),
        cost=int(row.cost or 0),
        fee=int(row.fee or 0),
        finish_reason=row.finish_reason,
        num_prompt_tokens=row.num_prompt_tokens,
        num_output_tokens=row.num_output_tokens,
        error=row.error,
        batch=row.batch,
        created_at=row.created_at,
    )


def _to_batch(row: Row[Any]) -> StoredBatch:
    return StoredBatch(
        id=row.id,
        state=BatchState(row.state),
        root=_unhex(row.root),
        cid=row.cid,
        call_data=bytes.fromhex(row.call_data),
        transactions=[bytes.fromhex(raw) for raw in json.loads(row.transactions)],
        confirmed_block=row.confirmed_block,
    )
