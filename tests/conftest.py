"""Fixtures that many tests share, and how several processes share the tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import get_args

import pytest
from hypothesis import settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from declai.chain.client import Chain, Rpc
from declai.chain.deploy import deploy
from declai.chain.messages import new_account
from declai.chain.parameters import Parameters
from declai.devnet.chain_setup import fund
from declai.devnet.processes import ChainKind, RedisAddress, start_chain, start_redis
from tests.support.devnet import cli, devnet
from tests.support.scheduling import GroupScheduling, group_of, place_of
from tests.support.world import World

__all__ = ["cli", "devnet"]  # fixtures for all tests

# Before torch loads: threads that spin beside those of another process would slow both down tenfold.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# pytest --hypothesis-profile thorough: for a night, not for every change.
settings.register_profile("thorough", max_examples=1_000, deadline=None)

CHAINS: tuple[ChainKind, ...] = get_args(ChainKind)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--chain", choices=CHAINS, default=CHAINS[0], help="development chain of the tests (%(default)s)")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """What asks most of a development chain runs on each kind of them."""
    asks_most = metafunc.definition.get_closest_marker("every_chain")
    if asks_most and "chain_kind" in metafunc.fixturenames and metafunc.config.getoption("chain") == CHAINS[0]:
        metafunc.parametrize("chain_kind", CHAINS, indirect=True, scope="session")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "devnet" in getattr(item, "fixturenames", ()) and group_of(item.nodeid) != "devnet":
            raise pytest.UsageError(f"{item.nodeid} uses the devnet: name its file in tests/support/scheduling.py")
    items.sort(key=lambda item: place_of(item.nodeid))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling | None:
    return GroupScheduling(config, log) if config.getoption("dist") == "loadscope" else None


@pytest.fixture(scope="session")
def chain_kind(request: pytest.FixtureRequest) -> ChainKind:
    """Which development chain the tests run on."""
    kind: ChainKind = getattr(request, "param", request.config.getoption("chain"))
    return kind


@pytest.fixture(scope="session")
def chain_url(tmp_path_factory: pytest.TempPathFactory, chain_kind: ChainKind) -> Iterator[str]:
    """RPC URL of one development chain for all tests of this process."""
    with start_chain(tmp_path_factory.mktemp("chain"), chain_kind) as url:
        yield url


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisAddress]:
    """One Redis for all tests of this process."""
    with start_redis(tmp_path_factory.mktemp("redis")) as address:
        yield address


@pytest.fixture
def world(chain_url: str) -> World:
    """Contracts of the test's own on the shared chain."""
    treasury = new_account()
    fund(Rpc(chain_url), [treasury.address])
    return World(Chain(chain_url, deploy(chain_url, treasury, Parameters(treasury=treasury.address))), treasury)
