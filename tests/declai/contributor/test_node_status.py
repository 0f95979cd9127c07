"""`declai node status`: a node that is silent is not healthy."""

from __future__ import annotations

import json
import time
from pathlib import Path

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
