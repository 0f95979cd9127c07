"""How a node's program ends: each kind of trouble at its start has a sentence and an exit code."""

from __future__ import annotations

import json
import logging
import os
import socket
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from declai.chain.errors import ChainError, ChainUnreachable
from declai.links.errors import LinkError
from declai.links.keys import LinkKeyPair
from declai.links.node_links import NodeLinks
from declai.worker.errors import NodeStartError, WorkerError
from declai.worker.job.store import NodeStore
from declai.worker.node import program, runtime
from declai.worker.node.settings import NodeSettings
from declai.worker.node.startup import STEPS, NodeParts
from declai.worker.node.status import StatusFile
from tests.support.old_databases import copy_of


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DECLAI_MODEL", "any")
    monkeypatch.setenv("DECLAI_GATEWAY_URL", "http://127.0.0.1:1")
    monkeypatch.setattr(program, "set_up_logging", lambda: None)


def test_an_address_that_is_taken_ends_a_node_with_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    keys = LinkKeyPair.create(tmp_path / "link.key")

    def listen(settings: NodeSettings, supervised_since: float) -> None:
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
    def fail(settings: NodeSettings, supervised_since: float) -> None:
        raise error

    monkeypatch.setattr(runtime, "run_node", fail)
    assert program.main(["--once"]) == code
    assert str(error) in caplog.text


@pytest.mark.parametrize(("text", "sentence"), [("no toml [", "is no TOML"), (None, "which is no file")])
def test_a_file_of_settings_that_is_none_ends_a_node_with_a_sentence(
    text: str | None, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "node.toml"
    if text is not None:
        file.write_text(text)
    monkeypatch.setenv("DECLAI_CONFIG", str(file))
    assert program.main([]) == program.EXIT_USAGE
    assert f"{file}" in caplog.text
    assert sentence in caplog.text


def test_a_store_of_a_later_release_ends_a_node_before_anything_is_loaded(tmp_path: Path) -> None:
    NodeStore(tmp_path / "node.db").close()
    with closing(sqlite3.connect(tmp_path / "node.db")) as db:
        db.execute("UPDATE declai_node_version SET version_num = '0009'")
        db.commit()
    names = [step.__name__ for step in STEPS]
    assert names.index("_store") < names.index("_layers")
    settings = NodeSettings(model="m", gateway_url="http://127.0.0.1:1", data_dir=tmp_path)
    step = STEPS[names.index("_store")]
    node = NodeParts(settings, 0)
    node.status = StatusFile(settings.status_file, {}, 0)
    with pytest.raises(NodeStartError, match="version 9"), step(node):
        pass


def test_a_node_does_not_migrate_the_store_under_one_of_an_older_release(tmp_path: Path) -> None:
    path = copy_of("v1/node.db", tmp_path)
    before = path.read_bytes()
    settings = NodeSettings(model="m", gateway_url="http://127.0.0.1:1", data_dir=tmp_path)
    status = {"pid": os.getppid(), "state": "serving", "written_at": int(time.time())}
    settings.status_file.write_text(json.dumps(status))
    step = next(step for step in STEPS if step.__name__ == "_store")
    node = NodeParts(settings, 0)
    node.status = StatusFile(settings.status_file, {}, 0)
    with pytest.raises(NodeStartError, match="the node of the older release still runs: stop it"), step(node):
        pass
    assert path.read_bytes() == before
    settings.status_file.write_text(json.dumps(status | {"state": "stopped"}))
    node.status = StatusFile(settings.status_file, {}, 0)
    with step(node):
        assert node.store.unpaid()


def test_a_status_file_that_cannot_be_written_ends_a_node_with_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NodeStartError, match=r"cannot write .* set another data_dir"):
        StatusFile(tmp_path / "file" / "status.json", {}, 0).__enter__()
