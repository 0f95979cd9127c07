"""`declai session`: budgets that requests are paid from, API keys, and the signing proxy."""

from __future__ import annotations

import time
from pathlib import Path

import click

from declai.chain.parameters import DAY_S
from declai.chain.pricing import format_credits, parse_credits
from declai.cli.options import network_option, wallet_options
from declai.cli.output import emit, fields, json_option, table
from declai.cli.paying import open_paying
from declai.fetch import get_json
from declai.signin import sign_in
from declai.wallets import unlock

days_option = click.option("--days", type=click.IntRange(1, 365), default=30, show_default=True, help="Until it ends.")


@click.group("session")
def command() -> None:
    """Sessions lock a budget for one gateway; each request is signed by the session's key.

    \b
    declai session open --budget 10
    declai session login --budget 5      # an API key for any OpenAI client
    declai session proxy                 # a local OpenAI endpoint that signs every request
    """


@command.command("open")
@click.option("--budget", default="10", show_default=True, help="Credits to lock.")
@days_option
@network_option
@wallet_options
@json_option
def open_(
    budget: str, days: int, network_path: Path | None, wallet_name: str, password_file: Path | None, as_json: bool
) -> None:
    """Lock a budget on chain, with a fresh session key that this machine keeps."""
    units = parse_credits(budget)
    paying = open_paying(network_path, wallet_name, password_file)
    gateway = _gateway(paying.network.gateway.url)["address"]
    record = paying.payer.open_session(units, days * DAY_S, gateway)
    data = {"session": record.id, "gateway": record.gateway, "budget_credits": format_credits(units)}
    emit(data, as_json, lambda: fields(list(data.items())))


@command.command("list")
@network_option
@wallet_options
@json_option
def list_(network_path: Path | None, wallet_name: str, password_file: Path | None, as_json: bool) -> None:
    """List this machine's sessions of the wallet."""
    paying = open_paying(network_path, wallet_name, password_file)
    rows = []
    for record in paying.payer.records():
        state = paying.chain.ledger.session(bytes.fromhex(record.id[2:]))
        status = "closed" if not state.exists else "ended" if state.ends_at <= time.time() else "open"
        rows.append(
            {
                "session": record.id,
                "status": status,
                "budget_credits": format_credits(state.budget if state.exists else record.budget),
                "acknowledged_credits": format_credits(record.spent),
                "settled_credits": format_credits(state.settled),
                "gateway": record.gateway,
            }
        )
    names = ["session", "status", "budget_credits", "acknowledged_credits", "settled_credits"]
    emit(
        rows,
        as_json,
        lambda: table(names, [[row[n] for n in names] for row in rows], "No session yet: declai session open"),
    )


@command.command("top-up")
@click.argument("amount")
@click.option("--session", help="Session id. [default: the newest open one]")
@network_option
@wallet_options
@json_option
def top_up(
    amount: str,
    session: str | None,
    network_path: Path | None,
    wallet_name: str,
    password_file: Path | None,
    as_json: bool,
) -> None:
    """Add AMOUNT credits to a session's budget."""
    paying = open_paying(network_path, wallet_name, password_file)
    record = paying.payer.record(session)
    budget = paying.payer.top_up(record.id, parse_credits(amount))
    data = {"session": record.id, "budget_credits": format_credits(budget)}
    emit(data, as_json, lambda: fields(list(data.items())))


@command.command()
@click.option("--session", help="Session id. [default: the newest open one]")
@network_option
@wallet_options
@json_option
def close(
    session: str | None, network_path: Path | None, wallet_name: str, password_file: Path | None, as_json: bool
) -> None:
    """End a session. After the thaw a second call brings the rest of the budget back."""
    paying = open_paying(network_path, wallet_name, password_file)
    record = paying.payer.record_to_close(session)
    closes_at = paying.payer.close_session(record.id)
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(closes_at))
    data = {"session": record.id, "rest_available_at": closes_at, "local_time": when}
    emit(data, as_json, lambda: fields(list(data.items())))


@command.command()
@click.option("--budget", default="5", show_default=True, help="Credits to lock: the most that the key can spend.")
@days_option
@network_option
@wallet_options
@json_option
def login(
    budget: str, days: int, network_path: Path | None, wallet_name: str, password_file: Path | None, as_json: bool
) -> None:
    """Sign in (EIP-4361) and print an API key for any OpenAI client.

    The gateway signs for such a session: its whole budget is what you trust it with.
    """
    paying = open_paying(network_path, wallet_name, password_file)
    url = paying.network.gateway.url
    info = _gateway(url)
    record = paying.payer.open_session(parse_credits(budget), days * DAY_S, info["address"], key=info["session_key"])
    account = unlock(wallet_name, paying.network, password_file)
    api_key = sign_in(url, account, record.id, paying.chain.deployment.chain_id)
    data = {"api_key": api_key, "base_url": f"{url}/v1", "session": record.id, "budget_credits": budget}
    emit(data, as_json, lambda: fields(list(data.items())))


@command.command()
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True)
@click.option("--session", help="Session id. [default: the newest open one]")
@network_option
@wallet_options
def proxy(
    port: int, session: str | None, network_path: Path | None, wallet_name: str, password_file: Path | None
) -> None:
    """Serve a local OpenAI endpoint that signs every request and checks every receipt. Ctrl-C ends it.

    \b
    declai session proxy --port 8000
    OPENAI_BASE_URL=http://127.0.0.1:8000/v1 OPENAI_API_KEY=unused python my_program.py
    """
    import uvicorn

    from declai.proxy import create_proxy

    app = create_proxy(network_path, wallet_name, password_file, session)
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")


def _gateway(url: str) -> dict[str, str]:
    info: dict[str, str] = get_json(url, "/v1/network")["gateway"]
    return info
