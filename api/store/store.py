"""The durable store behind every promise of the gateway: one object over all its tables.

Methods are synchronous and short; the event loop calls them through `asyncio.to_thread`. Each is one transaction, and
on return what it wrote is on disk.
"""

from __future__ import annotations

import secrets

from declai.api.errors import StoreUnusable
from declai.api.store.batches import BatchTables
from declai.api.store.keys import KeyTables
from declai.api.store.processes import ProcessTables
from declai.api.store.records import StoredStage
from declai.api.store.requests import RequestTables
from declai.api.store.schema import MIGRATIONS
from declai.storage.database import open_database
from declai.storage.errors import StorageError

__all__ = ["Store", "StoredStage"]


class Store(RequestTables, BatchTables, KeyTables, ProcessTables):
    """All tables of one gateway, in SQLite or PostgreSQL."""

    def __init__(self, url: str) -> None:
        """Open, and bring to this program's version. Raises StoreUnusable."""
        self.process_id = secrets.token_hex(16)
        try:
            self.engine = open_database(url, MIGRATIONS)
        except StorageError as error:
            raise StoreUnusable(str(error)) from error

    def close(self) -> None:
        self.engine.dispose()
