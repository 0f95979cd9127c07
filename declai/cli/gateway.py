"""`declai gateway`: the entry point of a region."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import click
import httpx
from pydantic import ValidationError

from declai.chain.pricing import format_credits
from declai.chain.settings import explain
from declai.children import spawn
from declai.cli.options import config_option, network_option
from declai.cli.output import emit, fields, json_option, table
from declai.errors import ApiError, DeclaiError
from declai.extras import require
from declai.fetch import get_json
from declai.network import default_path, load

if TYPE_CHECKING:
    from declai.api.settings import GatewaySettings

GRACE_S = 15.0


@click.group("gateway")
def command() -> None:
    """Settings come from DECLAI_* variables and a TOML file (docs/gateways.md).

    \b
    declai gateway start --config gateway.toml
    declai gateway settle            # of the local devnet, or of the settings given
    declai gateway collect           # the fees, into the operator's balance
    """


@command.command()
@config_option
def start() -> None:
    """Run the gateway: its HTTP server, its settlement worker and the clock of that. Ctrl-C ends them."""
    require("gateway")

    settings = _settings()
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    logs = settings.data_dir / "logs"
    celery = [sys.executable, "-m", "celery", "-A", "declai.api.settlement.periodic"]
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    children = [
        spawn("settlement", [*celery, "worker", "-P", "solo", *quiet], logs / "settlement.log"),
        # Not the worker's -B: the process that it forks outlives a worker that is killed.
        spawn("beat", [*celery, "beat"], logs / "beat.log"),
        spawn("server", [sys.executable, "-m", "declai.api.serve"], logs / "server.log"),
    ]
    click.echo(f"gateway at {settings.public_url}, logs in {logs}", err=True)

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    try:
        while all(child.alive for child in children):
            time.sleep(0.2)
    except KeyboardInterrupt:
        return
    finally:
        for child in reversed(children):
            child.stop(GRACE_S)
    ended = next(child for child in children if child.popen.returncode != 0)
    raise ApiError(f"the {ended.name} ended:\n{ended.log_tail()}")


@command.command()
@network_option
@json_option
def status(network_path: Path | None, as_json: bool) -> None:
    """Ask a gateway how it is."""
    url = load(network_path).gateway.url
    info = get_json(url, "/v1/network")
    data = {"url": url, "ready": httpx.get(f"{url}/readyz", timeout=10).status_code == 200, **info}
    flat = [(k, v) for k, v in data.items() if not isinstance(v, dict | list)]
    emit(data, as_json, lambda: fields([*flat, *info["gateway"].items()]))


@command.command()
@config_option
@network_option
@json_option
def settle(network_path: Path | None, as_json: bool) -> None:
    """Settle all durable receipts now, and print the batches. Run it where the gateway's settings are."""
    require("gateway")
    from declai.api.settlement.periodic import run_settlement

    _use_settings_beside(network_path)
    rows = run_settlement(_settings())
    columns = ["batch", "block", "gas_used", "transaction", "cid"]
    emit(rows, as_json, lambda: table(columns, [[row[c] for c in columns] for row in rows], "Nothing to settle."))


@command.command()
@config_option
@network_option
@json_option
def collect(network_path: Path | None, as_json: bool) -> None:
    """Move the gateway's fees into its operator's balance on the ledger. Run it where the gateway's settings are."""
    require("gateway")
    from declai.api.settlement.periodic import collect_fees

    _use_settings_beside(network_path)
    amount = collect_fees(_settings())
    text = f"{format_credits(amount)} credits collected" if amount else "Nothing to collect."
    emit({"collected": str(amount)}, as_json, lambda: click.echo(text))


def _settings() -> GatewaySettings:
    from declai.api.settings import GatewaySettings

    try:
        return GatewaySettings()
    except ValidationError as error:
        raise DeclaiError(
            f"these are no settings of a gateway ({explain(error)}): name its file with --config"
        ) from None


def _use_settings_beside(network_path: Path | None) -> None:
    """The settings of a devnet lie beside its network file."""
    beside = (network_path or default_path()).with_name("gateway.toml")
    if "DECLAI_CONFIG" not in os.environ and beside.exists():
        os.environ["DECLAI_CONFIG"] = str(beside)
    logging.basicConfig(level=logging.WARNING)
