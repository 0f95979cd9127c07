"""The part of the store that follows requests: begun, finished or failed; and what each session's requests cost."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Engine, func, insert, select, update
from sqlalchemy.engine import Row
from sqlalchemy.exc import IntegrityError

from declai.api.errors import GatewayError, NonceReplayed
from declai.api.store.processes import say_alive
from declai.api.store.records import (
    RequestState,
    SessionTotals,
    StoredRequest,
    StoredStage,
    request_values,
    stage_values,
    to_request,
    to_stage,
)
from declai.api.store.schema import requests, sessions, stages
from declai.chain.fields import to_hex
from declai.chain.messages import InferenceRequest
from declai.storage.database import insert_missing


class RequestTables:
    """Methods block and are one transaction each."""

    engine: Engine
    process_id: str

    def begin_request(self, request: str, message: InferenceRequest, signature: bytes) -> None:
        """Record a request before anything is done for it; this process owns it until it ends.

        Raises:
            NonceReplayed: the session has used this nonce, or acknowledged what lies below a higher one.
        """
        session = to_hex(message.session)
        values = {
            **request_values(message, signature),
            "request": request,
            "state": RequestState.RUNNING,
            "created_at": time.time(),
            "excluded": False,
            "owner": self.process_id,
        }
        try:
            with self.engine.begin() as db:
                say_alive(db, self.process_id)
                acked_below = _lock_session(db, session).acked_below
                # An acknowledged total is final: a request that came in below it would be served and never paid.
                if message.nonce < acked_below:
                    raise NonceReplayed(
                        f"nonce {message.nonce} of session {session} lies below {acked_below}, under which all is "
                        "acknowledged: sign the request with a higher nonce"
                    )
                db.execute(insert(requests).values(**values))
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
        """Record a finished request with its receipts, durably; returns its cost. A second call changes nothing.

        Raises:
            GatewayError: it was recorded as failed before; its receipts are not owed.
        """
        cost = sum(stage.cost for stage in stages_done) + fee
        with self.engine.begin() as db:
            row = _lock_request(db, request)
            if row.state == RequestState.FAILED:
                raise GatewayError(f"the request was given up before it ended ({row.error}); nothing is charged")
            if row.state != RequestState.RUNNING:
                return int(row.cost)
            for stage in stages_done:
                db.execute(insert(stages).values(request=request, **stage_values(stage)))
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

    def fail_request(self, request: str, error: str) -> bool:
        """Record that a request ended without cost. A request that ended before stays as it is; returns False then."""
        with self.engine.begin() as db:
            row = _lock_request(db, request)
            if row.state != RequestState.RUNNING:
                return False
            _end_request(db, row, state=RequestState.FAILED, cost=0, fee="0", error=error[:500])
            return True

    def request(self, request: str) -> StoredRequest | None:
        with self.engine.connect() as db:
            row = db.execute(select(requests).where(requests.c.request == request)).first()
        return None if row is None else to_request(row)

    def numbered(self, session: str, from_nonce: int) -> list[StoredRequest]:
        """A session's requests from a nonce on, by nonce."""
        wanted = requests.c.session == session, requests.c.nonce >= from_nonce
        with self.engine.connect() as db:
            rows = db.execute(select(requests).where(*wanted).order_by(requests.c.nonce)).all()
        return [to_request(row) for row in rows]

    def request_stages(self, request: str) -> list[StoredStage]:
        """The stages of a finished request in order."""
        with self.engine.connect() as db:
            rows = db.execute(select(stages).where(stages.c.request == request).order_by(stages.c.stage)).all()
        return [to_stage(row) for row in rows]

    def session_totals(self, session: str) -> SessionTotals:
        with self.engine.begin() as db:
            # The lock keeps ends of requests out: what they cost is in the total or they still run, never neither.
            row = _lock_session(db, session)
            newest = db.execute(select(func.max(requests.c.nonce)).where(requests.c.session == session)).scalar()
            running = db.execute(
                select(requests.c.request, requests.c.max_cost).where(
                    requests.c.session == session, requests.c.state == RequestState.RUNNING
                )
            ).all()
        next_nonce = row.acked_below if newest is None else max(newest + 1, row.acked_below)
        return SessionTotals(int(row.finished_total), next_nonce, {r.request: int(r.max_cost) for r in running})

    def spent_below(self, session: str, nonce: int, claimed: int | None = None) -> tuple[int, int, int]:
        """(cost of the ended requests with a lower nonce, how many of those still run, ended ones not below).

        When none of those runs, the sum is final from here on: no request may begin below it any more. A payer who
        `claimed` another sum has agreed to nothing, and nothing becomes final.
        """
        with self.engine.begin() as db:
            return _spent_below(db, _lock_session(db, session), nonce, claimed)

    def acknowledgement(self, session: str) -> tuple[int, int, int]:
        """(acked_below, spent, ended requests not below) of the longest prefix of ended requests.

        This is what the gateway's own session keys sign.
        """
        with self.engine.begin() as db:
            row = _lock_session(db, session)
            mine = requests.c.session == session
            running = db.execute(select(func.min(requests.c.nonce)).where(mine, requests.c.cost.is_(None))).scalar()
            newest = db.execute(select(func.max(requests.c.nonce)).where(mine)).scalar()
            acked_below = running if running is not None else (0 if newest is None else newest + 1)
            spent, _, num_above = _spent_below(db, row, acked_below)
            return acked_below, spent, num_above


def _spent_below(db: Connection, row: Row[Any], nonce: int, claimed: int | None = None) -> tuple[int, int, int]:
    """`Store.spent_below` for a locked session."""
    base, spent = (row.acked_below, int(row.acked_spent)) if nonce >= row.acked_below else (0, 0)
    later = db.execute(
        select(requests.c.nonce, requests.c.cost).where(requests.c.session == row.session, requests.c.nonce >= base)
    ).all()
    below = [r for r in later if r.nonce < nonce]
    num_running = sum(r.cost is None for r in below)
    spent += sum(int(r.cost or 0) for r in below)
    if not num_running and nonce > row.acked_below and claimed in (None, spent):
        values = {"acked_below": nonce, "acked_spent": str(spent)}
        db.execute(update(sessions).where(sessions.c.session == row.session).values(**values))
    return spent, num_running, sum(r.cost is not None for r in later if r.nonce >= nonce)


def _lock_session(db: Connection, session: str) -> Row[Any]:
    """The session's row, created when it is new, locked until the transaction ends."""
    insert_missing(db, sessions, session=session, finished_total="0", acked_below=0, acked_spent="0")
    return db.execute(select(sessions).where(sessions.c.session == session).with_for_update()).one()


def _lock_request(db: Connection, request: str) -> Row[Any]:
    return db.execute(select(requests).where(requests.c.request == request).with_for_update()).one()


def _end_request(db: Connection, row: Row[Any], *, cost: int, **values: Any) -> None:
    db.execute(
        update(requests)
        .where(requests.c.request == row.request)
        .values(cost=str(cost), finished_at=time.time(), owner=None, **values)
    )
    total = _lock_session(db, row.session)
    new_total = str(int(total.finished_total) + cost)
    db.execute(update(sessions).where(sessions.c.session == row.session).values(finished_total=new_total))
