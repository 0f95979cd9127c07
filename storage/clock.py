"""The database's own clock, as SQL: all who share a database measure by it, whatever their machines' clocks say."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Float
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement


class DatabaseTime(FunctionElement[float]):
    """Unix seconds at the moment of the statement, not of its transaction's begin."""

    type = Float()
    inherit_cache = True


@compiles(DatabaseTime, "sqlite")
def _sqlite(element: DatabaseTime, compiler: Any, **options: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(DatabaseTime, "postgresql")
def _postgresql(element: DatabaseTime, compiler: Any, **options: Any) -> str:
    return "CAST(EXTRACT(EPOCH FROM clock_timestamp()) AS DOUBLE PRECISION)"
