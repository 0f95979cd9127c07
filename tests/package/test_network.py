"""The package and the images in a network: an installed client that pays, health checks, installed nodes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from declai.children import Child, spawn
from declai.devnet.devnet import Devnet, Options
from declai.devnet.layout import DevnetLayout
from tests.support.devnet import Running
from tests.support.dockerfiles import stages_of
from tests.support.packages import Installed

ASK = """
import json, sys
from pathlib import Path
from declai import Client

with Client(Path(sys.argv[1])) as client:
    session = client.open_session(10**18)
    answer = client.chat("What is a list?", max_tokens=8, temperature=0)
    spent = client.sessions()[0].spent_units
print(json.dumps([answer.text, answer.usage.completion_tokens, answer.request, spent, "torch" in sys.modules]))
"""


class InstalledDevnet(Devnet):
    """A devnet of this checkout whose gateway and nodes are those of an installed package."""

    installed: Installed

    def _spawn(self, name: str, arguments: list[str], layout: DevnetLayout, env: dict[str, str]) -> Child:
        command = [str(self.installed.python), "-m", "declai", *arguments]
        place = {"OMP_NUM_THREADS": "1", **self.installed.env, **env}
        child = spawn(name, command, layout.logs / f"{name}.log", place, cwd=layout.folder)
        self.children.append(child)
        return child


@pytest.fixture
def installed_devnet(whole: Installed, tmp_path: Path) -> Iterator[Path]:
    """The network file of a devnet."""
    layout = DevnetLayout(tmp_path / "net")
    devnet = InstalledDevnet(Options(layout.folder, threads_per_node=1, settle_every_s=3600), lambda step: None)
    devnet.installed = whole
    try:
        devnet.up()
        yield layout.network_file
    finally:
        devnet.down()


def ask(installed: Installed, network_file: Path) -> None:
    """Ask as a requester's program does: a session, a signed request, its receipts checked and acknowledged."""
    text, num_tokens, request, spent, has_torch = json.loads(installed.ok("-c", ASK, network_file))
    assert text
    assert num_tokens == 8
    assert request.startswith("0x")
    assert spent > 0
    assert not has_torch


def test_the_plain_client_asks_a_gateway(plain: Installed, devnet: Running) -> None:
    ask(plain, devnet.cli.home / "devnet" / "devnet.json")


def test_the_gateways_health_check_sees_whether_it_answers(devnet: Running) -> None:
    python, *words = stages_of("gateway")[-1].one("HEALTHCHECK").exec_form
    assert python == "python"

    def check(port: str) -> int:
        return subprocess.run([sys.executable, *words], env={"DECLAI_PORT": port}, capture_output=True).returncode

    assert check(devnet.network.gateway.url.rpartition(":")[2]) == 0
    assert check("9") != 0


def test_the_nodes_health_check_sees_whether_it_lives(devnet: Running) -> None:
    command, *words = stages_of("node")[-1].one("HEALTHCHECK").exec_form
    assert command == "declai"
    config = ["--config", str(devnet.cli.home / "devnet" / "node-0.toml")]
    devnet.cli.ok(*words, *config)


@pytest.mark.nightly
def test_installed_nodes_and_gateway_serve_a_network(installed_devnet: Path, whole: Installed) -> None:
    ask(whole, installed_devnet)
    for config in sorted(installed_devnet.parent.glob("node-*.toml")):
        assert "serving" in whole.ok("-m", "declai", "node", "status", "--max-age", "30", "--config", config)
    env = {**whole.env, "DECLAI_CONFIG": str(installed_devnet.with_name("gateway.toml"))}
    command = [str(whole.python), "-m", "declai", "gateway", "settle", "--json", "--network", str(installed_devnet)]
    done = subprocess.run(command, env=env, cwd=os.sep, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[0]["gas_used"] > 0
