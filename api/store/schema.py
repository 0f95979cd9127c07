"""The tables. Amounts are decimal strings: SQL's numbers do not hold 128 bits exactly everywhere."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from declai.storage.migrations import Migrations

metadata = MetaData()
MIGRATIONS = Migrations("gateway", "declai.api.store:migrations", version=2)
# The widest integer that SQL keeps exactly: nonces above it are refused before they get here.
MAX_INTEGER = 2**63 - 1

# Release 0.1.0 looks here, and refuses a database of another version than its own.
first_release_versions = Table("schema_version", metadata, Column("version", Integer, primary_key=True))

# Gateway processes, for as long as they live: `id` is drawn at random, times are by the database's clock.
processes = Table(
    "processes",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("host", String(255), nullable=False),
    Column("pid", Integer, nullable=False),
    Column("started_at", Float, nullable=False),
    Column("beat_at", Float, nullable=False),
)

# What a session's requests cost so far. `acked_*` follow the payer's newest acknowledgement.
sessions = Table(
    "sessions",
    metadata,
    Column("session", String(66), primary_key=True),
    Column("finished_total", String(40), nullable=False, default="0"),
    Column("acked_below", BigInteger, nullable=False, default=0),
    Column("acked_spent", String(40), nullable=False, default="0"),
)

batches = Table(
    "batches",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("state", String(12), nullable=False),
    Column("root", String(66), nullable=False, unique=True),
    Column("cid", String(100), nullable=False),
    Column("call_data", Text, nullable=False),
    Column("transactions", Text, nullable=False, default="[]"),
    Column("created_at", Float, nullable=False),
    Column("confirmed_block", BigInteger),
)

OWNED = text("owner IS NOT NULL")

requests = Table(
    "requests",
    metadata,
    Column("request", String(66), primary_key=True),
    Column("session", String(66), nullable=False),
    Column("nonce", BigInteger, nullable=False),
    Column("message", Text, nullable=False),
    Column("signature", String(132), nullable=False),
    Column("state", String(10), nullable=False),
    Column("max_cost", String(40), nullable=False),
    Column("cost", String(40)),
    Column("fee", String(40)),
    Column("finish_reason", String(20)),
    Column("num_prompt_tokens", Integer),
    Column("num_output_tokens", Integer),
    Column("error", Text),
    Column("created_at", Float, nullable=False),
    Column("finished_at", Float),
    Column("batch", Integer, ForeignKey("batches.id")),
    Column("excluded", Boolean, nullable=False, default=False),
    # The process that serves a running request. One that ended has none; one that runs without is abandoned.
    Column("owner", String(32), ForeignKey("processes.id", ondelete="SET NULL")),
    # Of `message` (storage/forms.py).
    Column("format", SmallInteger, nullable=False, server_default="1"),
    # The durable guard against replays: a session's nonce is used once.
    UniqueConstraint("session", "nonce"),
    Index("requests_by_batch", "batch", "state"),
    Index("requests_by_owner", "owner", sqlite_where=OWNED, postgresql_where=OWNED),
)

stages = Table(
    "stages",
    metadata,
    Column("request", String(66), ForeignKey("requests.request"), primary_key=True),
    Column("stage", Integer, primary_key=True),
    Column("node", String(42), nullable=False),
    Column("assignment", Text, nullable=False),
    Column("assignment_signature", String(132), nullable=False),
    Column("receipt", Text, nullable=False),
    Column("receipt_signature", String(132), nullable=False),
    Column("records", LargeBinary, nullable=False),
    Column("cost", String(40), nullable=False),
    # Of `assignment` and `receipt` (storage/forms.py).
    Column("format", SmallInteger, nullable=False, server_default="1"),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("key_hash", String(64), primary_key=True),
    Column("session", String(66), nullable=False),
    Column("payer", String(42), nullable=False),
    Column("expires_at", Float, nullable=False),
    Column("revoked", Boolean, nullable=False, default=False),
)

signin_nonces = Table(
    "signin_nonces",
    metadata,
    Column("nonce", String(64), primary_key=True),
    Column("expires_at", Float, nullable=False),
)
