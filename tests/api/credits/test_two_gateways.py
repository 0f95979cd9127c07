"""Two real gateway processes on one PostgreSQL and one Redis: one is killed, the other ends what it ran."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import pytest
from sqlalchemy import create_engine, select

from declai.api.credits.takeover import ABANDONED
from declai.api.store.processes import DEAD_AFTER_S
from declai.api.store.schema import requests
from declai.devnet.processes import free_port, start_redis
from tests.support.echo_network import MODEL, Network, wait_until
from tests.support.postgres import new_database


@dataclass
class GatewayProgram:
    """`python -m declai.api.serve` for the network's gateway, on ports of its own."""

    network: Network
    url: str
    link: str
    child: subprocess.Popen[bytes]

    def is_ready(self) -> bool:
        assert self.child.poll() is None, "the gateway ended"
        try:
            return httpx.get(f"{self.url}/healthz").status_code == 200
        except httpx.TransportError:
            return False

    def login(self, session: bytes) -> str:
        return replace(self.network, url=self.url).login(session)

    def ask(self, api_key: str) -> None:
        """A request that stays under way: no node takes this gateway's tasks."""
        body = {"model": MODEL, "prompt": "hello", "max_tokens": 5}
        try:
            httpx.post(
                f"{self.url}/v1/completions", json=body, headers={"Authorization": f"Bearer {api_key}"}, timeout=90
            )
        except httpx.TransportError:
            return

    def attract_nodes(self) -> None:
        """Let the network's nodes beat to this process and to no other one."""
        peer = self.network.gateway.peer.model_copy(update={"endpoint": self.link})
        for node in self.network.nodes:
            node.engine_thread.beat_to([peer])
        count = len(self.network.nodes)
        wait_until(lambda: httpx.get(f"{self.url}/v1/network").json()["num_nodes_live"] == count, "the nodes' beats")


@contextmanager
def running_program(network: Network, folder: Path, database_url: str, redis_url: str) -> Iterator[GatewayProgram]:
    settings, port, link = network.settings, free_port(), f"tcp://127.0.0.1:{free_port()}"
    url = f"http://127.0.0.1:{port}"
    values = {
        name: str(getattr(settings, name))
        for name in ("rpc_url", "deployment", "signer_keystore", "session_keystore", "link_key", "password_file")
    }
    values |= {"port": str(port), "public_url": url, "link_bind": link, "data_dir": str(folder)}
    values |= {"database_url": database_url, "redis_url": redis_url, "ready_timeout_s": "80"}
    environment = os.environ | {f"DECLAI_{name.upper()}": value for name, value in values.items()}
    folder.mkdir()
    (folder / "blocks").symlink_to(settings.blocks_dir)
    with (folder / "log").open("wb") as log:
        child = subprocess.Popen([sys.executable, "-m", "declai.api.serve"], env=environment, stdout=log, stderr=log)
    try:
        program = GatewayProgram(network, url, link, child)
        wait_until(program.is_ready, "the gateway's start", 60)
        yield program
    finally:
        child.kill()
        child.wait()


@pytest.fixture
def database_url(postgres: str) -> str:
    return new_database(postgres)


@pytest.fixture
def programs(idle: Network, database_url: str, tmp_path: Path) -> Iterator[list[GatewayProgram]]:
    with ExitStack() as opened:
        address = opened.enter_context(start_redis(tmp_path / "redis"))
        opened.callback(idle.wait_for_nodes)
        opened.callback(lambda: [node.engine_thread.beat_to([idle.gateway.peer]) for node in idle.nodes])
        yield [
            opened.enter_context(running_program(idle, tmp_path / name, database_url, address.url))
            for name in ("first", "second")
        ]


def test_one_gateway_process_is_killed_and_the_other_ends_its_requests_alone(
    idle: Network, programs: list[GatewayProgram], database_url: str
) -> None:
    first, second = programs
    api_key = second.login(idle.open_session())
    engine = create_engine(database_url)

    def states() -> dict[int, tuple[str, str | None]]:
        with engine.connect() as db:
            rows = db.execute(select(requests)).all()
        return {row.nonce: (row.state, row.error) for row in rows}

    with ThreadPoolExecutor(2) as pool:
        first.attract_nodes()
        pool.submit(first.ask, api_key)
        wait_until(lambda: states() == {0: ("running", None)}, "the first request")
        first.child.kill()
        second.attract_nodes()
        pool.submit(second.ask, api_key)
        wait_until(lambda: states().get(1) == ("running", None), "the second request")
        wait_until(lambda: states()[0] == ("failed", ABANDONED), "the takeover", 3 * DEAD_AFTER_S)
        assert states()[1] == ("running", None)
        second.child.terminate()
        second.child.wait(30)
        assert states()[1][0] == "failed", "who ends in order leaves nothing running"
    engine.dispose()
