"""`declai node doctor`: what this machine can do as a node, and what keeps it from doing more."""

from __future__ import annotations

import os
import sys
from collections import Counter

import click

from declai.cli.node.settings import node_settings
from declai.cli.options import config_option
from declai.cli.output import emit, json_option
from declai.contributor.doctor import Level, examine
from declai.contributor.doctor.examination import Examined
from declai.errors import DeclaiError
from declai.worker.node.settings import NodeSettings

MARKS = {Level.OK: ("ok", "green"), Level.WARNING: ("warning", "yellow"), Level.PROBLEM: ("problem", "red")}


@click.command()
@config_option
@json_option
def doctor(as_json: bool) -> None:
    """Examine this machine as a node: what it can do, what keeps it from more, and what to do about it.

    Changes nothing, and may be called while the node runs. A node that does not run is asked for at the gateway, as its
    start would. Without settings it looks at the machine alone. Exits with 1 when there is a problem.

    \b
    declai node doctor                          # before anything is set up
    declai node doctor --config node.toml
    declai node doctor --config node.toml --json
    """
    settings, trouble = _settings()
    found: list[Examined] = []
    for examined in examine(settings, trouble):
        found.append(examined)
        if not as_json:
            _print(examined, found[:-1])
    levels = Counter(examined.finding.level for examined in found)
    num_problems, num_warnings = levels[Level.PROBLEM], levels[Level.WARNING]
    data = {
        "problems": num_problems,
        "warnings": num_warnings,
        "checks": [_row(examined) for examined in found],
    }
    summary = f"{_counted(num_problems, 'problem')}, {_counted(num_warnings, 'warning')}"
    emit(data, as_json, lambda: click.echo(f"\n{summary}"))
    if num_problems:
        sys.exit(1)


def _settings() -> tuple[NodeSettings | None, str]:
    """The settings, or what is wrong with them; neither when nobody has named any."""
    if "DECLAI_CONFIG" not in os.environ and "DECLAI_MODEL" not in os.environ:
        return None, ""
    try:
        return node_settings(), ""
    except DeclaiError as error:
        return None, str(error)


def _row(examined: Examined) -> dict[str, str]:
    finding = examined.finding
    return {
        "group": examined.group,
        "name": examined.name,
        "level": str(finding.level),
        "value": finding.value,
        "advice": finding.advice,
    }


def _counted(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def _print(examined: Examined, before: list[Examined]) -> None:
    finding = examined.finding
    mark, colour = MARKS[finding.level]
    value, advice = finding.value, finding.advice
    if advice and finding in [earlier.finding for earlier in before]:  # one cause keeps many checks from knowing
        value, advice = f"{value.partition(':')[0]}, as above", ""
    if not before or before[-1].group != examined.group:
        click.secho(examined.group, bold=True)
    click.echo(f"  {click.style(f'{mark:<8}', fg=colour)} {examined.name.replace('_', ' '):<20} {value}")
    if advice:
        click.echo(f"{'':<32}{advice}")
