"""`declai node claim`: what the chain owes a node, and the way to get it. Safe at any time, any number of times."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import click
from web3.exceptions import Web3Exception

from declai.chain.client import Deployment
from declai.chain.errors import ChainError
from declai.chain.fields import to_hex
from declai.chain.index import EventIndex
from declai.chain.state import SettledBatch
from declai.cli.node.operating import Operating, open_operating
from declai.cli.node.owed import REQUEST_DIGITS, ClaimOutcome, Outcome, Report
from declai.cli.node.settings import node_settings
from declai.cli.options import config_option, network_option, operator_options
from declai.cli.output import json_option
from declai.contributor.batches import note_batches, receipts_here
from declai.contributor.claims import Collector, Owed, Status, Survey, close_what_is_over
from declai.errors import DeclaiError
from declai.home import home
from declai.ipfs.exchange import Exchange
from declai.ipfs.store import BlockStore
from declai.network import default_path
from declai.protocol.batch_checks import read_batch
from declai.wallets import unlock
from declai.worker.errors import StoreTooOld
from declai.worker.job.store import NodeStore, StoredReceipt
from declai.worker.node.living import OLDER_NODE_RUNS, living_node
from declai.worker.node.settings import NodeSettings

PEER_TIMEOUT_S = 10.0  # gateways that are gone are what this command is for


def _beginnings(ctx: click.Context, parameter: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    for text in value:
        if not re.fullmatch(rf"0x[0-9a-fA-F]{{{REQUEST_DIGITS},64}}", text):
            raise click.BadParameter(
                f"{text!r} is not how a request's hash (x-declai-request) begins: 0x and at least {REQUEST_DIGITS} "
                "hexadecimal digits"
            )
    return tuple(text.lower() for text in value)


@click.command()
@click.option(
    "--request",
    "requests",
    multiple=True,
    callback=_beginnings,
    metavar="HASH",
    help="This request alone, by its hash or its beginning; may be repeated.",
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
    declai node claim --config node.toml --dry-run
    declai node claim --config node.toml --request 0x5f1c...
    declai node claim --config node.toml --password-file password --json
    """
    operating = open_operating(network_path, wallet_name, password_file)
    operator = _operator_of(operating)
    settings = _settings(operating, network_path)
    with _open_store(settings, alone=not dry_run) as store:
        unreadable = _note_batches(operating, store, operator, settings.ipfs_peers)
        receipts = receipts_here(store, operating.chain.domain, operator)
        jobs = [kept.job for kept in receipts]
        survey = Survey(operating.chain, unreadable, jobs=jobs, believe_unread=even_unread)
        found = [survey.judge(kept) for kept in _chosen(receipts, requests)]
        taken = Taken([Outcome()] * len(found)) if dry_run else _take_steps(operating, found)
        if not dry_run:
            close_what_is_over(store, survey, found)
    shown = [pair for pair in zip(found, taken.outcomes, strict=True) if pair[0].status is not Status.ENDED]
    Report(operator, shown, taken.collected, operating.chain.court.balance_of(operator), unreadable).print(as_json)
    if taken.problems:
        raise DeclaiError(f"{len(taken.problems)} of the steps failed, the first: {taken.problems[0]}")


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


def _settings(operating: Operating, network_path: Path | None) -> NodeSettings:
    """The node's settings. A devnet's lie beside its network file, under the names of the operators' wallets."""
    beside = (network_path or default_path()).parent / f"{operating.wallet}.toml"
    if "DECLAI_CONFIG" not in os.environ and beside.exists():
        os.environ["DECLAI_CONFIG"] = str(beside)
    settings, chain = node_settings(), operating.chain
    if settings.deployment.exists() and (there := Deployment.load(settings.deployment).domain) != chain.domain:
        raise DeclaiError(
            f"the node works for the ledger {there.ledger} on chain {there.chain_id}, the network file names "
            f"{chain.domain.ledger} on chain {chain.domain.chain_id}: name the node's network with --network"
        )
    return settings


@contextmanager
def _open_store(settings: NodeSettings, *, alone: bool) -> Iterator[NodeStore]:
    """The node's receipts. `alone`: no other call that takes steps may be at work, lest both take the same ones.

    Who only looks migrates nothing, and nobody does so under a node: one of an older release could not write any more.
    """
    path = settings.data_dir / "node.db"
    if not path.exists():
        raise DeclaiError(f"no receipts at {path.resolve()}: is --config the file that the node runs with?")
    running = living_node(settings.status_file)
    try:
        store = NodeStore(path, may_migrate=alone and running is None)
    except StoreTooOld as error:
        if running is None:
            raise DeclaiError(f"{error}: call without --dry-run, or start the node, and it is migrated") from error
        raise DeclaiError(f"{error}: {OLDER_NODE_RUNS}") from error
    try:
        with path.with_name("claim.lock").open("w") as file:
            if alone:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield store
    except BlockingIOError:
        raise DeclaiError(f"another `declai node claim` is at work in {settings.data_dir}: let it finish") from None
    finally:
        store.close()


def _note_batches(operating: Operating, store: NodeStore, operator: str, peers: Sequence[str]) -> list[SettledBatch]:
    """Learn which receipts batches paid; returns the batches that nobody gives out now."""
    chain = operating.chain
    gateways = {kept.job.gateway.address for kept in receipts_here(store, chain.domain, operator)}
    urls = [chain.nodes.node(gateway).url for gateway in sorted(gateways)]
    index = EventIndex(home() / f"index-{operating.network.chain.chain_id}.db", chain)
    blocks = BlockStore(home() / "blocks")
    exchange = Exchange(blocks, [*filter(None, urls), *peers], timeout_s=PEER_TIMEOUT_S)
    try:
        return note_batches(
            store, index.sync(), chain.domain, operator, lambda batch: read_batch(batch, blocks, exchange.fetch)
        )
    finally:
        exchange.close()
        index.close()


def _chosen(kept: Sequence[StoredReceipt], requests: Sequence[str]) -> list[StoredReceipt]:
    """The receipts for these requests, or all. Raises DeclaiError for a request without any."""
    digests = [to_hex(one.job.request_digest) for one in kept]
    for request in requests:
        if not any(digest.startswith(request) for digest in digests):
            raise DeclaiError(f"no unpaid receipt for {request}: a batch paid it, or this node has none for it")
    chosen = tuple(requests) or ("0x",)
    return [one for one, digest in zip(kept, digests, strict=True) if digest.startswith(chosen)]


@dataclass
class Taken:
    """What came of each receipt's step, the base units that the court had for the wallet, and what went wrong."""

    outcomes: list[Outcome]
    collected: int = 0
    problems: list[str] = field(default_factory=list)


def _take_steps(operating: Operating, found: Sequence[Owed]) -> Taken:
    chain = operating.chain
    if not any(owed.step for owed in found) and not chain.court.balance_of(operating.address):
        return Taken([Outcome()] * len(found))
    collector = Collector(chain, unlock(operating.wallet, operating.network, operating.password_file))
    taken = Taken([_take(operating, collector, owed) for owed in found])
    taken.problems = [outcome.error for outcome in taken.outcomes if outcome.error]
    try:
        taken.collected = collector.collect()
    except (ChainError, Web3Exception) as error:
        taken.problems.append(f"the court's money did not come: {error}")
    return taken


def _take(operating: Operating, collector: Collector, owed: Owed) -> Outcome:
    """One that fails must not hold the others up."""
    if owed.step is None:
        return Outcome()
    try:
        return Outcome(ClaimOutcome.DONE, collector.take(owed))
    except (ChainError, DeclaiError, Web3Exception) as error:
        if Survey(operating.chain).judge(owed.kept).status is not owed.status:
            return Outcome(ClaimOutcome.OVERTAKEN)
        return Outcome(ClaimOutcome.FAILED, error=str(error))
