"""`declai credits`: a wallet's money, on the token and in the ledger."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from declai.chain.contracts.binding import Call
from declai.chain.fields import to_hex
from declai.chain.pricing import format_credits, parse_credits
from declai.chain.sender import TransactionSender
from declai.cli.options import address_argument, network_option, wallet_options
from declai.cli.output import emit, fields, json_option
from declai.cli.paying import Paying, open_paying
from declai.wallets import unlock


@click.group("credits")
def command() -> None:
    """Credits: free ones in a wallet, a balance in the ledger, budgets locked in sessions.

    \b
    declai credits balance
    declai credits deposit 10
    declai credits send 0x... 2.5
    """


def _done(what: str, amount: int, receipt: Any, as_json: bool) -> None:
    data = {
        "action": what,
        "amount_units": str(amount),
        "amount_credits": format_credits(amount),
        "transaction": to_hex(bytes(receipt["transactionHash"])),
        "gas_used": receipt["gasUsed"],
    }
    emit(data, as_json, lambda: fields(list(data.items())))


def _send(paying: Paying, wallet: str, password_file: Path | None, call: Call) -> Any:
    return TransactionSender(paying.chain, unlock(wallet, paying.network, password_file)).send(call)


@command.command()
@network_option
@wallet_options
@json_option
def balance(network_path: Path | None, wallet_name: str, password_file: Path | None, as_json: bool) -> None:
    """Show what a wallet owns. Needs no password."""
    paying = open_paying(network_path, wallet_name, password_file)
    address = paying.payer.address
    free, kept = paying.chain.token.balance_of(address), paying.chain.ledger.balance_of(address)
    states = [(r, paying.chain.ledger.session(bytes.fromhex(r.id[2:]))) for r in paying.payer.records()]
    locked = sum(state.budget - state.settled for _, state in states)
    data = {
        "address": address,
        "wallet_credits": format_credits(free),
        "ledger_credits": format_credits(kept),
        "sessions_credits": format_credits(locked),
        "wallet_units": str(free),
        "ledger_units": str(kept),
        "sessions_units": str(locked),
    }
    emit(data, as_json, lambda: fields([(k, v) for k, v in data.items() if not k.endswith("_units")]))


@command.command()
@click.argument("amount")
@network_option
@wallet_options
@json_option
def deposit(
    amount: str, network_path: Path | None, wallet_name: str, password_file: Path | None, as_json: bool
) -> None:
    """Move AMOUNT credits from the wallet into the ledger, where sessions are paid from."""
    units = parse_credits(amount)
    receipt = open_paying(network_path, wallet_name, password_file).payer.deposit(units)
    _done("deposit", units, receipt, as_json)


@command.command()
@click.argument("amount")
@network_option
@wallet_options
@json_option
def withdraw(
    amount: str, network_path: Path | None, wallet_name: str, password_file: Path | None, as_json: bool
) -> None:
    """Move AMOUNT credits from the ledger back into the wallet."""
    units = parse_credits(amount)
    paying = open_paying(network_path, wallet_name, password_file)
    receipt = _send(paying, wallet_name, password_file, paying.chain.ledger.withdraw(units))
    _done("withdraw", units, receipt, as_json)


@command.command()
@address_argument("address")
@click.argument("amount")
@network_option
@wallet_options
@json_option
def send(
    address: str, amount: str, network_path: Path | None, wallet_name: str, password_file: Path | None, as_json: bool
) -> None:
    """Send AMOUNT free credits of the wallet to ADDRESS."""
    units = parse_credits(amount)
    paying = open_paying(network_path, wallet_name, password_file)
    receipt = _send(paying, wallet_name, password_file, paying.chain.token.transfer(address, units))
    _done("send", units, receipt, as_json)
