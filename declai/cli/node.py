"""`declai node`: a contributor's machine."""

from __future__ import annotations

import json
import subprocess
import sys

import click

from declai.cli.output import emit, fields, json_option
from declai.errors import DeclaiError


@click.group("node")
def command() -> None:
    """Settings come from DECLAI_* variables or the TOML file that DECLAI_CONFIG names (docs/contributors.md)."""


@command.command()
def start() -> None:
    """Serve the layers that this node offers on chain, until SIGTERM or Ctrl-C."""
    sys.exit(subprocess.call([sys.executable, "-m", "worker.node"]))


@command.command()
@json_option
def status(as_json: bool) -> None:
    """Show how the node on this machine is."""
    from worker.settings import NodeSettings

    path = NodeSettings().status_file  # type: ignore[call-arg]
    try:
        data = json.loads(path.read_text())
    except OSError:
        raise DeclaiError(f"no node runs with these settings: {path} is not there") from None
    except ValueError:
        raise DeclaiError(f"{path} is damaged: is the node still running?") from None
    emit(data, as_json, lambda: fields(list(data.items())))
