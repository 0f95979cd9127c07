"""One network for all tests of this folder: starting it costs seconds, and each test leaves it idle."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import openai
import pytest

from declai.devnet.processes import ChainKind, start_chain, start_redis
from tests.api.serve.kit import Network, running_network


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
