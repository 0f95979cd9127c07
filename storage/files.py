"""A SQLite file for its owner alone, with write-ahead logging: what everyone who opens one does first."""

from __future__ import annotations

import os
import sqlite3
import tempfile
import time
from contextlib import suppress
from pathlib import Path

LOCK_TIMEOUT_S = 30


def keep_private(path: Path) -> None:
    """Mode 0600 from the first byte on, for the file and those that SQLite makes beside it: they take its mode.

    HAZARD: whoever closes the file itself drops this process's locks on it, also those of SQLite's connections
    (sqlite.org/howtocorrupt.html, 2.2). So a new one is made under another name.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not path.exists():
        handle, fresh = tempfile.mkstemp(dir=path.parent, prefix=path.name)
        os.close(handle)
        with suppress(FileExistsError):
            os.link(fresh, path)
        os.unlink(fresh)
    for suffix in ("", "-wal", "-shm"):
        with suppress(FileNotFoundError):
            file = Path(f"{path}{suffix}")
            if file.stat().st_mode & 0o077:
                file.chmod(0o600)


def write_ahead(cursor: sqlite3.Cursor) -> None:
    """Turn to write-ahead logging. The database remembers it, so only the first who open a new one contend.

    HAZARD: two that upgrade their read locks for it would wait for each other; SQLite refuses one at once, whatever its
    timeout says (sqlite.org/c3ref/busy_handler.html).
    """
    deadline = time.monotonic() + LOCK_TIMEOUT_S
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
