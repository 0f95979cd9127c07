"""What the commands about a node's money share: the operator's wallet on a network, and how results print."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eth_utils.address import to_checksum_address
from web3.types import TxReceipt

from declai.chain.client import Chain
from declai.chain.contracts.nodes import RegisteredNode
from declai.chain.fields import to_hex
from declai.chain.pricing import format_credits
from declai.cli.output import emit, fields
from declai.client.aio import chain_of
from declai.contributor.operator import Operator, local_time
from declai.network import Network, load
from declai.wallets import unlock, wallet_address


@dataclass(frozen=True)
class Operating:
    """A wallet on a network. Nothing is unlocked yet."""

    network: Network
    chain: Chain
    wallet: str
    password_file: Path | None

    @property
    def address(self) -> str:
        return str(to_checksum_address(wallet_address(self.wallet, self.network)))

    def operator(self) -> Operator:
        """The wallet, unlocked."""
        return Operator(self.chain, unlock(self.wallet, self.network, self.password_file))


def open_operating(network_path: Path | None, wallet: str, password_file: Path | None) -> Operating:
    """The wallet that the options name, on a chain that answers."""
    network = load(network_path)
    chain = chain_of(network)
    chain.check()
    return Operating(network, chain, wallet, password_file)


def print_node(operator: Operator, node: RegisteredNode, receipt: TxReceipt, as_json: bool, **more: Any) -> None:
    """A node's stake after a transaction. `*_units` in `more` are base units and print as credits."""
    units = {"stake_units": node.stake, "thawing_units": node.thawing, **_only_units(more)}
    data = {
        "operator": operator.address,
        **{name: value for name, value in more.items() if name not in units},
        **{name: str(value) for name, value in units.items()},
        "thaw_ends_at": node.thaw_ends_at,
        "transaction": to_hex(bytes(receipt["transactionHash"])),
        "gas_used": receipt["gasUsed"],
    }

    def render() -> None:
        rows = [(name, value) for name, value in data.items() if name not in units and name != "thaw_ends_at"]
        credits = [(name.removesuffix("_units"), f"{format_credits(value)} credits") for name, value in units.items()]
        thaw = [("thawed", local_time(node.thaw_ends_at))] if node.thawing else []
        fields([(name.replace("_", " "), value) for name, value in (rows[0], *credits, *thaw, *rows[1:])])

    emit(data, as_json, render)


def _only_units(values: dict[str, Any]) -> dict[str, int]:
    return {name: value for name, value in values.items() if name.endswith("_units")}
