"""`n` choices are `n` requests, each paid and receipted by itself, and one answer; all of them enter, or none."""

from __future__ import annotations

import json
import socket
import time
from decimal import Decimal
from typing import Any

import httpx
import openai
import pytest

from declai.chain.contracts.models import model_id
from declai.chain.messages import InferenceRequest, new_account, sign
from declai.chain.pricing import UNITS_PER_CREDIT, format_credits
from declai.protocol.signed_requests import SignedHeader
from tests.support.echo_network import MODEL, Network
from tests.support.gateway_requests import CHAT, COMPLETION, LONG, ended, error_of, reserved, stored_requests
from tests.support.waiting import wait_until

# The echo's own tokens are not in this grammar, so that seeds decide.
VARIED: dict[str, Any] = {
    "model": MODEL,
    "prompt": "世界 " * 8,
    "max_tokens": 60,
    "seed": 2**64 - 2,
    "structured_outputs": {"regex": "[a-z]{8}"},
}


def requests_of(response: httpx.Response) -> list[str]:
    found = response.headers["x-declai-requests"].split(",")
    assert found[0] == response.headers["x-declai-request"]
    return list(found)


def test_choices_are_the_requests_with_the_seeds_that_follow(http: httpx.Client, idle: Network) -> None:
    response = http.post("/v1/completions", json=VARIED | {"n": 3})
    answer = response.json()
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    texts = [choice["text"] for choice in answer["choices"]]
    seeds = (2**64 - 2, 2**64 - 1, 0)
    alone = [http.post("/v1/completions", json=VARIED | {"seed": seed}).json() for seed in seeds]
    assert texts == [one["choices"][0]["text"] for one in alone]
    assert len(set(texts)) == 3

    assert answer["usage"]["prompt_tokens"] == alone[0]["usage"]["prompt_tokens"]
    assert answer["usage"]["completion_tokens"] == sum(one["usage"]["completion_tokens"] for one in alone)
    assert Decimal(answer["usage"]["cost_credits"]) == sum(Decimal(one["usage"]["cost_credits"]) for one in alone)
    rows = [ended(idle, request) for request in requests_of(response)]
    assert [row.state for row in rows] == ["finished"] * 3
    assert answer["usage"]["cost_credits"] == format_credits(sum(row.cost for row in rows))
    assert len({row.request for row in rows}) == 3
    assert reserved(idle) == 0


def test_streamed_choices_come_side_by_side(client: openai.OpenAI, http: httpx.Client) -> None:
    whole = http.post("/v1/completions", json=VARIED | {"n": 2}).json()
    chunks = list(
        client.completions.create(
            model=MODEL,
            prompt=VARIED["prompt"],
            max_tokens=60,
            seed=VARIED["seed"],
            n=2,
            stream=True,
            stream_options={"include_usage": True},
            extra_body={"structured_outputs": VARIED["structured_outputs"], "return_token_ids": True},
        )
    )
    choices = [chunk.choices[0] for chunk in chunks if chunk.choices]
    for index in range(2):
        own = [choice for choice in choices if choice.index == index]
        assert "".join(choice.text for choice in own) == whole["choices"][index]["text"]
        assert [choice.finish_reason for choice in own] == [None] * (len(own) - 1) + ["stop"]
    assert [choice.index for choice in choices] != sorted(choice.index for choice in choices), "one after the other"
    assert [chunk.usage is None for chunk in chunks] == [True] * (len(chunks) - 1) + [False]
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == whole["usage"]["completion_tokens"]
    assert [hasattr(chunk, "prompt_token_ids") for chunk in chunks] == [True] + [False] * (len(chunks) - 1)
    assert len({chunk.id for chunk in chunks}) == 1


def test_each_choice_of_a_chat_begins_with_its_role(client: openai.OpenAI) -> None:
    chunks = list(client.chat.completions.create(**CHAT, n=2, stream=True))
    roles = [(chunk.choices[0].index, chunk.choices[0].delta.role) for chunk in chunks if chunk.choices[0].delta.role]
    assert sorted(roles) == [(0, "assistant"), (1, "assistant")]
    whole = client.chat.completions.create(**CHAT, n=8)
    assert [choice.index for choice in whole.choices] == list(range(8))


def test_an_estimate_covers_all_choices(http: httpx.Client) -> None:
    one, three = (http.post("/v1/estimate", json=COMPLETION | {"n": n}).json() for n in (1, 3))
    assert (one["n"], three["n"]) == (1, 3)
    assert int(three["max_cost"]) == 3 * int(one["max_cost"])
    for stage, own in zip(three["stages"], one["stages"], strict=True):
        assert int(stage["max_cost"]) == 3 * int(own["max_cost"])


def test_a_budget_for_two_admits_no_three(idle: Network, http: httpx.Client) -> None:
    each = int(http.post("/v1/estimate", json=COMPLETION).json()["max_cost"])
    session = idle.open_session(budget=2 * each + each // 2)
    headers = {"Authorization": f"Bearer {idle.login(session)}"}
    response = http.post("/v1/completions", json=COMPLETION | {"n": 3}, headers=headers)
    error = error_of(response, 402, "budget_exhausted")
    assert int(error["needed"]) == 3 * each
    assert int(error["left"]) == pytest.approx(2.5 * each, abs=2 * 10**9)  # as reservations round
    totals = idle.gateway.store.session_totals("0x" + session.hex())
    assert (totals.finished_total, totals.running) == (0, {})
    answer = http.post("/v1/completions", json=COMPLETION | {"n": 2}, headers=headers)
    assert len(answer.json()["choices"]) == 2


def test_a_gateway_with_room_for_two_takes_no_three(
    idle: Network, http: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idle.gateway.intake._generator, "_max_running", 2)
    before = len(stored_requests(idle))
    error_of(http.post("/v1/completions", json=COMPLETION | {"n": 3}), 429, "overloaded")
    assert len(stored_requests(idle)) == before
    assert http.post("/v1/completions", json=COMPLETION | {"n": 2}).status_code == 200


def test_a_signed_request_pays_one_choice(idle: Network) -> None:
    key = new_account()
    message = InferenceRequest(
        session=bytes(32),
        nonce=0,
        model=model_id(MODEL),
        body=bytes(32),
        max_tokens=5,
        tier=0,
        max_cost=UNITS_PER_CREDIT,
        acked_below=0,
        spent=0,
        deadline=int(time.time()) + 60,
    )
    signed = SignedHeader(request=message, salt=bytes(32), signature=sign(message, idle.chain.domain, key))
    headers = {"Authorization": signed.encode()}
    response = httpx.post(f"{idle.url}/v1/completions", json=COMPLETION | {"n": 2}, headers=headers)
    assert "sign one for each" in error_of(response, 400, param="n")["message"]


@pytest.mark.parametrize("n", [0, 9, -1, 1.5, "two"])
def test_bounds(http: httpx.Client, n: Any) -> None:
    error_of(http.post("/v1/completions", json=COMPLETION | {"n": n}), 400, param="n")
    error_of(http.post("/v1/chat/completions", json=CHAT | {"n": n}), 400, param="n")


def test_a_choice_that_fails_ends_the_answer_and_the_others(http: httpx.Client, idle: Network) -> None:
    for node in idle.nodes:
        node.engine.delay_s = 0.02
    body = {"model": MODEL, "prompt": LONG, "max_tokens": 60, "stream": True, "n": 3}
    with http.stream("POST", "/v1/completions", json=body) as response:
        lines = response.iter_lines()
        next(lines)
        idle.nodes[1].engine.broken = True
        events = [line for line in lines if line]
    error = json.loads(events[-1].removeprefix("data: "))["error"]
    assert error["code"] == "stage_failed"
    assert error["message"].startswith("choice ")
    rows = [ended(idle, request) for request in requests_of(response)]
    assert {row.state for row in rows} <= {"failed", "finished"}
    assert "failed" in {row.state for row in rows}
    wait_until(lambda: not any(node.engine.sequences for node in idle.nodes), "the other stages' stop")
    assert reserved(idle) == 0


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_cancels_all(idle: Network, api_key: str, stream: bool) -> None:
    for node in idle.nodes:
        node.engine.delay_s = 0.02
    before = {row.request for row in stored_requests(idle)}
    body = json.dumps({"model": MODEL, "prompt": LONG, "max_tokens": 60, "stream": stream, "n": 3}).encode()
    host, port = idle.url.removeprefix("http://").split(":")
    engine = idle.nodes[-1].engine
    with socket.create_connection((host, int(port)), timeout=10) as sock:
        head = f"POST /v1/completions HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {api_key}\r\n"
        sock.sendall(f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        wait_until(
            lambda: [s.num_drawn > 3 for s in list(engine.sequences.values())] == [True] * 3, "some tokens of all"
        )
    ours = [row.request for row in stored_requests(idle) if row.request not in before]
    rows = [ended(idle, request) for request in ours]
    assert [row.finish_reason for row in rows] == ["cancelled"] * 3
    assert all(0 < row.num_output_tokens < 60 for row in rows)
    assert reserved(idle) == 0
