"""A contributor's node in a real network: its desk, its store, and ways to let the gateway or the program die."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from declai.devnet.programs import write_settings
from declai.worker.job.store import StoredReceipt
from tests.support.desks import Desk
from tests.support.devnet import ROOT
from tests.support.echo_network import MODEL, EchoNode, Network
from tests.support.waiting import wait_until
from tests.support.world import World, rpc


@dataclass
class Serving:
    """A network on a chain of its own, and the desk of one node's operator."""

    network: Network
    desk: Desk
    node: EchoNode
    config: Path
    data_dir: Path

    @classmethod
    def of(cls, network: Network, folder: Path, number: int) -> Serving:
        """The desk of the node with this number, whose store lies in the folder."""
        node, desk = network.nodes[number], Desk(World(network.chain, network.treasury), folder / "home")
        desk.keep("node", node.operator)
        config = folder / "node.toml"
        deployment = network.settings.deployment
        data_dir = deployment.parent / f"node{number}"
        places = {"gateway_url": network.url, "deployment": str(deployment), "data_dir": str(data_dir)}
        write_settings(config, {"model": MODEL, **places})
        return cls(network, desk, node, config, data_dir)

    @property
    def claim(self) -> list[str]:
        return ["node", "claim", "--wallet", "node", "--config", str(self.config)]

    @property
    def num_sent(self) -> int:
        """Transactions of the operator's."""
        return int(self.network.chain.w3.eth.get_transaction_count(self.node.operator.address))

    def ask(self) -> str:
        """Have a request served and its receipts accepted; returns its session's id."""
        session = self.network.open_session()
        key = self.network.login(session)
        body = {"model": MODEL, "prompt": "hello", "max_tokens": 30}
        headers = {"Authorization": f"Bearer {key}"}
        answer = httpx.post(f"{self.network.url}/v1/completions", json=body, headers=headers, timeout=30)
        assert answer.status_code == 200, answer.text
        for node in self.network.nodes:
            wait_until(lambda node=node: [k for k in node.store.unpaid() if k.acceptance], "the acceptance")  # type: ignore[misc]
        return "0x" + session.hex()

    def kept(self) -> StoredReceipt:
        """The only unpaid receipt."""
        (kept,) = self.node.store.unpaid()
        return kept

    def rpc(self, method: str, *parameters: Any) -> Any:
        return rpc(self.network.chain, method, *parameters)

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """The program as a process of its own."""
        command = [sys.executable, "-m", "declai", *arguments]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(command, env=self.desk.env, cwd=ROOT, **pipes)  # type: ignore[call-overload, no-any-return]

    def kill_when_sent(self, *arguments: str) -> None:
        """Run a command that is killed when its first transaction is sent and not mined; then mine it."""
        self.rpc("evm_setAutomine", False)
        process = self.start(*arguments)
        self.wait_for_sent()
        process.send_signal(signal.SIGKILL)
        out, _ = process.communicate()
        assert (process.returncode, out) == (-signal.SIGKILL, b"")
        self.rpc("evm_mine")
        self.rpc("evm_setAutomine", True)

    def wait_for_sent(self, number: int = 1) -> None:
        """Until so many transactions wait to be mined."""
        wait_until(lambda: int(self.rpc("txpool_status")["pending"], 16) == number, "the transaction")

    def copy_store(self) -> Path:
        """The node's receipts on another machine, so to say; returns the settings there."""
        folder = self.config.parent / "elsewhere"
        folder.mkdir()
        with sqlite3.connect(self.data_dir / "node.db") as here, sqlite3.connect(folder / "node.db") as there:
            here.backup(there)
        config = folder / "node.toml"
        config.write_text(self.config.read_text().replace(str(self.data_dir), str(folder)))
        return config
