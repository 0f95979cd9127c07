"""The part of the store that knows which gateway processes live, and what those that died left running.

A process lives while it says so: it renews its row's time, by the database's clock. Its process id alone would say
nothing to another machine or container.
"""

from __future__ import annotations

import os
import socket

from sqlalchemy import Connection, Engine, delete, func, select
from sqlalchemy.dialects import postgresql, sqlite

from declai.api.store.records import RequestState
from declai.api.store.schema import processes, requests
from declai.storage.clock import DatabaseTime

# How long a process may be silent before the others take it for dead.
DEAD_AFTER_S = 10.0


class ProcessTables:
    """Methods block and are one transaction each. `process_id` is drawn at random when the store opens."""

    engine: Engine
    process_id: str

    def beat(self) -> float | None:
        """Say that this process lives; returns the seconds since it last did, None when it is not known any more."""
        with self.engine.begin() as db:
            since = DatabaseTime() - processes.c.beat_at
            silent_s = db.execute(select(since).where(processes.c.id == self.process_id)).scalar()
            say_alive(db, self.process_id)
        return silent_s

    def leave(self) -> None:
        """This process ends: what it still runs is abandoned."""
        with self.engine.begin() as db:
            db.execute(delete(processes).where(processes.c.id == self.process_id))

    def bury_silent(self) -> list[str]:
        """Take for dead whoever was silent for too long: what they ran is abandoned. Returns what they were called."""
        silent = processes.c.beat_at < DatabaseTime() - DEAD_AFTER_S
        others = processes.c.id != self.process_id
        with self.engine.begin() as db:
            dead = db.execute(delete(processes).where(others, silent).returning(processes.c.pid, processes.c.host))
            return [f"{row.pid} on {row.host}" for row in dead]

    def is_alone(self) -> bool:
        """Whether no other process is known."""
        with self.engine.connect() as db:
            others = select(func.count()).select_from(processes).where(processes.c.id != self.process_id)
            return not db.execute(others).scalar_one()

    def abandoned(self) -> list[tuple[str, str]]:
        """(session, request) of what is running and has no process."""
        with self.engine.connect() as db:
            ownerless = requests.c.state == RequestState.RUNNING, requests.c.owner.is_(None)
            rows = db.execute(select(requests.c.session, requests.c.request).where(*ownerless))
            return [(row.session, row.request) for row in rows]


def say_alive(db: Connection, process_id: str) -> None:
    """Renew a process's row, or write it. Until the transaction ends, nobody can take the process for dead."""
    values = {"id": process_id, "host": socket.gethostname()[:255], "pid": os.getpid()}
    insert = postgresql.insert if db.dialect.name == "postgresql" else sqlite.insert
    statement = insert(processes).values(**values, started_at=DatabaseTime(), beat_at=DatabaseTime())
    db.execute(statement.on_conflict_do_update(index_elements=[processes.c.id], set_={"beat_at": DatabaseTime()}))
