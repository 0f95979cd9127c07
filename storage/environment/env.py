"""Alembic runs this file once an upgrade: the steps use the connection, and the transaction, of whoever asked."""

from __future__ import annotations

from alembic import context

context.configure(connection=context.config.attributes["connection"])
context.run_migrations()
