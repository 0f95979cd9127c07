"""The tables as release 0.1.0 and the first nodes before it made them, without a version: what they made, is there."""

from __future__ import annotations

from alembic import op

revision = "0001"
down_revision = None

STATEMENTS = (
    "CREATE TABLE IF NOT EXISTS taken (job BLOB PRIMARY KEY, deadline INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS receipts (job BLOB PRIMARY KEY, task TEXT NOT NULL, receipt TEXT NOT NULL,"
    " cost TEXT NOT NULL, stored_at INTEGER NOT NULL, acknowledged INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS unacknowledged ON receipts (stored_at) WHERE NOT acknowledged",
    "CREATE TABLE IF NOT EXISTS acceptances (job BLOB PRIMARY KEY, signature BLOB NOT NULL) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS batches (root BLOB PRIMARY KEY) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS outcomes (job BLOB NOT NULL, root BLOB NOT NULL REFERENCES batches ON DELETE CASCADE,"
    " paid INTEGER NOT NULL, PRIMARY KEY (job, root)) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS closed (job BLOB PRIMARY KEY) WITHOUT ROWID",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
