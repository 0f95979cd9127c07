"""The tables. Amounts are decimal strings: SQLite's integers do not hold 128 bits."""

from __future__ import annotations

from sqlalchemy import (
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    text,
)

from declai.storage.migrations import Migrations

metadata = MetaData()
MIGRATIONS = Migrations("node", "declai.worker.job.store:migrations", version=2)

# Against replay: jobs whose task was taken, until their deadline (Unix seconds) is well past.
taken = Table(
    "taken",
    metadata,
    Column("job", LargeBinary, primary_key=True),
    Column("deadline", Integer, nullable=False),
    sqlite_with_rowid=False,
)

# A receipt, and of its job what a claim shows. `format` is that of `request`, `assignment` and `receipt`
# (storage/forms.py); `delivered` says that the gateway has it.
receipts = Table(
    "receipts",
    metadata,
    Column("job", LargeBinary, primary_key=True),
    Column("format", SmallInteger, nullable=False),
    Column("chain_id", Integer, nullable=False),
    Column("ledger", String(42), nullable=False),
    Column("request", Text, nullable=False),
    Column("request_signature", LargeBinary, nullable=False),
    Column("assignment", Text, nullable=False),
    Column("assignment_signature", LargeBinary, nullable=False),
    Column("receipt", Text, nullable=False),
    Column("receipt_signature", LargeBinary, nullable=False),
    Column("records", LargeBinary, nullable=False),
    Column("num_stages", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("model_name", Text, nullable=False),
    Column("manifest_cid", Text, nullable=False),
    Column("gateway", String(42), nullable=False),
    Column("gateway_link_key", LargeBinary, nullable=False),
    Column("gateway_endpoint", Text, nullable=False),
    Column("cost", String(40), nullable=False),
    Column("stored_at", Integer, nullable=False),
    Column("delivered", Boolean, nullable=False),
    Index("receipts_undelivered", "stored_at", sqlite_where=text("NOT delivered")),
    sqlite_with_rowid=False,
)

acceptances = Table(
    "acceptances",
    metadata,
    Column("job", LargeBinary, primary_key=True),
    Column("signature", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)

# Settled batches that were read, and what each did with receipts here: paid them, or took the money without.
batches = Table("batches", metadata, Column("root", LargeBinary, primary_key=True), sqlite_with_rowid=False)
outcomes = Table(
    "outcomes",
    metadata,
    Column("job", LargeBinary, primary_key=True),
    Column("root", LargeBinary, ForeignKey("batches.root", ondelete="CASCADE"), primary_key=True),
    Column("paid", Boolean, nullable=False),
    sqlite_with_rowid=False,
)

# Receipts for which nothing can be had any more, or all was.
closed = Table("closed", metadata, Column("job", LargeBinary, primary_key=True), sqlite_with_rowid=False)
