"""What a devnet survives, and what ends with it: a killed node, a killed devnet."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from declai.client.aio import chain_of
from declai.network import Network
from tests.support.devnet import Cli, running_devnet
from tests.support.waiting import wait_until


@pytest.fixture
def own_devnet(tmp_path: Path) -> Iterator[tuple[Network, subprocess.Popen[bytes]]]:
    """A devnet of two nodes that the test may break."""
    with running_devnet(Cli(tmp_path), "--nodes", "2", "--settle-every", "1") as running:
        yield running.network, running.process


def post(network: Network, **body: object) -> httpx.Response:
    return httpx.post(
        f"{network.gateway.url}/v1/completions",
        json={"model": "declai-demo", "prompt": "The list", **body},
        headers={"Authorization": f"Bearer {network.api_key}"},
        timeout=120,
    )


def descendants(pid: int) -> set[int]:
    """Every process under `pid`, from /proc."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found: set[int] = set()
    waiting = [pid]
    while waiting:
        for child in children.get(waiting.pop(), []):
            found.add(child)
            waiting.append(child)
    return found


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_settled_by_the_clock_then_a_node_is_killed_then_the_devnet(
    own_devnet: tuple[Network, subprocess.Popen[bytes]],
) -> None:
    network, process = own_devnet
    assert post(network, max_tokens=3).status_code == 200
    ledger = chain_of(network).ledger
    wait_until(
        lambda: all(ledger.balance_of(node.address) > 0 for node in network.nodes), "the periodic settlement", 60
    )
    with httpx.stream(
        "POST",
        f"{network.gateway.url}/v1/completions",
        json={"model": "declai-demo", "prompt": "A", "max_tokens": 1000, "stream": True, "ignore_eos": True},
        headers={"Authorization": f"Bearer {network.api_key}"},
        timeout=120,
    ) as response:
        request = response.headers["x-declai-request"]
        lines = response.iter_lines()
        next(lines)
        os.kill(network.nodes[1].pid, signal.SIGKILL)
        rest = [line for line in lines if line.startswith("data: ")]
    assert '"error"' in rest[-1]
    assert '"stage_failed"' in rest[-1]
    receipts = httpx.get(f"{network.gateway.url}/v1/receipts/{request}").json()
    assert (receipts["state"], int(receipts["cost"])) == ("failed", 0)

    wait_until(lambda: post(network, max_tokens=3).status_code == 503, "a refusal", 60)
    refused = post(network, max_tokens=3)
    assert refused.json()["error"]["code"] == "no_capacity"
    assert httpx.get(f"{network.gateway.url}/healthz").status_code == 200

    family = descendants(process.pid)
    assert len(family) >= 5
    process.kill()
    process.wait()
    wait_until(lambda: not any(is_running(pid) for pid in family), "the end of all processes", 60)
