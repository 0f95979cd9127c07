"""An index of the contracts' events: what stands on chain, without asking it again and again.

Events and the hashes of their blocks are kept in SQLite; the state is a fold over them (chain/state.py), rebuilt when
the index opens. A reorganisation is noticed by a block hash that changed: everything after the last common block is
dropped and read anew.
"""

from __future__ import annotations

import fcntl
import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from web3.exceptions import BlockNotFound

from declai.chain.client import Chain
from declai.chain.contracts.binding import Event, typed_errors
from declai.chain.state import ChainState

BATCH_BLOCKS = 2_000
SCHEMA = (
    "CREATE TABLE IF NOT EXISTS meta (id INTEGER PRIMARY KEY CHECK (id = 0), deployment TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS blocks (number INTEGER PRIMARY KEY, hash BLOB NOT NULL)",
    "CREATE TABLE IF NOT EXISTS events (block INTEGER NOT NULL, log_index INTEGER NOT NULL, contract TEXT NOT NULL,"
    " name TEXT NOT NULL, event_values TEXT NOT NULL, PRIMARY KEY (block, log_index))",
)


def _to_json(value: Any) -> Any:
    """bytes become {"hex": ...}; JSON's integers have no bound in Python."""
    if isinstance(value, bytes):
        return {"hex": value.hex()}
    if isinstance(value, dict) or hasattr(value, "items"):
        return {key: _to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_to_json(item) for item in value]
    return value


def _from_json(fields: dict[str, Any]) -> Any:
    return bytes.fromhex(fields["hex"]) if fields.keys() == {"hex"} else fields


class EventIndex:
    """Follows one deployment. `state` is replaced by `sync`, never seen half-way.

    Threads may share one, and processes its file.
    """

    def __init__(self, path: Path, chain: Chain) -> None:
        self._chain = chain
        self._lock = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock_path = path.with_name(f"{path.name}.lock")
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        with self._exclusive():
            self._db.execute("PRAGMA journal_mode=WAL")
            for statement in SCHEMA:
                self._db.execute(statement)
            self._bind_to_deployment()
            self.state = self._fold()

    def close(self) -> None:
        self._db.close()

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """One process at a time: commands of one user share the file."""
        with self._lock_path.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _bind_to_deployment(self) -> None:
        """An index of another deployment (a devnet started anew, say) is of no use: begin from nothing."""
        text = self._chain.deployment.model_dump_json()
        row = self._db.execute("SELECT deployment FROM meta").fetchone()
        if row is None or row[0] != text:
            with self._db:
                self._db.execute("BEGIN")
                for table in ("events", "blocks", "meta"):
                    self._db.execute(f"DELETE FROM {table}")  # noqa: S608 - constant names
                self._db.execute("INSERT INTO meta VALUES (0, ?)", (text,))

    @property
    def next_block(self) -> int:
        """The first block that was not read yet."""
        row = self._db.execute("SELECT MAX(number) FROM blocks").fetchone()
        return self._chain.deployment.block if row[0] is None else int(row[0]) + 1

    def sync(self) -> ChainState:
        """Read up to the newest block and return the state there.

        Raises:
            ChainUnreachable: nobody answers; the state stays as it was.
        """
        with self._lock, self._exclusive():
            self._bind_to_deployment()
            if self._drop_orphans() or self.state.block != self.next_block - 1:
                self.state = self._fold()  # it is not what the file holds: another process wrote, or blocks are gone
            head = self._chain.block_number()
            while (first := self.next_block) <= head:
                last = min(first + BATCH_BLOCKS - 1, head)
                block_hash = self._block_hash(last)
                events = self._chain.events(first, last)
                if block_hash is None or self._block_hash(last) != block_hash:
                    break  # reorganised while we read: the next call sees it settled
                self._store(events, last, block_hash)
                state = self.state.copy()
                for event in events:
                    state.apply(event)
                state.block = last
                self.state = state
            return self.state

    def _block_hash(self, number: int) -> bytes | None:
        try:
            with typed_errors():
                return bytes(self._chain.w3.eth.get_block(number)["hash"])
        except BlockNotFound:
            return None

    def _drop_orphans(self) -> bool:
        """Forget what is not on the chain any more; whether there was such a thing."""
        rows = self._db.execute("SELECT number, hash FROM blocks ORDER BY number DESC").fetchall()
        dropped = False
        for number, block_hash in rows:
            if self._block_hash(number) == block_hash:
                break
            dropped = True
            below = self._db.execute("SELECT MAX(number) FROM blocks WHERE number < ?", (number,)).fetchone()[0]
            with self._db:
                self._db.execute("BEGIN")
                self._db.execute("DELETE FROM blocks WHERE number = ?", (number,))
                self._db.execute("DELETE FROM events WHERE block > ?", (-1 if below is None else below,))
        return dropped

    def _store(self, events: list[Event], last: int, block_hash: bytes) -> None:
        rows = [(e.block, e.log_index, e.contract, e.name, json.dumps(_to_json(e.values))) for e in events]
        with self._db:
            self._db.execute("BEGIN")
            self._db.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?)", rows)
            self._db.execute("INSERT INTO blocks VALUES (?, ?)", (last, block_hash))

    def _fold(self) -> ChainState:
        state = ChainState(block=self.next_block - 1)
        rows = self._db.execute(
            "SELECT contract, name, event_values, block, log_index FROM events ORDER BY block, log_index"
        )
        for contract, name, values, block, log_index in rows:
            state.apply(Event(contract, name, json.loads(values, object_hook=_from_json), block, log_index))
        return state
