"""What the worker's tests share: small models, and a Redis of their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from declai.devnet.processes import launch_redis
from tests.support.redis_server import RedisServer
from tests.support.zoo import Zoo


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    directory = tmp_path_factory.mktemp("redis")
    child, address = launch_redis(directory)
    server = RedisServer(directory, child, address)
    yield server
    server.child.stop()


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    return Zoo(tmp_path_factory.mktemp("zoo"))
