"""A chain of this folder's own (its tests reorganise it), one market on it, and stores of both kinds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from declai.chain.client import Chain, Rpc
from declai.chain.deploy import deploy
from declai.chain.messages import new_account
from declai.chain.parameters import Parameters
from declai.devnet.chain_setup import fund
from declai.devnet.processes import ChainKind, RedisAddress, start_chain
from tests.api.money.kit import Books, Market
from tests.api.money.postgres import new_database, running_postgres
from tests.conftest import World


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
