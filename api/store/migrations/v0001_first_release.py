"""The tables as release 0.1.0 made them, without a version of Alembic's: where it ran, they are there."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    versions = op.create_table("schema_version", sa.Column("version", sa.Integer, primary_key=True), if_not_exists=True)
    if not op.get_bind().execute(sa.select(versions)).all():
        op.bulk_insert(versions, [{"version": 1}])
    op.create_table(
        "sessions",
        sa.Column("session", sa.String(66), primary_key=True),
        sa.Column("finished_total", sa.String(40), nullable=False),
        sa.Column("acked_below", sa.BigInteger, nullable=False),
        sa.Column("acked_spent", sa.String(40), nullable=False),
        if_not_exists=True,
    )
    op.create_table(
        "batches",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("state", sa.String(12), nullable=False),
        sa.Column("root", sa.String(66), nullable=False, unique=True),
        sa.Column("cid", sa.String(100), nullable=False),
        sa.Column("call_data", sa.Text, nullable=False),
        sa.Column("transactions", sa.Text, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("confirmed_block", sa.BigInteger),
        if_not_exists=True,
    )
    op.create_table(
        "requests",
        sa.Column("request", sa.String(66), primary_key=True),
        sa.Column("session", sa.String(66), nullable=False),
        sa.Column("nonce", sa.BigInteger, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("signature", sa.String(132), nullable=False),
        sa.Column("state", sa.String(10), nullable=False),
        sa.Column("max_cost", sa.String(40), nullable=False),
        sa.Column("cost", sa.String(40)),
        sa.Column("fee", sa.String(40)),
        sa.Column("finish_reason", sa.String(20)),
        sa.Column("num_prompt_tokens", sa.Integer),
        sa.Column("num_output_tokens", sa.Integer),
        sa.Column("error", sa.Text),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("finished_at", sa.Float),
        sa.Column("batch", sa.Integer, sa.ForeignKey("batches.id")),
        sa.Column("excluded", sa.Boolean, nullable=False),
        sa.UniqueConstraint("session", "nonce"),
        if_not_exists=True,
    )
    op.create_index("requests_by_batch", "requests", ["batch", "state"], if_not_exists=True)
    op.create_table(
        "stages",
        sa.Column("request", sa.String(66), sa.ForeignKey("requests.request"), primary_key=True),
        sa.Column("stage", sa.Integer, primary_key=True),
        sa.Column("node", sa.String(42), nullable=False),
        sa.Column("assignment", sa.Text, nullable=False),
        sa.Column("assignment_signature", sa.String(132), nullable=False),
        sa.Column("receipt", sa.Text, nullable=False),
        sa.Column("receipt_signature", sa.String(132), nullable=False),
        sa.Column("records", sa.LargeBinary, nullable=False),
        sa.Column("cost", sa.String(40), nullable=False),
        if_not_exists=True,
    )
    op.create_table(
        "api_keys",
        sa.Column("key_hash", sa.String(64), primary_key=True),
        sa.Column("session", sa.String(66), nullable=False),
        sa.Column("payer", sa.String(42), nullable=False),
        sa.Column("expires_at", sa.Float, nullable=False),
        sa.Column("revoked", sa.Boolean, nullable=False),
        if_not_exists=True,
    )
    op.create_table(
        "signin_nonces",
        sa.Column("nonce", sa.String(64), primary_key=True),
        sa.Column("expires_at", sa.Float, nullable=False),
        if_not_exists=True,
    )
