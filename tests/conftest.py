"""Fixtures that many tests share: a real chain, the contracts on it, a real Redis."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import get_args

import pytest
from eth_account.signers.local import LocalAccount
from hypothesis import settings

from declai.chain.client import Chain, Rpc
from declai.chain.contracts.binding import Call
from declai.chain.contracts.nodes import Registration, Role
from declai.chain.deploy import deploy
from declai.chain.messages import new_account
from declai.chain.parameters import Parameters
from declai.chain.pricing import UNITS_PER_CREDIT
from declai.chain.sender import TransactionSender
from declai.devnet.chain_setup import fund
from declai.devnet.processes import ChainKind, RedisAddress, start_chain, start_redis
from tests.contracts.toolchain import FORGE, RunningTool, running
from tests.devnet import cli, devnet

__all__ = ["cli", "devnet"]  # fixtures for all tests

# pytest --hypothesis-profile thorough: for a night, not for every change.
settings.register_profile("thorough", max_examples=1_000, deadline=None)


def pytest_addoption(parser: pytest.Parser) -> None:
    kinds = get_args(ChainKind)
    parser.addoption("--chain", choices=kinds, default=kinds[0], help="development chain of the tests (%(default)s)")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=_is_last)


def _is_last(item: pytest.Item) -> bool:
    return item.get_closest_marker("last") is not None


@pytest.fixture(scope="session", autouse=True)
def forge_suite(request: pytest.FixtureRequest) -> Iterator[RunningTool | None]:
    """The contracts' own tests, if asked for: they take half an hour of one core, and most other tests leave one."""
    if not any(map(_is_last, request.session.items)):
        yield None
        return
    with running(FORGE, "test", "--offline", FOUNDRY_PROFILE="ci") as suite:
        suite.give_way()
        yield suite


@pytest.fixture(scope="session")
def chain_kind(pytestconfig: pytest.Config) -> ChainKind:
    """Which development chain the tests run on."""
    kind: ChainKind = pytestconfig.getoption("chain")
    return kind


@pytest.fixture(scope="session")
def chain_url(tmp_path_factory: pytest.TempPathFactory, chain_kind: ChainKind) -> Iterator[str]:
    """RPC URL of one development chain for the whole run."""
    with start_chain(tmp_path_factory.mktemp("chain"), chain_kind) as url:
        yield url


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisAddress]:
    """One Redis for the whole run."""
    with start_redis(tmp_path_factory.mktemp("redis")) as address:
        yield address


@dataclass
class World:
    """Fresh contracts, and ways to act on them."""

    chain: Chain
    treasury: LocalAccount

    def rich(self, amount: int = 10_000 * UNITS_PER_CREDIT) -> LocalAccount:
        """A new account with ETH and credits."""
        account = new_account()
        fund(self.chain, [account.address])
        if amount:
            self.send(self.treasury, self.chain.token.mint(account.address, amount))
        return account

    def send(self, account: LocalAccount, call: Call) -> None:
        TransactionSender(self.chain, account).send(call)

    def deposit(self, account: LocalAccount, amount: int) -> None:
        self.send(account, self.chain.token.approve(self.chain.ledger.address, amount))
        self.send(account, self.chain.ledger.deposit(amount))

    def register(self, role: Role, signer: LocalAccount | None = None, link_key: bytes | None = None) -> LocalAccount:
        """A new operator, registered with the role's minimum stake."""
        operator, signer = self.rich(), signer or new_account()
        stake = self.chain.nodes.minimum_stake(role)
        self.send(operator, self.chain.token.approve(self.chain.nodes.address, stake))
        registration = Registration(
            signer=signer.address,
            roles=int(role),
            link_key=link_key or new_account().key[:32],
            endpoint="tcp://127.0.0.1:9",
            url="http://127.0.0.1:9",
        )
        self.send(operator, self.chain.nodes.register(registration, stake))
        if role & Role.GATEWAY:
            self.send(operator, self.chain.ledger.set_settler(signer.address))
        return operator

    def open_session(
        self, payer: LocalAccount, gateway: LocalAccount, key: LocalAccount, budget: int, duration_s: int = 86_400
    ) -> bytes:
        """A session paid from the payer's ledger balance; returns its id."""
        sender = TransactionSender(self.chain, payer)
        receipt = sender.send(self.chain.ledger.open_session(gateway.address, key.address, budget, duration_s))
        events = [self.chain.ledger.decode(log) for log in receipt["logs"]]
        session: bytes = next(e.values["session"] for e in events if e is not None and e.name == "SessionOpened")
        return session


@pytest.fixture
def world(chain_url: str) -> World:
    """Contracts of the test's own on the shared chain."""
    treasury = new_account()
    fund(Rpc(chain_url), [treasury.address])
    return World(Chain(chain_url, deploy(chain_url, treasury, Parameters(treasury=treasury.address))), treasury)
