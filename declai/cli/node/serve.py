"""`declai node start` and `status`: the serving process."""

from __future__ import annotations

import json
import os
import sys

import click

from declai.cli.node.settings import node_settings
from declai.cli.options import config_option
from declai.cli.output import emit, fields, json_option
from declai.errors import DeclaiError
from declai.worker.node.living import illness


@click.command()
@config_option
def start() -> None:
    """Serve the layers that this node offers on chain, until SIGTERM or Ctrl-C."""
    # In this process's place: whoever knows its pid can signal the node itself.
    os.execv(sys.executable, [sys.executable, "-m", "declai.worker.node"])  # noqa: S606


@click.command()
@click.option(
    "--max-age", type=click.FloatRange(1), help="Fail when the node is not well, or silent for so many seconds."
)
@config_option
@json_option
def status(max_age: float | None, as_json: bool) -> None:
    """Show how the node on this machine is.

    The node writes it once a second. With --max-age it fits a health check: exit 1 when the node is gone, hangs,
    or has been starting for ten minutes.

    \b
    declai node status --config node.toml
    declai node status --config node.toml --max-age 30
    """
    path = node_settings().status_file
    try:
        data = json.loads(path.read_text())
    except OSError:
        raise DeclaiError(f"no node runs with these settings: {path} is not there") from None
    except ValueError:
        raise DeclaiError(f"{path} is damaged: is the node still running?") from None
    if max_age is not None and (what := illness(data, max_age)):
        raise DeclaiError(f"{what} ({path})")
    emit(data, as_json, lambda: fields(list(data.items())))
