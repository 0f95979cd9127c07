"""`declai node faults` and `earnings`: a node's record, from the chain alone."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from declai.chain.index import EventIndex
from declai.chain.pricing import UNITS_PER_CREDIT, format_credits
from declai.cli.node.operating import Operating, open_operating
from declai.cli.options import address_argument, network_option, operator_options
from declai.cli.output import emit, fields, json_option, table
from declai.contributor.operator import local_time
from declai.contributor.record import earned_by, record_of
from declai.errors import DeclaiError
from declai.home import home


def _known_node(operating: Operating, address: str | None) -> str:
    """The address given, or the wallet's. Raises DeclaiError when the registry never knew it."""
    node = address or operating.address
    operator = operating.chain.nodes.operator_of(node)
    node = operator if int(operator, 16) else node
    if not operating.chain.nodes.node(node).term:
        raise DeclaiError(f"{node} never registered a node: name an operator's address, or its wallet with --wallet")
    return node


@click.command()
@address_argument("node", required=False)
@network_option
@operator_options
@json_option
def faults(
    node: str | None, network_path: Path | None, wallet_name: str, password_file: Path | None, as_json: bool
) -> None:
    """Show what the chain holds against NODE (its operator's address; the wallet's by default). Needs no password.

    Work that it failed, stake that was slashed, payouts that it owed, jail, and its reputation between 0 and 1 (0.5 for
    a newcomer).

    \b
    declai node faults --wallet operator
    declai node faults 0x... --json
    """
    operating = open_operating(network_path, wallet_name, password_file)
    node = _known_node(operating, node)
    found = record_of(operating.chain, node)
    data = {
        "node": node,
        "reputation_units": str(found.reputation),
        "slashed_units": str(found.slashed),
        "is_jailed": found.is_jailed,
        "jailed_until": found.jailed_until,
        "faults": [
            {"at": b.at, "block": b.block, "what": b.what, "amount_units": str(b.amount), "detail": b.detail}
            for b in found.blemishes
        ],
    }

    def render() -> None:
        jail = f"until {local_time(found.jailed_until)}" if found.is_jailed else "no"
        reputation = f"{found.reputation / UNITS_PER_CREDIT:.4f}"
        slashed = f"{format_credits(found.slashed)} credits"
        fields([("node", node), ("reputation", reputation), ("in jail", jail), ("slashed", slashed)])
        rows = [
            (local_time(b.at), b.what, format_credits(b.amount) if b.amount else "-", b.detail) for b in found.blemishes
        ]
        table(["when", "what", "credits", ""], rows, "No faults.")

    emit(data, as_json, render)


@click.command()
@address_argument("node", required=False)
@network_option
@operator_options
@json_option
def earnings(
    node: str | None, network_path: Path | None, wallet_name: str, password_file: Path | None, as_json: bool
) -> None:
    """Show what NODE earned and where it lies (its operator's address; the wallet's by default). Needs no password.

    \b
    declai node earnings --wallet operator
    declai credits withdraw 5 --wallet operator    # from the ledger into the wallet
    """
    operating = open_operating(network_path, wallet_name, password_file)
    node = _known_node(operating, node)
    chain = operating.chain
    index = EventIndex(home() / f"index-{operating.network.chain.chain_id}.db", chain)
    try:
        found = asdict(earned_by(chain, index.sync(), node))
    finally:
        index.close()
    num_batches = found.pop("num_batches")
    data = {"node": node, "num_batches": num_batches, **{f"{name}_units": str(units) for name, units in found.items()}}
    shown = [(name.replace("_", " "), f"{format_credits(units)} credits") for name, units in found.items()]
    emit(data, as_json, lambda: fields([("node", node), ("batches", num_batches), *shown]))
