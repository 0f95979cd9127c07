"""Fixtures that many tests share: a real chain, the contracts on it, a real Redis."""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

import pytest
from hypothesis import settings

from declai.chain.client import Chain, Rpc
from declai.chain.deploy import deploy
from declai.chain.messages import new_account
from declai.chain.parameters import Parameters
from declai.devnet.chain_setup import fund
from declai.devnet.processes import ChainKind, RedisAddress, start_chain, start_redis
from tests.support.devnet import cli, devnet
from tests.support.toolchain import FORGE, RunningTool, running
from tests.support.world import World

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


@pytest.fixture
def world(chain_url: str) -> World:
    """Contracts of the test's own on the shared chain."""
    treasury = new_account()
    fund(Rpc(chain_url), [treasury.address])
    return World(Chain(chain_url, deploy(chain_url, treasury, Parameters(treasury=treasury.address))), treasury)
