"""The durable store behind every promise of the gateway: one object over all its tables.

Methods are synchronous and short; the event loop calls them through `asyncio.to_thread`. Each is one transaction, and
on return what it wrote is on disk.
"""

from __future__ import annotations

from declai.api.store.batches import BatchTables
from declai.api.store.engine import open_engine
from declai.api.store.keys import KeyTables
from declai.api.store.records import StoredStage
from declai.api.store.requests import RequestTables

__all__ = ["Store", "StoredStage"]


class Store(RequestTables, BatchTables, KeyTables):
    """All tables of one gateway, in SQLite or PostgreSQL."""

    def __init__(self, url: str) -> None:
        """Open, and create what is missing. Raises StoreUnusable."""
        self.engine = open_engine(url)

    def close(self) -> None:
        self.engine.dispose()
