"""What a request leaves behind: receipts, costs, freed reservations; when all goes well, on cancel, and on failure."""

from __future__ import annotations

import json
import re
import socket
import time
from collections import Counter
from pathlib import Path

import httpx
import openai
import pytest

from declai.api.nodes.hub import LinkHub
from declai.api.settlement.periodic import collect_fees, run_settlement
from declai.chain.pricing import Tier, format_credits, request_cost, stage_cost
from declai.devnet.chain_setup import OUTPUT_PRICE, PROMPT_PRICE
from declai.protocol.peers import Peer
from declai.protocol.wire import Finish, Frame, Prompt, Token
from tests.support.echo_network import LAYERS, MODEL, EchoNode, Network, register_node
from tests.support.gateway_requests import LONG, check_acceptance, check_receipts, ended, reserved, stored_requests
from tests.support.waiting import wait_until


def cost_of(num_prompt_tokens: int, num_output_tokens: int, tier: Tier = Tier.RESEARCH) -> int:
    """What a request costs on the three nodes, from first principles."""
    costs = [
        stage_cost(
            num_prompt_tokens=num_prompt_tokens,
            num_output_tokens=num_output_tokens,
            prompt_price=PROMPT_PRICE,
            output_price=OUTPUT_PRICE,
            num_layers=end - first,
            tier=tier,
        )
        for first, end in LAYERS
    ]
    return request_cost(costs, 500)


@pytest.mark.parametrize("tier", list(Tier))
def test_receipts_add_up(http: httpx.Client, idle: Network, tier: Tier) -> None:
    response = http.post(
        "/v1/completions", json={"model": MODEL, "prompt": "hello world", "max_tokens": 50, "tier": tier.name.lower()}
    )
    usage = response.json()["usage"]
    receipts = http.get(f"/v1/receipts/{response.headers['x-declai-request']}").json()
    cost = cost_of(usage["prompt_tokens"], usage["completion_tokens"], tier)
    assert int(receipts["cost"]) == cost
    assert usage["cost_credits"] == receipts["cost_credits"] == format_credits(cost)
    assert receipts["state"] == "finished"
    assert sum(int(stage["receipt"]["cost"]) for stage in receipts["stages"]) + int(receipts["fee"]) == cost
    check_receipts(idle, receipts, usage)
    assert reserved(idle) == 0
    for node in idle.nodes:
        wait_until(lambda node=node: not node.store.unacknowledged(since=0), "the acknowledgement")  # type: ignore[misc]
        check_acceptance(idle, node, response.headers["x-declai-request"])


def failed_attempts(network: Network) -> Counter[str]:
    """How many attempts have failed, by code."""
    text = httpx.get(f"{network.url}/metrics").text
    found = re.findall(r'declai_attempts_failed_total{code="(\w+)"} (\d+)', text)
    return Counter({code: int(number) for code, number in found})


def test_receipts_of_no_request(http: httpx.Client) -> None:
    assert http.get("/v1/receipts/0x" + "00" * 32).status_code == 404
    assert http.get("/v1/receipts/abc").status_code == 400


@pytest.mark.parametrize("stream", [False, True])
def test_closing_the_connection_stops_the_stages(idle: Network, api_key: str, stream: bool) -> None:
    for node in idle.nodes:
        node.engine.delay_s = 0.02
    body = json.dumps({"model": MODEL, "prompt": LONG, "max_tokens": 60, "stream": stream}).encode()
    host, port = idle.url.removeprefix("http://").split(":")
    before = {row.request for row in stored_requests(idle)}
    with socket.create_connection((host, int(port)), timeout=10) as sock:
        head = f"POST /v1/completions HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {api_key}\r\n"
        sock.sendall(f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        if stream:
            assert b"data:" in sock.recv(65536) + sock.recv(65536)
        started = idle.nodes[-1].engine.num_steps
        wait_until(lambda: idle.nodes[-1].engine.num_steps > started + 5, "some tokens")
    closed = time.monotonic()
    wait_until(lambda: not any(node.engine.sequences for node in idle.nodes), "the stages' stop")
    assert time.monotonic() - closed < 5
    request = next(row.request for row in stored_requests(idle) if row.request not in before)
    row = ended(idle, request)
    assert (row.state, row.finish_reason) == ("finished", "cancelled")
    assert 0 < row.num_output_tokens < 60
    assert row.cost == cost_of(row.num_prompt_tokens, row.num_output_tokens)
    assert reserved(idle) == 0


def test_the_openai_client_cancels_by_closing(client: openai.OpenAI, idle: Network) -> None:
    for node in idle.nodes:
        node.engine.delay_s = 0.02
    stream = client.completions.create(model=MODEL, prompt=LONG, max_tokens=60, stream=True)
    request = stream.response.headers["x-declai-request"]
    for _, _chunk in zip(range(3), stream, strict=False):
        pass
    stream.close()
    row = ended(idle, request)
    assert row.finish_reason == "cancelled"
    assert row.num_output_tokens < 60


def test_a_stage_that_breaks_in_mid_stream(client: openai.OpenAI, idle: Network) -> None:
    idle.nodes[1].engine.delay_s = 0.02
    before = failed_attempts(idle)
    stream = client.completions.create(model=MODEL, prompt=LONG, max_tokens=60, stream=True)
    request = stream.response.headers["x-declai-request"]
    seen = [next(iter(stream))]
    idle.nodes[1].engine.broken = True
    with pytest.raises(openai.APIError) as caught:
        seen += list(stream)
    assert caught.value.code == "stage_failed"
    row = ended(idle, request)
    assert (row.state, row.cost) == ("failed", 0)
    assert reserved(idle) == 0
    assert failed_attempts(idle) - before == Counter(engine_error=1)
    wait_until(lambda: not any(node.engine.sequences for node in idle.nodes), "the other stages' stop")


def test_a_stage_that_breaks_before_the_first_token(http: httpx.Client, idle: Network) -> None:
    idle.nodes[2].engine.broken = True
    response = http.post("/v1/completions", json={"model": MODEL, "prompt": "hi", "max_tokens": 5})
    assert response.status_code in (502, 503)
    assert response.json()["error"]["code"] in ("stage_failed", "no_capacity")
    assert ended(idle, response.headers["x-declai-request"]).cost == 0


def test_a_silent_stage_is_given_up(http: httpx.Client, idle: Network) -> None:
    idle.nodes[0].engine.silent = True
    response = http.post("/v1/completions", json={"model": MODEL, "prompt": "hi", "max_tokens": 5})
    assert response.status_code in (502, 503)
    assert ended(idle, response.headers["x-declai-request"]).cost == 0
    assert reserved(idle) == 0


def test_a_slow_reader_holds_nobody_up(idle: Network, api_key: str, http: httpx.Client) -> None:
    body = json.dumps({"model": MODEL, "prompt": LONG, "max_tokens": 60, "stream": True}).encode()
    host, port = idle.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        head = f"POST /v1/completions HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {api_key}\r\n"
        sock.sendall(f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        wait_until(lambda: stored_requests(idle)[-1].state == "finished", "the request's end without a reader")
        answer = http.post("/v1/completions", json={"model": MODEL, "prompt": "hi", "max_tokens": 5})
        assert answer.status_code == 200
        received = b""
        while b"[DONE]" not in received:
            piece = sock.recv(512)
            assert piece, received[-200:]
            received += piece


def test_stream_events_end_in_order(http: httpx.Client) -> None:
    body = {
        "model": MODEL,
        "prompt": "hi\ndata: x\n\n\u2028\x85",
        "max_tokens": 30,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    response = http.post("/v1/completions", json=body)
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["x-declai-request"].startswith("0x")
    assert response.content.isascii()
    events = response.text.split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    chunks = [json.loads(event.removeprefix("data: ")) for event in events[:-2]]
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["cost_credits"]
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop"
    assert all(chunk["usage"] is None for chunk in chunks[:-1])


def test_another_node_steps_in_before_the_first_token(http: httpx.Client, idle: Network, tmp_path: Path) -> None:
    spare = EchoNode(
        tmp_path, idle.chain, idle.manifest, idle.manifest_cid, idle.tokenizer, LAYERS[1], seconds_per_token_layer=1.0
    )
    register_node(idle.chain, idle.treasury, spare)
    spare.start(idle.url, idle.operator.address)
    try:
        directory = idle.gateway.directory
        wait_until(lambda: len(directory.live()) == len(idle.nodes) + 1, "the spare node's heartbeat")
        body = {"model": MODEL, "prompt": "hello", "max_tokens": 30}
        estimate = http.post("/v1/estimate", json=body).json()
        assert estimate["stages"][1]["node"] == idle.nodes[1].address
        idle.nodes[1].engine.broken = True
        answer = http.post("/v1/completions", json=body)
        assert answer.status_code == 200, answer.text
        assert answer.json()["choices"][0]["text"].strip() == "hello"
        receipts = http.get(f"/v1/receipts/{answer.headers['x-declai-request']}").json()
        assert receipts["stages"][1]["assignment"]["node"] == spare.address
        assert receipts["stages"][1]["assignment"]["attempt"] == 1
        check_receipts(idle, receipts, answer.json()["usage"], {spare.address: spare.signer.address})
    finally:
        spare.stop()
        idle.gateway.directory.lost(spare.address)


def test_settlement_pays_what_the_receipts_say(http: httpx.Client, idle: Network) -> None:
    http.post("/v1/completions", json={"model": MODEL, "prompt": "pay them", "max_tokens": 30})
    earned: Counter[str] = Counter()
    for row in stored_requests(idle):
        for stage in idle.gateway.store.request_stages(row.request):
            earned[stage.assignment.node] += stage.cost
    fees = sum(int(row.fee or 0) for row in stored_requests(idle))
    assert run_settlement(idle.settings)
    assert run_settlement(idle.settings) == []
    for node, amount in earned.items():
        assert idle.chain.ledger.balance_of(node) == amount
    assert idle.chain.ledger.fees_of(idle.operator.address) == fees
    assert collect_fees(idle.settings) == fees
    assert collect_fees(idle.settings) == 0
    assert idle.chain.ledger.balance_of(idle.operator.address) == fees


def test_what_a_cut_link_lost_or_brought_twice_spoils_no_request(
    idle: Network, http: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts: list[Prompt] = []
    send, take = LinkHub.send, LinkHub._take

    def send_all_but_the_first_prompt(hub: LinkHub, peer: Peer, frame: Frame) -> None:
        if isinstance(frame, Prompt):
            prompts.append(frame)
            if len(prompts) == 1:
                return
        send(hub, peer, frame)

    def take_twice(hub: LinkHub, sender: bytes, frame: Frame, connection: bytes) -> None:
        for _ in range(2 if isinstance(frame, Token | Finish) else 1):
            take(hub, sender, frame, connection)

    monkeypatch.setattr(LinkHub, "send", send_all_but_the_first_prompt)
    monkeypatch.setattr(LinkHub, "_take", take_twice)
    body = {"model": MODEL, "prompt": "hello", "max_tokens": 20, "ignore_eos": True}
    answer = http.post("/v1/completions", json=body)
    assert answer.json()["usage"]["completion_tokens"] == 20
    assert len(prompts) == 2
