"""Groups whose commands are imported when one is used: a command waits for what it needs itself, for nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import click

from declai.extras import require


@dataclass(frozen=True)
class LazyCommand:
    """Its line in the group's help, the module (in the group's package) and the name there, the extra it needs."""

    help: str
    place: str
    extra: str | None = None


class LazyGroup(click.Group):
    """A group of commands by name, in modules of one package."""

    def __init__(self, *arguments: Any, package: str, lazy: Mapping[str, LazyCommand], **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._package = package
        self._lazy = lazy

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._lazy)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Raises MissingExtra when the command's extra is not installed."""
        if (found := self._lazy.get(name)) is None:
            return None
        if found.extra is not None:
            require(found.extra)
        module, attribute = found.place.split(":")
        command: click.Command = getattr(import_module(f"{self._package}.{module}"), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.help) for name, command in self._lazy.items()])
