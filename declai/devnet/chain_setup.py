"""Sets a devnet's chain up: contracts, credits, the model's name, stakes and offers. All with real transactions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from eth_account.signers.local import LocalAccount
from web3 import Web3

from declai.chain.client import Chain, Rpc
from declai.chain.contracts.models import model_id
from declai.chain.contracts.nodes import Offer, Registration, Role
from declai.chain.deploy import deploy
from declai.chain.parameters import Parameters
from declai.chain.pricing import UNITS_PER_CREDIT
from declai.chain.sender import TransactionSender
from declai.ipfs.manifest import Manifest

GRANT = 100_000 * UNITS_PER_CREDIT
PROMPT_PRICE = UNITS_PER_CREDIT
OUTPUT_PRICE = 3 * UNITS_PER_CREDIT
FUNDING_WEI = 10**20


@dataclass(frozen=True)
class Member:
    """A node or gateway to register: its two wallets, its public link key, and where it is reached."""

    operator: LocalAccount
    signer: LocalAccount
    link_key: bytes
    endpoint: str
    url: str = ""


def fund(rpc: Rpc, addresses: Sequence[str]) -> None:
    """Give ETH for gas from the development chain's own unlocked account."""
    rich = rpc.w3.eth.accounts[0]
    for address in addresses:
        transaction = {"from": rich, "to": Web3.to_checksum_address(address), "value": Web3.to_wei(FUNDING_WEI, "wei")}
        rpc.w3.eth.wait_for_transaction_receipt(rpc.w3.eth.send_transaction(transaction))  # type: ignore[arg-type]


def deploy_contracts(rpc_url: str, treasury: LocalAccount, grantees: Sequence[str]) -> Chain:
    """Deploy, and grant credits to each of `grantees`."""
    chain = Chain(rpc_url, deploy(rpc_url, treasury, Parameters(treasury=treasury.address)))
    sender = TransactionSender(chain, treasury)
    for address in grantees:
        sender.send(chain.token.mint(address, GRANT))
    return chain


def publish_model(chain: Chain, publisher: LocalAccount, manifest: Manifest, cid: str) -> None:
    """Name a model's version on chain."""
    TransactionSender(chain, publisher).send(chain.models.publish(manifest.name, cid, manifest.num_layers))


def register(chain: Chain, member: Member, role: Role) -> None:
    """Stake the role's minimum twice over and register."""
    sender = TransactionSender(chain, member.operator)
    stake = 2 * chain.nodes.minimum_stake(role)
    sender.send(chain.token.approve(chain.nodes.address, stake))
    registration = Registration(
        signer=member.signer.address,
        roles=int(role),
        link_key=member.link_key,
        endpoint=member.endpoint,
        url=member.url,
        region="local",
    )
    sender.send(chain.nodes.register(registration, stake))
    if role & Role.GATEWAY:
        sender.send(chain.ledger.set_settler(member.signer.address))


def offer(chain: Chain, member: Member, model: str, first_layer: int, end_layer: int) -> None:
    """Offer layers [first_layer, end_layer) of a model in fp32."""
    terms = Offer(first_layer, end_layer, 0, 0, PROMPT_PRICE, OUTPUT_PRICE)
    TransactionSender(chain, member.operator).send(chain.nodes.set_offer(model_id(model), terms))


def split_layers(num_layers: int, num_nodes: int) -> list[tuple[int, int]]:
    """Contiguous ranges, as equal as they can be, the longer ones first."""
    size, rest = divmod(num_layers, num_nodes)
    ranges, at = [], 0
    for number in range(num_nodes):
        end = at + size + (number < rest)
        ranges.append((at, end))
        at = end
    return ranges
