"""How commands print: tables for people, JSON for scripts, errors on stderr."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click
from pydantic import BaseModel
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


def json_option(function: Decorated) -> Decorated:
    """`--json` on whatever prints data."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")(function)


def plain(value: Any) -> Any:
    """`value` in JSON's types; integers that JavaScript would round become strings, bytes hexadecimal."""
    if isinstance(value, BaseModel):
        return plain(value.model_dump(mode="json"))
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, bytes):
        return "0x" + value.hex()
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 2**53:
        return str(value)
    return value


def emit(data: Any, as_json: bool, render: Callable[[], None]) -> None:
    """Print `data` as JSON, or call `render` to print it for a person."""
    if as_json:
        click.echo(json.dumps(plain(data), indent=2))
    else:
        render()


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], empty: str) -> None:
    """Print rows under headings; `empty` when there is none."""
    if not rows:
        click.echo(empty)
        return
    grid = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        grid.add_column(column, overflow="fold")
    for row in rows:
        grid.add_row(*[str(cell) for cell in row])
    # A pipe has no width: let no column be cut there.
    console = Console(width=None if sys.stdout.isatty() else 400, highlight=False, markup=False)
    console.print(grid)


def fields(pairs: Sequence[tuple[str, object]]) -> None:
    """Print one thing: a name and a value a line, values aligned."""
    width = max(len(name) for name, _ in pairs) + 2
    for name, value in pairs:
        click.echo(f"{name:<{width}}{_readable(value)}")


def _readable(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_readable, value)) or "-"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_readable(item)}" for key, item in value.items()) or "-"
    return str(value)


def bytes_progress() -> Progress:
    """A progress bar in bytes, on stderr so that output can be piped."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())


def steps_progress() -> Progress:
    """A progress bar in steps, on stderr; none in pipes."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())


def report_failure(error: Exception) -> None:
    """One line that says what was wrong; the traceback only when DECLAI_DEBUG is set."""
    if os.environ.get("DECLAI_DEBUG"):
        traceback.print_exception(error)
    text = str(error) or type(error).__name__
    click.echo(f"{click.style('Error:', fg='red')} {text}", err=True)
