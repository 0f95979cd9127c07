"""Running requests get an owner, rows that hold records their format. Who owned what ran in version 1 is gone."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "processes",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("host", sa.String(255), nullable=False),
        sa.Column("pid", sa.Integer, nullable=False),
        sa.Column("started_at", sa.Float, nullable=False),
        sa.Column("beat_at", sa.Float, nullable=False),
    )
    # In words that SQLite and PostgreSQL share: Alembic adds no foreign key to a table of SQLite's.
    op.execute("ALTER TABLE requests ADD COLUMN owner VARCHAR(32) REFERENCES processes (id) ON DELETE SET NULL")
    owned = sa.text("owner IS NOT NULL")
    op.create_index("requests_by_owner", "requests", ["owner"], sqlite_where=owned, postgresql_where=owned)
    # The records of version 1 are of format 1.
    for table in ("requests", "stages"):
        op.add_column(table, sa.Column("format", sa.SmallInteger, nullable=False, server_default="1"))
    # Release 0.1.0 looks here, and refuses a database with another version than its own.
    op.execute("UPDATE schema_version SET version = 2")
