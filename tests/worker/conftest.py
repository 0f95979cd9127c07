"""What the worker's tests share: small models, and a Redis of their own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from declai.devnet.processes import Child, RedisAddress, launch_redis
from tests.support.zoo import Zoo


@dataclass
class RedisServer:
    """A running Redis that a test may stop and start again at the same address."""

    directory: Path
    child: Child
    address: RedisAddress

    @property
    def url(self) -> str:
        return self.address.url

    @property
    def bare_url(self) -> str:
        return f"redis://127.0.0.1:{self.address.port}/0"

    def restart(self) -> None:
        self.child.popen.kill()
        self.child.popen.wait()
        self.child, _ = launch_redis(self.directory, self.address)


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
