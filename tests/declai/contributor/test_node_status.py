"""`declai node status`: a node that is silent is not healthy."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from declai.worker.node.status import StatusFile
from tests.support.devnet import Cli


def node_silent_for(seconds: float, folder: Path) -> list[str]:
    """The arguments for a node that wrote its status so long ago."""
    folder.mkdir(exist_ok=True)
    (folder / "status.json").write_text(json.dumps({"state": "serving", "written_at": int(time.time() - seconds)}))
    config = folder / "node.toml"
    config.write_text(f'model = "m"\ngateway_url = "http://127.0.0.1:9"\ndata_dir = "{folder}"\n')
    return ["node", "status", "--config", str(config)]


def test_a_node_that_is_silent_for_longer_than_asked_fails(cli: Cli, tmp_path: Path) -> None:
    status = node_silent_for(3600, tmp_path / "node")
    assert "serving" in cli.ok(*status)
    assert "serving" in cli.ok(*status, "--max-age", "7200")
    assert "the node is serving, and has been silent for 36" in cli.fails(*status, "--max-age", "60")


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        ({"state": "stopped", "written_at": 0}, "the node is stopped"),
        ({"state": "starting", "written_at": 0, "starting_since": -700}, "the node has been starting for 70"),
        ({"state": "serving", "written_at": 0, "engine_thread": {"last_turn_at": -90}}, "engine thread has hung for 9"),
        ({"state": "serving", "written_at": 3600}, "in the future"),
        ({}, "no status of a node"),
        ([], "no status of a node"),
    ],
    ids=repr,
)
def test_a_node_that_does_not_work_is_not_well(status: Any, sentence: str, cli: Cli, tmp_path: Path) -> None:
    """Times are seconds from now on."""
    command = node_silent_for(0, tmp_path)
    now = time.time()
    if status:
        status = status | {name: status[name] + now for name in ("written_at", "starting_since") if name in status}
        if "engine_thread" in status:
            status["engine_thread"] = {"last_turn_at": now - 90}
    (tmp_path / "status.json").write_text(json.dumps(status))
    assert sentence in cli.fails(*command, "--max-age", "60")


def test_a_node_that_starts_is_well_for_ten_minutes(cli: Cli, tmp_path: Path) -> None:
    command = node_silent_for(0, tmp_path)
    status = {"state": "starting", "written_at": time.time(), "starting_since": time.time() - 300}
    (tmp_path / "status.json").write_text(json.dumps(status))
    assert "starting" in cli.ok(*command, "--max-age", "60")


def test_starts_that_fail_count_as_one(tmp_path: Path) -> None:
    path = tmp_path / "status.json"

    def starting_since(supervised_since: float) -> float:
        with StatusFile(path, {}, supervised_since):
            return float(json.loads(path.read_text())["starting_since"])

    first = starting_since(0)
    path.write_text(json.dumps({"state": "stopped", "starting_since": first - 100}))
    assert starting_since(first - 500) == first - 100
    assert starting_since(first + 50) == first + 50, "another supervisor's failures are not this one's"
