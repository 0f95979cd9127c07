"""What the gateway's tests share: one whole network, and one market on a chain of its own with stores of both kinds.

Starting either costs seconds. Tests leave the network idle; they reorganise the market's chain.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import openai
import pytest

from declai.chain.client import Chain, Rpc
from declai.chain.deploy import deploy
from declai.chain.messages import new_account
from declai.chain.parameters import Parameters
from declai.devnet.chain_setup import fund
from declai.devnet.processes import ChainKind, RedisAddress, start_chain, start_redis
from tests.support.books import Books, Market
from tests.support.echo_network import Network, running_network
from tests.support.postgres import new_database, running_postgres
from tests.support.world import World


@pytest.fixture(scope="session")
def network(tmp_path_factory: pytest.TempPathFactory, chain_kind: ChainKind) -> Iterator[Network]:
    directory = tmp_path_factory.mktemp("serve")
    with (
        start_chain(directory / "logs", chain_kind) as rpc_url,
        start_redis(directory / "redis") as broker,
        running_network(directory, rpc_url, broker) as running,
    ):
        yield running


@pytest.fixture(scope="session")
def api_key(network: Network) -> str:
    return network.login(network.open_session())


@pytest.fixture
def idle(network: Network) -> Iterator[Network]:
    """The network with healthy, idle nodes, before and after."""
    for node in network.nodes:
        node.engine.heal()
    network.wait_for_nodes()
    yield network
    for node in network.nodes:
        node.engine.heal()


@pytest.fixture
def client(idle: Network, api_key: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{idle.url}/v1", api_key=api_key, max_retries=0, timeout=30) as opened:
        yield opened


@pytest.fixture
def http(idle: Network, api_key: str) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {api_key}"}
    with httpx.Client(base_url=idle.url, headers=headers, timeout=30) as opened:
        yield opened


@contextmanager
def running_market(folder: Path, chain_kind: ChainKind) -> Iterator[Market]:
    with start_chain(folder, chain_kind) as url:
        treasury = new_account()
        fund(Rpc(url), [treasury.address])
        world = World(Chain(url, deploy(url, treasury, Parameters(treasury=treasury.address))), treasury)
        yield Market.open(world)


@pytest.fixture(scope="session")
def market(tmp_path_factory: pytest.TempPathFactory, chain_kind: ChainKind) -> Iterator[Market]:
    with running_market(tmp_path_factory.mktemp("money-chain"), chain_kind) as market:
        yield market


@pytest.fixture
def own_market(tmp_path_factory: pytest.TempPathFactory, chain_kind: ChainKind) -> Iterator[Market]:
    """A chain for one test, which may move its time on and ruin its nodes."""
    with running_market(tmp_path_factory.mktemp("own-chain"), chain_kind) as market:
        yield market


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    with running_postgres() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty store of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'gateway.db'}"
    return new_database(request.getfixturevalue("postgres"))


@pytest.fixture
def open_books(
    market: Market, tmp_path: Path, store_url: str, redis_server: RedisAddress
) -> Iterator[Callable[..., Books]]:
    """Opens books over the same store and folder, as often as asked; settings of the settlement may be given."""
    opened: list[Books] = []

    def make(**settlement: int | float) -> Books:
        opened.append(Books(market, tmp_path, store_url, redis_server.url, **settlement))
        return opened[-1]

    yield make
    for books in opened:
        books.close()


@pytest.fixture
def books(open_books: Callable[..., Books]) -> Books:
    return open_books()
