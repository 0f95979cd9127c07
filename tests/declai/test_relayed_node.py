"""A network of real processes in which nobody can connect to the middle node."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from transformers import AutoModelForCausalLM

from declai.chain.client import Chain
from declai.devnet.chain_setup import Member
from declai.devnet.devnet import DEFAULT_MODEL, Devnet, Options
from declai.devnet.layout import DevnetLayout
from declai.devnet.processes import ChainKind
from declai.network import Network
from declai.protocol.peers import RELAY
from tests.support.waiting import wait_until

RELAYED, MAX_TOKENS = 1, 24
PROMPT = [5, 17, 3, 42, 8, 9, 60]


class RelayedDevnet(Devnet):
    """A devnet that registers one node without an endpoint."""

    def _set_up_chain(self, *arguments: Any) -> Chain:
        *rest, nodes = arguments
        members: list[Member] = list(nodes)
        members[RELAYED] = replace(members[RELAYED], endpoint=RELAY)
        return super()._set_up_chain(*rest, members)

    def restart_gateway(self) -> None:
        layout = DevnetLayout(self.options.folder)
        [child] = [child for child in self.children if child.name == "gateway"]
        child.stop()
        self.children.remove(child)
        self._spawn("gateway", ["gateway", "start"], layout, {"DECLAI_CONFIG": str(layout.gateway_config)})


@pytest.fixture
def running(tmp_path: Path, chain_kind: ChainKind, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Any, Network]]:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    devnet = RelayedDevnet(Options(tmp_path / "net", chain=chain_kind, threads_per_node=1), lambda text: None)
    try:
        yield devnet, devnet.up()
    finally:
        devnet.down()


def generated(prompt_ids: list[int]) -> list[int]:
    """What transformers makes of it in one process."""
    model = AutoModelForCausalLM.from_pretrained(DEFAULT_MODEL, dtype=torch.float32).eval()
    with torch.inference_mode():
        made = model.generate(torch.tensor([prompt_ids]), max_new_tokens=MAX_TOKENS, do_sample=False)
    return list(map(int, made[0][len(prompt_ids) :]))


def ask(network: Network) -> tuple[dict[str, Any], dict[str, Any]]:
    """(answer, receipts) of one request."""
    headers = {"Authorization": f"Bearer {network.api_key}"}
    body = {"model": network.model.name, "prompt": PROMPT, "max_tokens": MAX_TOKENS, "temperature": 0}
    body |= {"return_token_ids": True}
    with httpx.Client(base_url=network.gateway.url, headers=headers, timeout=60) as client:
        answer = client.post("/v1/completions", json=body)
        assert answer.status_code == 200, answer.text
        receipts = client.get(f"/v1/receipts/{answer.headers['x-declai-request']}").json()
    return answer.json(), receipts


def test_tokens_are_right_before_and_after_the_gateway_starts_again(running: tuple[Any, Network]) -> None:
    devnet, network = running
    node = network.nodes[RELAYED]
    host, port = node.endpoint.removeprefix("tcp://").rsplit(":", 1)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)), 1)
    answer, receipts = ask(network)
    choice = answer["choices"][0]
    expected = generated(PROMPT)
    assert choice["token_ids"] == expected
    assert [stage["assignment"]["node"] for stage in receipts["stages"]] == [node.address for node in network.nodes]
    assert all(int(stage["receipt"]["output_tokens"]) == len(expected) for stage in receipts["stages"])

    devnet.restart_gateway()

    def all_live() -> bool:
        try:
            rows = httpx.get(f"{network.gateway.url}/v1/nodes").json()["data"]
        except (httpx.HTTPError, ValueError):
            return False
        return len(rows) == len(network.nodes)

    wait_until(all_live, "all nodes being live", 60)
    assert ask(network)[0]["choices"][0]["token_ids"] == expected
