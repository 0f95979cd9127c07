"""`declai chat`: ask, and read the answer as it is made."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import click

from declai.cli.options import network_option, wallet_options
from declai.cli.output import emit, json_option
from declai.client.sync import Client
from declai.client.types import Delta
from declai.errors import DeclaiError, SessionError
from declai.network import Network, load


@click.command("chat")
@click.argument("prompt", required=False)
@click.option("--model", help="Model name. [default: the network's]")
@click.option("--max-tokens", type=click.IntRange(1), default=256, show_default=True)
@click.option("--temperature", type=click.FloatRange(0, 2), default=0.7, show_default=True)
@click.option("--seed", type=click.IntRange(0), help="The same seed gives the same answer.")
@click.option(
    "--tier", type=click.Choice(["research", "production", "realtime"]), default="research", show_default=True
)
@click.option("--api-key", envvar="DECLAI_API_KEY", help="Pay with an API key instead of a signing session.")
@network_option
@wallet_options
@json_option
def command(
    prompt: str | None,
    network_path: Path | None,
    wallet_name: str,
    password_file: Path | None,
    api_key: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Ask a model and stream its answer; without PROMPT, talk with it until Ctrl-D.

    Requests are signed with the wallet's newest session (`declai session open`), or paid by API key.

    \b
    declai chat "What is a list?"
    declai chat "Explain decorators" --temperature 0 --json
    """
    network = load(network_path)
    with _client(network, wallet_name, password_file, api_key) as client:
        if prompt is not None:
            _answer(client, [{"role": "user", "content": prompt}], options, as_json)
        else:
            _converse(client, options)


def _client(network: Network, wallet: str, password_file: Path | None, api_key: str | None) -> Client:
    """A client that signs when this machine has a session, else one with the network file's API key."""
    if api_key is None and network.api_key:
        with Client(network, wallet=wallet, password_file=password_file) as probe:
            if not any(not session.closed for session in probe.sessions()):
                api_key = network.api_key
                click.secho(
                    "no open session on this machine: paying with the network file's API key, whose whole budget the "
                    "gateway could spend (`declai session open` is safer)",
                    dim=True,
                    err=True,
                )
    return Client(network, wallet=wallet, password_file=password_file, api_key=api_key)


def _answer(client: Client, messages: list[dict[str, str]], options: dict[str, Any], as_json: bool) -> str:
    started, first, text = time.monotonic(), None, ""
    last: Delta | None = None
    for delta in client.stream(messages, **options):
        if delta.text and first is None:
            first = time.monotonic() - started
        text += delta.text
        last = delta
        if not as_json:
            click.echo(delta.text, nl=False)
            sys.stdout.flush()
    if last is None or last.usage is None:
        raise DeclaiError("the answer ended without its usage")
    seconds = time.monotonic() - started
    usage = last.usage
    data = {
        "text": text,
        "finish_reason": last.finish_reason,
        "request": last.request,
        "usage": usage.model_dump(),
        "seconds_to_first_token": first,
        "seconds": seconds,
    }
    emit(data, as_json, lambda: click.echo(""))
    if not as_json:
        speed = usage.completion_tokens / seconds if seconds else 0.0
        click.secho(
            f"[{usage.completion_tokens} tokens, {speed:.1f} tokens/s, {usage.cost_credits} credits, "
            f"request {last.request}]",
            dim=True,
            err=True,
        )
    return text


def _converse(client: Client, options: dict[str, Any]) -> None:
    messages: list[dict[str, str]] = []
    while True:
        try:
            messages.append({"role": "user", "content": click.prompt("you", prompt_suffix="> ", err=True)})
        except click.Abort:
            click.echo("", err=True)
            return
        try:
            messages.append({"role": "assistant", "content": _answer(client, messages, options, as_json=False)})
        except SessionError:
            raise
        except DeclaiError as error:
            messages.pop()
            click.secho(f"Error: {error}", fg="red", err=True)
