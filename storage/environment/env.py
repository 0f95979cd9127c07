"""Alembic runs this file once an upgrade: the steps use the connection, and the transaction, of whoever asked."""

from __future__ import annotations

from alembic import context

given = context.config.attributes
context.configure(connection=given["connection"], version_table=given["version_table"])
context.run_migrations()
