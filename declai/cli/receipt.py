"""`declai receipt`: what a request cost and who earned it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from declai.chain.index import EventIndex
from declai.chain.pricing import format_credits
from declai.cli.options import network_option, request_digest
from declai.cli.output import emit, fields, json_option, table
from declai.client.aio import chain_of
from declai.client.sync import Client
from declai.errors import ReceiptError
from declai.home import home
from declai.ipfs.exchange import Exchange
from declai.ipfs.store import BlockStore
from declai.network import load


@click.group("receipt")
def command() -> None:
    """Receipts are signed by the nodes that did the work, and settled in batches on chain.

    \b
    declai receipt show 0x...
    declai receipt verify 0x...     # believes the chain and IPFS, nobody else
    """


request_argument = click.argument("request", callback=request_digest)


@command.command()
@request_argument
@network_option
@json_option
def show(request: str, network_path: Path | None, as_json: bool) -> None:
    """Show a request's receipts as the gateway tells them."""
    with Client(load(network_path)) as client:
        found = client.receipts(request)

    def render() -> None:
        fields(
            [
                ("request", found["request"]),
                ("state", found["state"]),
                ("tokens", f"{found.get('num_prompt_tokens')} prompt, {found.get('num_output_tokens')} output"),
                ("cost", f"{format_credits(int(found['cost']))} credits"),
                ("fee", f"{format_credits(int(found['fee']))} credits"),
            ]
        )
        table(["stage", "layers", "node", "credits"], [_row(stage) for stage in found["stages"]], "No receipts.")

    emit(found, as_json, render)


def _row(stage: dict[str, Any]) -> tuple[object, ...]:
    assignment, receipt = stage["assignment"], stage["receipt"]
    layers = f"{assignment['first_layer']}-{assignment['end_layer'] - 1}"
    return stage["stage"], layers, assignment["node"], format_credits(int(receipt["cost"]))


@command.command()
@request_argument
@click.option("--peer", "peers", multiple=True, help="Where to fetch the batch from. [default: the gateway's blocks]")
@network_option
@json_option
def verify(request: str, peers: tuple[str, ...], network_path: Path | None, as_json: bool) -> None:
    """Recompute signatures, inclusion and payment of a settled request; exit 1 when anything does not hold."""
    from declai.protocol.batch_checks import LedgerFacts, verify_request
    from declai.protocol.errors import NotSettled

    network = load(network_path)
    chain = chain_of(network)
    chain.check()
    index = EventIndex(home() / f"index-{network.chain.chain_id}.db", chain)
    exchange = Exchange(store := BlockStore(home() / "blocks"), peers or [network.gateway.url])
    try:
        facts = LedgerFacts(chain.domain, chain.ledger.max_fee_bps(), index.sync())
        verdict = verify_request(request, facts, store, exchange.fetch)
    except NotSettled as error:
        raise ReceiptError(f"{error} Settlement is periodic: try again later, or `declai gateway settle`") from None
    finally:
        exchange.close()
        index.close()
    data = {**vars(verdict), "ok": verdict.ok}

    def render() -> None:
        for line in verdict.checks:
            click.echo(f"{click.style('ok', fg='green')}    {line}")
        for line in verdict.problems:
            click.echo(f"{click.style('WRONG', fg='red')} {line}")
        paid = [(node, f"{format_credits(amount)} credits") for node, amount in verdict.earnings.items()]
        fields(
            [
                ("payer", verdict.payer or "unknown (session closed)"),
                ("charged", f"{format_credits(verdict.cost)} credits"),
                *paid,
                ("fee", f"{format_credits(verdict.fee)} credits"),
                ("block", verdict.block),
                ("batch", verdict.cid),
            ]
        )

    emit(data, as_json, render)
    if not verdict.ok:
        raise ReceiptError(f"{len(verdict.problems)} of the request's checks failed")
