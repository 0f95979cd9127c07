"""The routes around generation: estimate, nodes and join, network, health, metrics, blocks, signed requests."""

from __future__ import annotations

import base64
import json
import secrets
import time
from typing import Any

import httpx
import pytest
import redis
import rfc8785
from eth_account.signers.local import LocalAccount
from eth_utils.crypto import keccak

from declai.chain.contracts.models import model_id
from declai.chain.messages import InferenceRequest, digest, new_account, sign
from declai.chain.pricing import Tier
from declai.chain.sender import TransactionSender
from declai.ipfs.exchange import Exchange
from declai.ipfs.store import BlockStore
from declai.protocol.wire import VERSION
from tests.support.echo_network import LAYERS, MODEL, NUM_LAYERS, EchoNode, Network, register_node
from tests.support.waiting import wait_until

BODY = {"model": MODEL, "prompt": "hello", "max_tokens": 20}


def test_an_estimate_needs_no_key_and_bounds_the_cost(idle: Network, http: httpx.Client) -> None:
    estimate = httpx.post(f"{idle.url}/v1/estimate", json=BODY).json()
    assert [stage["layers"] for stage in estimate["stages"]] == [list(layers) for layers in LAYERS]
    answer = http.post("/v1/completions", json=BODY | {"ignore_eos": True})
    receipts = http.get(f"/v1/receipts/{answer.headers['x-declai-request']}").json()
    assert receipts["cost"] == estimate["max_cost"]
    chat = httpx.post(f"{idle.url}/v1/estimate", json={"model": MODEL, "messages": [{"role": "user", "content": "x"}]})
    assert chat.json()["max_tokens"] > 0
    refused = httpx.post(f"{idle.url}/v1/estimate", json={"model": MODEL})
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "prompt"
    refused = httpx.post(f"{idle.url}/v1/estimate", json={"model": MODEL, "messages": [{"role": "user", "content": 1}]})
    assert refused.json()["error"]["param"] == "messages"
    assert refused.json()["error"]["message"].startswith("messages[0].content:")


def test_nodes_and_network(idle: Network) -> None:
    nodes = httpx.get(f"{idle.url}/v1/nodes").json()["data"]
    assert {node["address"] for node in nodes} == {node.address for node in idle.nodes}
    assert sorted(tuple(node["layers"]) for node in nodes) == LAYERS
    assert all(node["model"] == MODEL and node["live"] and node["capacity"] == 8 for node in nodes)
    network = httpx.get(f"{idle.url}/v1/network").json()
    assert network["gateway"]["address"] == idle.operator.address
    assert network["contracts"]["InferenceLedger"] == idle.chain.ledger.address
    assert network["models"] == [MODEL]
    assert network["gateway"]["coarsest_prompt_format"] == "profile"


def test_health_metrics_and_description(idle: Network, http: httpx.Client) -> None:
    assert httpx.get(f"{idle.url}/healthz").text == "ok"
    ready = httpx.get(f"{idle.url}/readyz")
    assert ready.json() == {"ready": True, "chain": True, "store": True, "broker": True}
    http.post("/v1/completions", json=BODY)
    text = httpx.get(f"{idle.url}/metrics").text
    assert 'declai_tokens_total{kind="output"}' in text
    assert "declai_nodes_live 3.0" in text
    assert 'route="/v1/completions",status="200"' in text
    paths = httpx.get(f"{idle.url}/openapi.json").json()["paths"]
    assert paths.keys() >= {"/v1/chat/completions", "/v1/completions", "/v1/models", "/v1/estimate", "/v1/nodes"}
    assert "access-control-allow-origin" not in httpx.get(f"{idle.url}/healthz", headers={"Origin": "http://x"}).headers


def test_blocks_can_be_pulled(idle: Network, tmp_path: Any) -> None:
    store = BlockStore(tmp_path)
    exchange = Exchange(store, [idle.url])
    exchange.fetch(idle.manifest_cid)
    for cid in idle.manifest.cids():
        exchange.fetch(cid)
    exchange.close()
    assert len(idle.manifest.cids()) >= NUM_LAYERS
    assert httpx.get(f"{idle.url}/ipfs/nonsense").status_code == 400


def test_who_may_join(idle: Network) -> None:
    node, gateway = idle.nodes[0], idle.operator.address

    def join(body: dict[str, Any]) -> tuple[int, str | None]:
        response = httpx.post(f"{idle.url}/v1/nodes/join", json=body)
        return response.status_code, response.json().get("error", {}).get("code")

    stranger = new_account().address
    assert join(node.join_body(gateway, address=stranger)) == (403, "node_not_registered")
    assert join(node.join_body(gateway, address=idle.nodes[1].address)) == (403, "node_not_registered")
    assert join(node.join_body(stranger)) == (403, "node_not_registered")  # signed for another gateway
    assert join(node.join_body(gateway, timestamp=int(time.time()) - 3600)) == (401, "deadline_expired")
    assert join(node.join_body(gateway, timestamp=int(time.time()) + 3600)) == (401, "deadline_expired")
    assert join(node.join_body(gateway, wire_version=VERSION + 1)) == (400, "wrong_wire_version")
    body = node.join_body(gateway)
    assert join({name: body[name] for name in body if name != "wire_version"}) == (400, "wrong_wire_version")
    assert join(body | {"signature": "0x" + "11" * 65}) == (401, "invalid_signature")
    assert join(body | {"extra": 1})[0] == 400
    assert join({})[0] == 400


def test_a_join_is_used_once_and_the_account_can_only_pop(idle: Network) -> None:
    node = idle.nodes[0]
    body = node.join_body(idle.operator.address)
    answer = httpx.post(f"{idle.url}/v1/nodes/join", json=body).json()
    try:
        assert httpx.post(f"{idle.url}/v1/nodes/join", json=body).json()["error"]["code"] == "nonce_replayed"
        assert "@" not in answer["redis_url"]
        account = redis.Redis.from_url(answer["redis_url"], username=answer["username"], password=answer["password"])
        account.ping()
        for command in (("LPUSH", f"node:{node.address.lower()}:tasks", "x"), ("KEYS", "*"), ("GET", "a")):
            with pytest.raises(redis.exceptions.NoPermissionError):
                account.execute_command(*command)  # type: ignore[no-untyped-call]
        account.close()
    finally:
        node.rejoin(idle.url, idle.operator.address)


class Wallet:
    """A client that signs its requests with a session key of its own."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.key: LocalAccount = new_account()
        self.session = network.open_session(key=self.key.address)
        self.nonce = self.acked_below = self.spent = 0

    def post(self, body: dict[str, Any], **changes: Any) -> httpx.Response:
        estimate = httpx.post(f"{self.network.url}/v1/estimate", json=body).json()
        salt = secrets.token_bytes(32)
        values = {
            "session": self.session,
            "nonce": self.nonce,
            "model": model_id(MODEL),
            "body": keccak(salt + rfc8785.dumps(body)),
            "max_tokens": estimate["max_tokens"],
            "tier": int(Tier.RESEARCH),
            "max_cost": int(estimate["max_cost"]),
            "acked_below": self.acked_below,
            "spent": self.spent,
            "deadline": int(time.time()) + 120,
        }
        signer = changes.pop("signer", self.key)
        sent = changes.pop("sent", body)
        message = InferenceRequest(**(values | changes))
        envelope = {
            "request": message.model_dump(mode="json"),
            "salt": "0x" + salt.hex(),
            "signature": "0x" + sign(message, self.network.chain.domain, signer).hex(),
        }
        header = "DeCLAI " + base64.urlsafe_b64encode(json.dumps(envelope).encode()).decode()
        response = httpx.post(
            f"{self.network.url}/v1/completions", json=sent, headers={"Authorization": header}, timeout=30
        )
        if response.status_code == 200:
            assert response.headers["x-declai-request"] == "0x" + digest(message, self.network.chain.domain).hex()
        return response


def test_signed_requests(idle: Network) -> None:
    wallet = Wallet(idle)

    def refused(status: int, code: str, **changes: Any) -> dict[str, Any]:
        response = wallet.post(BODY, **changes)
        error: dict[str, Any] = response.json()["error"]
        assert (response.status_code, error["code"]) == (status, code), error
        return error

    refused(401, "invalid_signature", signer=new_account())
    refused(401, "invalid_signature", sent=BODY | {"prompt": "other"})
    refused(401, "invalid_signature", tier=1)
    refused(401, "invalid_signature", max_tokens=19)
    refused(401, "invalid_signature", model=model_id("other"))
    refused(401, "deadline_expired", deadline=int(time.time()) - 1)
    assert int(refused(402, "max_cost_too_low", max_cost=1)["max_cost"]) > 1
    refused(403, "session_unusable", session=b"\7" * 32)
    refused(409, "acknowledgement_mismatch", spent=5)
    assert idle.gateway.store.session_totals("0x" + wallet.session.hex()).next_nonce == 0

    first = wallet.post(BODY)
    assert first.status_code == 200, first.text
    refused(409, "nonce_replayed")
    receipts = httpx.get(f"{idle.url}/v1/receipts/{first.headers['x-declai-request']}").json()
    wallet.nonce, wallet.acked_below, wallet.spent = 1, 1, int(receipts["cost"])
    assert wallet.post({name: BODY[name] for name in ("model", "prompt")}, max_tokens=7).status_code == 200


def test_a_node_with_a_nonsense_endpoint_is_no_node(idle: Network, http: httpx.Client, tmp_path: Any) -> None:
    """It has its stake and beats, and offers to work for nothing; a plan with it could never be carried out."""
    node = EchoNode(
        tmp_path, idle.chain, idle.manifest, idle.manifest_cid, idle.tokenizer, LAYERS[0], seconds_per_token_layer=1e-9
    )
    register_node(idle.chain, idle.treasury, node)
    node.start(idle.url, idle.operator.address)
    try:
        directory = idle.gateway.directory
        wait_until(lambda: len(directory.live()) == len(idle.nodes) + 1, "its heartbeat")
        nonsense = idle.chain.nodes.set_endpoint("tcp://nowhere", "", node.keys.public)
        TransactionSender(idle.chain, node.operator).send(nonsense)
        wait_until(lambda: directory.worker(node.address) is None, "the gateway's notice")
        assert http.post("/v1/completions", json=BODY).status_code == 200
        assert len(directory.live()) == len(idle.nodes)
    finally:
        node.stop()
