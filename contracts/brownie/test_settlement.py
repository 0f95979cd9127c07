"""A settlement on contracts that Brownie compiled and deployed: signed as wallets sign, paid once, to the unit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import brownie
import pytest
from brownie import CreditToken, DisputeCourt, InferenceLedger, ModelRegistry, NodeRegistry, accounts, chain
from eth_account import Account
from eth_account.messages import encode_typed_data
from eth_account.signers.local import LocalAccount
from eth_utils import keccak

CREDIT = 10**18
HOUR_S, DAY_S = 3_600, 86_400
WORKER, GATEWAY = 1, 2
STAKE, DEPOSIT, BUDGET = 1_000 * CREDIT, 50 * CREDIT, 10 * CREDIT
PAYOUTS = [2 * CREDIT, 1 * CREDIT + 7]
FEE = CREDIT // 10
HEADER = b"\x12" * 32
TYPES = {
    "InferenceRequest": [
        {"name": "session", "type": "bytes32"},
        {"name": "nonce", "type": "uint64"},
        {"name": "maxCost", "type": "uint128"},
        {"name": "ackedBelow", "type": "uint64"},
        {"name": "spent", "type": "uint128"},
        {"name": "work", "type": "Work"},
    ],
    "Work": [
        {"name": "model", "type": "bytes32"},
        {"name": "body", "type": "bytes32"},
        {"name": "maxTokens", "type": "uint32"},
        {"name": "tier", "type": "uint8"},
        {"name": "deadline", "type": "uint64"},
    ],
}


@dataclass
class World:
    """The deployed contracts and who acts on them: the chain's own accounts, and the key of the payer's session."""

    token: Any
    nodes: Any
    ledger: Any
    payer: Any
    gateway: Any
    workers: list[Any]
    key: LocalAccount

    def join(self, account: Any, role: int) -> None:
        self.token.approve(self.nodes, STAKE, {"from": account})
        link_key = keccak(hexstr=account.address)
        self.nodes.register(
            (account, role, link_key, "tcp://127.0.0.1:9", "http://127.0.0.1:9", "", ""), STAKE, {"from": account}
        )

    def balances(self) -> dict[str, int]:
        """Credits in the ledger, by who could take them out."""
        free = {name: self.ledger.balanceOf(account) for name, account in self._parties().items()}
        return free | {"fees": self.ledger.gatewayAccount(self.gateway)[1]}

    def _parties(self) -> dict[str, Any]:
        return {"payer": self.payer, "gateway": self.gateway, "first": self.workers[0], "second": self.workers[1]}


@pytest.fixture(scope="module")
def world() -> World:
    """The contracts as `chain.deploy` puts them on a chain: three of them know one another's address beforehand."""
    deployer, payer, gateway, *workers = accounts[:5]
    at = [deployer.get_deployment_address(deployer.nonce + i) for i in range(5)]
    registry = (7 * DAY_S, 10, 100 * CREDIT, 30, 100 * CREDIT, 1_000 * CREDIT, 100 * CREDIT)
    ledger = (DAY_S, 2 * DAY_S, 4 * DAY_S, HOUR_S, DAY_S, DAY_S // 2, CREDIT, 2_000)
    court = (3 * DAY_S, DAY_S // 2, 7 * DAY_S, 30 * DAY_S, CREDIT, 5_000, 2_000, 10_000)
    disputes = (HOUR_S, 6 * HOUR_S, 5_000, 25 * CREDIT, CREDIT // 2, 2 * CREDIT)
    juries = (HOUR_S, DAY_S // 2, 6 * HOUR_S, DAY_S // 2, 4, 5, 3, 3, 500_000, 50_000)
    deployed = [
        deployer.deploy(CreditToken, deployer),
        deployer.deploy(NodeRegistry, at[0], at[3], at[4], registry),
        deployer.deploy(ModelRegistry),
        deployer.deploy(InferenceLedger, at[0], at[1], ledger),
        deployer.deploy(DisputeCourt, at[3], deployer, court, disputes, juries),
    ]
    assert [contract.address for contract in deployed] == at
    token, nodes, _, books, _ = deployed
    made = World(token, nodes, books, payer, gateway, workers, Account.from_key(keccak(text="session")))
    for account in (payer, gateway, *workers):
        token.mint(account, 10 * STAKE, {"from": deployer})
    made.join(gateway, GATEWAY)
    for worker in workers:
        made.join(worker, WORKER)
    token.approve(books, DEPOSIT, {"from": payer})
    books.deposit(DEPOSIT, {"from": payer})
    return made


@pytest.fixture(autouse=True)
def isolation(world: World, fn_isolation: None) -> None:
    """Every test begins where `world` ended."""


@pytest.fixture
def terms(world: World) -> tuple[Any, ...]:
    """A session of the payer's with the gateway, as the calls that act on it want it."""
    opened = world.ledger.openSession(world.gateway, world.key.address, BUDGET, HOUR_S, {"from": world.payer})
    number = opened.events["SessionOpened"]["number"]
    return (world.payer.address, world.gateway.address, world.key.address, number)


def claim(world: World, session: bytes, cost: int) -> tuple[Any, ...]:
    """The session's first request, signed by its key, with what it cost."""
    work = {
        "model": keccak(text="test/model"),
        "body": keccak(text="body"),
        "maxTokens": 16,
        "tier": 0,
        "deadline": chain.time() + HOUR_S,
    }
    request = {"session": session, "nonce": 1, "maxCost": BUDGET, "ackedBelow": 0, "spent": 0, "work": work}
    domain = {"name": "DeCLAI", "version": "1", "chainId": chain.id, "verifyingContract": world.ledger.address}
    message = encode_typed_data(domain, TYPES, request)
    signed = world.key.sign_message(message)
    assert signed.message_hash == bytes(world.ledger.hashRequest(tuple_of(request)))
    counts, amounts = (1 << 192) | cost, BUDGET << 128
    vs = (signed.v - 27) << 255 | signed.s
    words = (signed.r.to_bytes(32, "big"), vs.to_bytes(32, "big"))
    work_hash = encode_typed_data(domain, {"Work": TYPES["Work"]}, work).body
    return (session, work_hash, counts, amounts, *words)


def tuple_of(value: Any) -> Any:
    """A message as the contracts take it."""
    return tuple(map(tuple_of, value.values())) if isinstance(value, dict) else value


def batch(world: World, claims: list[tuple[Any, ...]], payouts: list[int], slot: int) -> tuple[Any, ...]:
    words = [int(node.address, 16) << 96 | amount for node, amount in zip(world.workers, payouts, strict=False)]
    return (world.gateway.address, claims, words, [], HEADER, slot)


def settle(world: World, terms: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    """Settles one request in slot 0; returns the claims."""
    session = bytes(world.ledger.sessionId(terms))
    claims = [claim(world, session, sum(PAYOUTS) + FEE)]
    world.ledger.settle(batch(world, claims, PAYOUTS, 0), {"from": world.gateway})
    return claims


def test_what_the_payer_is_debited_is_what_the_others_get(world: World, terms: tuple[Any, ...]) -> None:
    held = world.token.balanceOf(world.ledger)
    before = world.balances()
    assert before["payer"] == DEPOSIT - BUDGET
    settle(world, terms)
    budget, settled, _, _ = world.ledger.session(terms)
    assert settled == sum(PAYOUTS) + FEE
    assert world.balances() == before | {"first": PAYOUTS[0], "second": PAYOUTS[1], "fees": FEE}
    assert world.token.balanceOf(world.ledger) == held == sum(world.balances().values()) + budget - settled


def test_claims_that_were_settled_pay_nothing_again(world: World, terms: tuple[Any, ...]) -> None:
    claims = settle(world, terms)
    before = (world.balances(), world.ledger.session(terms))
    with brownie.reverts(revert_pattern="InferenceLedgerPayoutsExceedDebits.*"):
        world.ledger.settle(batch(world, claims, PAYOUTS, 1), {"from": world.gateway})
    world.ledger.settle(batch(world, claims, [], 1), {"from": world.gateway})
    assert (world.balances(), world.ledger.session(terms)) == before


def test_a_request_that_another_key_signed_is_refused(world: World, terms: tuple[Any, ...]) -> None:
    session = bytes(world.ledger.sessionId(terms))
    world.key = Account.from_key(keccak(text="somebody else's"))
    claims = [claim(world, session, sum(PAYOUTS) + FEE)]
    with brownie.reverts(revert_pattern="InferenceLedgerNoSuchSession.*"):
        world.ledger.settle(batch(world, claims, PAYOUTS, 0), {"from": world.gateway})
