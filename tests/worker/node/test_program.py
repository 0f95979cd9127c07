"""How a node's program ends: each kind of trouble at its start has a sentence and an exit code."""

from __future__ import annotations

import logging
import socket
from pathlib import Path

import pytest

from declai.chain.errors import ChainError, ChainUnreachable
from declai.links.errors import LinkError
from declai.links.keys import LinkKeyPair
from declai.links.node_links import NodeLinks
from declai.worker.errors import NodeStartError, WorkerError
from declai.worker.node import program, runtime
from declai.worker.node.settings import NodeSettings


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DECLAI_MODEL", "any")
    monkeypatch.setenv("DECLAI_GATEWAY_URL", "http://127.0.0.1:1")
    monkeypatch.setattr(program, "set_up_logging", lambda: None)


def test_an_address_that_is_taken_ends_a_node_with_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    keys = LinkKeyPair.create(tmp_path / "link.key")

    def listen(settings: NodeSettings) -> None:
        NodeLinks(keys, settings.link_bind, lambda key: False).close()

    monkeypatch.setattr(runtime, "run_node", listen)
    with socket.create_server(("127.0.0.1", 0)) as taken, caplog.at_level(logging.ERROR):
        bind = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setenv("DECLAI_LINK_BIND", bind)
        assert program.main(["--once"]) == program.EXIT_FAILED
    assert f"cannot listen at {bind}" in caplog.text


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NodeStartError("no offer"), program.EXIT_USAGE),
        (WorkerError("no shard"), program.EXIT_FAILED),
        (LinkError("no link"), program.EXIT_FAILED),
        (ChainUnreachable("no chain"), program.EXIT_FAILED),
        (ChainError("no answer"), program.EXIT_FAILED),
    ],
    ids=lambda value: type(value).__name__,
)
def test_trouble_has_its_exit_code(
    error: Exception, code: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(settings: NodeSettings) -> None:
        raise error

    monkeypatch.setattr(runtime, "run_node", fail)
    assert program.main(["--once"]) == code
    assert str(error) in caplog.text
