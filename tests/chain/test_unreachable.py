"""A chain that does not answer is named by its host alone: the rest of an RPC URL is often a paid endpoint's key."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from declai.chain.client import Chain
from declai.chain.errors import ChainUnreachable
from declai.devnet.processes import free_port
from tests.support.world import World

KEY = "4fd0c0ffee"


@pytest.fixture
def locked() -> Iterator[str]:
    """Host and port of an endpoint that lets nobody in."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_error(401)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def refusal(world: World, url: str) -> str:
    with pytest.raises(ChainUnreachable) as caught:
        Chain(url, world.chain.deployment).check()
    assert caught.value.__cause__ is None
    assert KEY not in str(caught.value)
    return str(caught.value)


def test_nobody_there(world: World) -> None:
    host = f"127.0.0.1:{free_port()}"
    assert f"the chain at {host} does not answer (ConnectionError)" in refusal(world, f"http://{host}/v3/{KEY}?k={KEY}")


def test_a_key_that_is_refused(world: World, locked: str) -> None:
    assert f"the chain at {locked} does not answer (HTTP 401)" in refusal(world, f"http://user:{KEY}@{locked}/{KEY}")


def test_another_chain(world: World) -> None:
    other = world.chain.deployment.model_copy(update={"chain_id": 5})
    with pytest.raises(ChainUnreachable, match=r"is chain 31337, the deployment is on 5: is the RPC URL right\?"):
        Chain(f"{world.chain.rpc_url}/?k={KEY}", other).check()
