"""The part of the store that follows settlement: what may be claimed, and each batch from its plan to its block."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Engine, and_, delete, func, insert, or_, select, update

from declai.api.store.records import BatchState, Claimable, RequestState, StoredBatch, to_batch, to_request
from declai.api.store.schema import batches, requests, stages
from declai.storage.database import snapshot


def _claimable() -> ColumnElement[bool]:
    return and_(requests.c.state == RequestState.FINISHED, requests.c.cost != "0", requests.c.excluded.is_(False))


class BatchTables:
    """Methods block and are one transaction each."""

    engine: Engine

    def unsettled_sessions(self) -> list[str]:
        """Sessions with finished requests that no batch holds; whose have waited longest come first."""
        waiting = _claimable(), requests.c.batch.is_(None)
        with self.engine.connect() as db:
            rows = db.execute(
                select(requests.c.session)
                .where(*waiting)
                .group_by(requests.c.session)
                .order_by(func.min(requests.c.finished_at))
            )
            return list(rows.scalars())

    def claimable(self, session: str, limit: int) -> list[Claimable]:
        """What a claim of this session may pay or may have to list, by rising nonce, as of one moment.

        That is every unsettled request (at most `limit`, the lowest nonces first) and every settled one that one of
        these, or the newest settled one, does not acknowledge.
        """
        mine = and_(requests.c.session == session, _claimable())
        unsettled, settled = requests.c.batch.is_(None), requests.c.batch.is_not(None)
        by_nonce = requests.c.nonce
        with snapshot(self.engine) as db:
            waiting = db.execute(select(requests).where(mine, unsettled).order_by(by_nonce).limit(limit)).all()
            newest = db.execute(select(requests).where(mine, settled).order_by(by_nonce.desc()).limit(1)).all()
            found = [to_request(row) for row in [*waiting, *newest]]
            if not waiting:
                return []
            listed_from = min(request.message.acked_below for request in found)
            last = waiting[-1].nonce
            wanted = and_(
                mine,
                or_(
                    and_(unsettled, by_nonce <= last),
                    and_(settled, by_nonce >= listed_from),
                    requests.c.request == found[-1].request,
                ),
            )
            rows = db.execute(select(requests).where(wanted).order_by(by_nonce)).all()
            size = func.count(), func.sum(func.length(stages.c.records))
            per_request = select(stages.c.request, *size).join(requests).where(wanted).group_by(stages.c.request)
            sizes = {request: (int(num), int(num_bytes)) for request, num, num_bytes in db.execute(per_request)}
        return [Claimable(to_request(row), *sizes.get(row.request, (0, 0))) for row in rows]

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

    def num_batches(self) -> int:
        """Batches ever planned that stand."""
        with self.engine.connect() as db:
            return int(db.execute(select(func.count()).select_from(batches)).scalar_one())

    def open_batch(self) -> StoredBatch | None:
        """The oldest batch that is planned or sent and not confirmed."""
        with self.engine.connect() as db:
            row = db.execute(
                select(batches)
                .where(batches.c.state.in_([BatchState.PLANNED, BatchState.SENT]))
                .order_by(batches.c.id)
                .limit(1)
            ).first()
        return None if row is None else to_batch(row)

    def set_transactions(self, batch: int, raw: Sequence[bytes]) -> None:
        """Store a batch's signed transactions, all of one nonce, the dearest last, before that one is broadcast."""
        self._set_batch(batch, state=BatchState.SENT, transactions=json.dumps([item.hex() for item in raw]))

    def confirm_batch(self, batch: int, block: int) -> None:
        self._set_batch(batch, state=BatchState.CONFIRMED, confirmed_block=block)

    def reopen_batch(self, batch: int) -> None:
        """A reorganisation undid it."""
        self._set_batch(batch, state=BatchState.SENT, confirmed_block=None)

    def refuse_batch(self, batch: int, excluded_session: str) -> None:
        """The contract refuses it: free its requests; those of the session at fault are never tried again."""
        with self.engine.begin() as db:
            mine = requests.c.batch == batch
            at_fault = requests.c.session == excluded_session
            db.execute(update(requests).where(mine, at_fault).values(excluded=True))
            db.execute(update(requests).where(mine).values(batch=None))
            # The root is unique among batches that stand; the same receipts may form the same batch again.
            db.execute(delete(batches).where(batches.c.id == batch))

    def exclude_session(self, session: str) -> int:
        """Leave out a session's unsettled requests for good; returns how many. Their receipts stay."""
        with self.engine.begin() as db:
            unsettled = and_(requests.c.session == session, _claimable(), requests.c.batch.is_(None))
            return db.execute(update(requests).where(unsettled).values(excluded=True)).rowcount

    def confirmed_since(self, block: int) -> list[StoredBatch]:
        """Batches that were confirmed in `block` or later: a reorganisation may still undo them."""
        with self.engine.connect() as db:
            rows = db.execute(
                select(batches)
                .where(batches.c.state == BatchState.CONFIRMED, batches.c.confirmed_block >= block)
                .order_by(batches.c.id)
            ).all()
        return [to_batch(row) for row in rows]

    def batch(self, batch: int) -> StoredBatch | None:
        with self.engine.connect() as db:
            row = db.execute(select(batches).where(batches.c.id == batch)).first()
        return None if row is None else to_batch(row)

    def _set_batch(self, batch: int, **values: Any) -> None:
        with self.engine.begin() as db:
            db.execute(update(batches).where(batches.c.id == batch).values(**values))
