"""The storage room's errors: one base class; each text says which database, what is wrong, and what to do next.

* StorageError
  * DatabaseTooNew
  * DatabaseTooOld
  * DatabaseUnusable
  * UnknownFormat
"""

from __future__ import annotations


class StorageError(Exception):
    """Base of everything this room raises on purpose."""


class DatabaseUnusable(StorageError):
    """It cannot be opened: it is of another kind, no database at all, or nobody answers."""


class DatabaseTooNew(StorageError):
    """A later release wrote it."""


class DatabaseTooOld(StorageError):
    """An earlier release wrote it, and whoever opens it may not migrate it now."""


class UnknownFormat(StorageError):
    """A row holds a record in a format that this release does not read."""
