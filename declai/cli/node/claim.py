"""`declai node claim`: what the chain owes a node, and the way to get it. Safe at any time, any number of times."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from api.settlement.verify import read_batch
from chain.client import Chain
from chain.errors import ChainError
from chain.fields import to_hex
from chain.index import EventIndex
from chain.pricing import format_credits
from chain.state import Batch
from declai.cli.node.operating import Operating, open_operating
from declai.cli.options import config_option, network_option, operator_options, request_digest
from declai.cli.output import emit, json_option, table
from declai.contributor.batches import note_batches, receipts_here
from declai.contributor.claims import Collector, Owed, Status, Survey, close_what_is_over
from declai.contributor.operator import local_time
from declai.errors import DeclaiError
from declai.home import home
from declai.network import default_path
from declai.wallets import unlock
from ipfs.exchange import Exchange
from ipfs.store import BlockStore
from worker.store import NodeStore


@click.command()
@click.option(
    "--request", "requests", multiple=True, callback=request_digest, help="This request alone; may be repeated."
)
@click.option("--dry-run", is_flag=True, help="List what is owed and what would be done. Needs no password.")
@click.option(
    "--even-unread",
    is_flag=True,
    help="Also claim what a batch that nobody can read may have paid: a bond is lost for each that it did.",
)
@config_option
@network_option
@operator_options
@json_option
def claim(
    requests: tuple[str, ...],
    dry_run: bool,
    even_unread: bool,
    network_path: Path | None,
    wallet_name: str,
    password_file: Path | None,
    as_json: bool,
) -> None:
    """Take what gateways did not settle: list it, claim it, and see the claims through.

    Each call takes the steps that are due: opens a direct claim on the payer's session for a receipt that no batch paid
    in time, gets claims paid whose window is over, challenges a gateway that accepted a receipt and left it out, and
    decides challenges that nobody answered. A claim's bond comes from the operator's ledger balance, a challenge's from
    the wallet; both come back with the money. The wallet is the operator's, or the node's signer.

    \b
    declai node claim --config node.toml --wallet operator --dry-run
    7 * * * *  declai node claim --config node.toml --wallet operator --password-file password
    """
    operating = open_operating(network_path, wallet_name, password_file)
    operator = _operator_of(operating)
    with _open_store(network_path, wallet_name) as (store, peers):
        unreadable = _note_batches(operating, store, operator, peers)
        survey = Survey(operating.chain, unreadable, believe_unread=even_unread)
        kept = receipts_here(store, operating.chain.domain, operator)
        found = [survey.judge(one) for one in kept if not requests or to_hex(one.job.request_digest) in requests]
        results: list[dict[str, Any]] = [{}] * len(found)
        collected = 0
        if not dry_run and (any(owed.step for owed in found) or operating.chain.court.balance_of(operating.address)):
            collector = Collector(operating.chain, unlock(wallet_name, operating.network, password_file))
            results = [_take(collector, owed) for owed in found]
            collected = collector.collect()
        if not dry_run:
            close_what_is_over(store, survey, found)
    _print(operator, found, results, collected, unreadable, as_json)
    failed = [result["error"] for result in results if "error" in result]
    if failed:
        raise DeclaiError(
            f"{len(failed)} of {sum(bool(owed.step) for owed in found)} steps failed, the first: {failed[0]}"
        )


def _operator_of(operating: Operating) -> str:
    """The operator that the wallet acts for; one that deregistered can still see its claims through."""
    operator = operating.chain.nodes.operator_of(operating.address)
    if int(operator, 16):
        return operator
    if not operating.chain.nodes.node(operating.address).term:
        raise DeclaiError(
            f"{operating.address} is neither operator nor signer of a node: name the wallet of one with --wallet"
        )
    return operating.address


@contextmanager
def _open_store(network_path: Path | None, wallet: str) -> Iterator[tuple[NodeStore, tuple[str, ...]]]:
    """The node's store and the IPFS peers of its settings. A devnet's settings lie beside its network file."""
    from worker.settings import NodeSettings

    beside = (network_path or default_path()).with_name(f"{wallet}.toml")
    if "DECLAI_CONFIG" not in os.environ and beside.exists():
        os.environ["DECLAI_CONFIG"] = str(beside)
    try:
        settings = NodeSettings()
    except ValueError as error:
        raise DeclaiError(f"these are no settings of a node: name its file with --config. {error}") from None
    path = settings.data_dir / "node.db"
    if not path.exists():
        raise DeclaiError(f"no receipts at {path}: is --config the file that the node runs with?")
    store = NodeStore(path)
    try:
        yield store, settings.ipfs_peers
    finally:
        store.close()


def _note_batches(operating: Operating, store: NodeStore, operator: str, peers: Sequence[str]) -> list[Batch]:
    """Learn which receipts batches paid; returns the batches that nobody gives out now."""
    chain = operating.chain
    index = EventIndex(home() / f"index-{operating.network.chain.chain_id}.db", chain)
    blocks = BlockStore(home() / "blocks")
    exchange = Exchange(blocks, [*_gateway_urls(chain, store, operator), *peers])
    try:
        return note_batches(
            store, index.sync(), chain.domain, operator, lambda batch: read_batch(batch, blocks, exchange.fetch)
        )
    finally:
        exchange.close()
        index.close()


def _gateway_urls(chain: Chain, store: NodeStore, operator: str) -> list[str]:
    gateways = {kept.job.gateway.address for kept in receipts_here(store, chain.domain, operator)}
    return [url for gateway in sorted(gateways) if (url := chain.nodes.node(gateway).url)]


def _take(collector: Collector, owed: Owed) -> dict[str, Any]:
    """What came of a receipt's step; one that fails must not hold the others up."""
    if owed.step is None:
        return {}
    try:
        return {"transaction": to_hex(collector.take(owed))}
    except (ChainError, DeclaiError) as error:
        return {"error": str(error)}


def _print(
    operator: str,
    found: Sequence[Owed],
    results: Sequence[dict[str, Any]],
    collected: int,
    unreadable: Sequence[Batch],
    as_json: bool,
) -> None:
    shown = [(owed, result) for owed, result in zip(found, results, strict=True) if owed.status is not Status.ENDED]
    data = {
        "operator": operator,
        "owed": [_row(owed) | result for owed, result in shown],
        "collected_units": str(collected),
        "unread_batches": [to_hex(batch.root) for batch in unreadable],
    }

    def render() -> None:
        rows = [_cells(owed, result) for owed, result in shown]
        table(["request", "credits", "status", "when", "step", "bond", ""], rows, "Nothing is owed.")
        if collected:
            click.echo(f"{format_credits(collected)} credits came from the court")
        if unreadable:
            click.secho(f"{len(unreadable)} batches cannot be read now: try again later", fg="yellow", err=True)

    emit(data, as_json, render)


def _row(owed: Owed) -> dict[str, Any]:
    job = owed.kept.job
    return {
        "request": to_hex(job.request_digest),
        "receipt": to_hex(owed.receipt),
        "assignment": to_hex(job.assignment_digest),
        "session": to_hex(job.request.session),
        "gateway": job.gateway.address,
        "cost_units": str(owed.cost),
        "accepted": owed.kept.acceptance is not None,
        "status": owed.status,
        "at": owed.at,
        "step": owed.step,
        "bond_units": str(owed.bond),
    }


def _cells(owed: Owed, result: dict[str, Any]) -> tuple[object, ...]:
    when = local_time(owed.at) if owed.at else "-"
    bond = format_credits(owed.bond) if owed.bond else "-"
    outcome = result.get("error") or ("done" if "transaction" in result else "")
    step = owed.step.replace("_", " ") if owed.step else "-"
    request = to_hex(owed.kept.job.request_digest)
    return request, format_credits(owed.cost), owed.status, when, step, bond, outcome
