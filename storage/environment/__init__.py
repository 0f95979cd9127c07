"""What Alembic needs to find around the steps of any of our databases."""
