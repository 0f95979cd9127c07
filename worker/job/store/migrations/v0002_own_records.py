"""A receipt's row holds what a claim shows, in forms of the store's own; version 1 kept the task as it came.

Of the task's options, neighbours and prompt nothing stays. Release 0.1.0 cannot open the new table: it looks for the
column `acknowledged`, which is called `delivered` now.
"""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

BATCH = 500


def upgrade() -> None:
    db = op.get_bind()
    op.drop_index("unacknowledged")
    op.rename_table("receipts", "receipts_1")
    receipts = op.create_table(
        "receipts",
        sa.Column("job", sa.LargeBinary, primary_key=True),
        sa.Column("format", sa.SmallInteger, nullable=False),
        sa.Column("chain_id", sa.Integer, nullable=False),
        sa.Column("ledger", sa.String(42), nullable=False),
        sa.Column("request", sa.Text, nullable=False),
        sa.Column("request_signature", sa.LargeBinary, nullable=False),
        sa.Column("assignment", sa.Text, nullable=False),
        sa.Column("assignment_signature", sa.LargeBinary, nullable=False),
        sa.Column("receipt", sa.Text, nullable=False),
        sa.Column("receipt_signature", sa.LargeBinary, nullable=False),
        sa.Column("records", sa.LargeBinary, nullable=False),
        sa.Column("num_stages", sa.Integer, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("model_name", sa.Text, nullable=False),
        sa.Column("manifest_cid", sa.Text, nullable=False),
        sa.Column("gateway", sa.String(42), nullable=False),
        sa.Column("gateway_link_key", sa.LargeBinary, nullable=False),
        sa.Column("gateway_endpoint", sa.Text, nullable=False),
        sa.Column("cost", sa.String(40), nullable=False),
        sa.Column("stored_at", sa.Integer, nullable=False),
        sa.Column("delivered", sa.Boolean, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("receipts_undelivered", "receipts", ["stored_at"], sqlite_where=sa.text("NOT delivered"))
    # Not all at once: a node may have years of them.
    some = sa.text("SELECT * FROM receipts_1 WHERE job > :last ORDER BY job LIMIT :count")
    last = b""
    while rows := db.execute(some, {"last": last, "count": BATCH}).all():
        db.execute(sa.insert(receipts), [readable_row(row) for row in rows])
        last = rows[-1].job
    op.drop_table("receipts_1")


def readable_row(row: sa.Row[Any]) -> dict[str, Any]:
    """Column values of a row of version 1. Raises ValueError, naming the row."""
    try:
        return new_row(row)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"table receipts, job 0x{row.job.hex()}: {type(error).__name__}: {error}") from error


def new_row(row: sa.Row[Any]) -> dict[str, Any]:
    """Column values of a row of version 1, whose messages are as format 1 has them."""
    task, signed = json.loads(row.task), json.loads(row.receipt)
    return {
        "job": row.job,
        "format": 1,
        "chain_id": task["chain_id"],
        "ledger": task["ledger"],
        "request": compact(task["request"]),
        "request_signature": unhex(task["request_signature"]),
        "assignment": compact(task["assignment"]),
        "assignment_signature": unhex(task["assignment_signature"]),
        "receipt": compact(signed["receipt"]),
        "receipt_signature": unhex(signed["signature"]),
        "records": unhex(signed["records"]),
        "num_stages": task["num_stages"],
        "attempt": task["attempt"],
        "model_name": task["model_name"],
        "manifest_cid": task["manifest_cid"],
        "gateway": task["gateway"]["address"],
        "gateway_link_key": unhex(task["gateway"]["link_key"]),
        "gateway_endpoint": task["gateway"]["endpoint"],
        "cost": row.cost,
        "stored_at": row.stored_at,
        "delivered": bool(row.acknowledged),
    }


def compact(fields: dict[str, Any]) -> str:
    return json.dumps(fields, separators=(",", ":"))


def unhex(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))
