"""Bad input of every kind: a typed error that says what to do, nothing charged, and the gateway serves on."""

from __future__ import annotations

import json
import socket
import time
from typing import Any

import httpx
import openai
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from declai.api.http.schemas import ChatRequest, CompletionRequest
from declai.chain.pricing import UNITS_PER_CREDIT
from tests.support.echo_network import CONTEXT_LENGTH, MODEL, Network
from tests.support.gateway_requests import CHAT, COMPLETION, error_of


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"temperature": 2.5}, "temperature"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": "warm"}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"top_k": -2}, "top_k"),
        ({"min_p": 1.5}, "min_p"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"presence_penalty": 3}, "presence_penalty"),
        ({"frequency_penalty": -3}, "frequency_penalty"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 2**40}, "max_tokens"),
        ({"max_tokens": 5, "max_completion_tokens": 6}, "max_completion_tokens"),
        ({"seed": 2**65}, "seed"),
        ({"seed": 1.5}, "seed"),
        ({"stop": ""}, "stop"),
        ({"stop": ["a"] * 17}, "stop"),
        ({"stop": ["a" * 257]}, "stop"),
        ({"logit_bias": {"x": 1}}, "logit_bias"),
        ({"logit_bias": {"5": 101}}, "logit_bias"),
        ({"logit_bias": {"999999": 1}}, "logit_bias"),
        ({"tier": "platinum"}, "tier"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}, "messages"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"model": ""}, "model"),
        ({"model": 7}, "model"),
    ],
)
def test_values_out_of_bounds_are_named(http: httpx.Client, change: dict[str, Any], param: str) -> None:
    error = error_of(http.post("/v1/chat/completions", json=CHAT | change), 400, param=param)
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"functions": [{}]}, "functions"),
        ({"modalities": ["audio"]}, "modalities"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"max_token": 5}, "max_token"),
    ],
)
def test_unsupported_and_unknown_parameters_are_named(http: httpx.Client, change: dict[str, Any], param: str) -> None:
    error_of(http.post("/v1/chat/completions", json=CHAT | change), 400, param=param)


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"prompt": ["a", "b"]}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [10**6]}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"prompt": [[]]}, "prompt"),
        ({"echo": True}, "echo"),
        ({"best_of": 3}, "best_of"),
        ({"suffix": "end"}, "suffix"),
        ({"logprobs": 6}, "logprobs"),
        ({"logprobs": -1}, "logprobs"),
    ],
)
def test_completion_parameters(http: httpx.Client, change: dict[str, Any], param: str) -> None:
    error_of(http.post("/v1/completions", json=COMPLETION | change), 400, param=param)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b'"text"', b"\xff\xfe", b'{"model": NaN}', b"[" * 100_000, b'{"a":' * 30_000 + b"1"],
    ids=["empty", "cut", "list", "null", "string", "bytes", "nan", "deep-list", "deep-object"],
)
def test_malformed_json(http: httpx.Client, body: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    error_of(http.post("/v1/chat/completions", content=body, headers=headers), 400)
    assert http.get("/healthz").text == "ok"


def test_another_content_type(http: httpx.Client) -> None:
    error = error_of(
        http.post("/v1/chat/completions", content=json.dumps(CHAT), headers={"Content-Type": "text/plain"}), 400
    )
    assert "application/json" in error["message"]


def test_a_giant_body_is_refused_before_it_is_read(idle: Network, api_key: str) -> None:
    host, port = idle.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as sock:
        head = f"POST /v1/completions HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {api_key}\r\n"
        sock.sendall(f"{head}Content-Type: application/json\r\nContent-Length: 1000000000\r\n\r\n".encode())
        answer = sock.recv(65536)
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"body_too_large" in answer


def test_a_giant_chunked_body_is_cut_off(http: httpx.Client) -> None:
    def pieces() -> Any:
        for _ in range(40):
            yield b" " * 16384

    response = http.post("/v1/completions", content=pieces(), headers={"Content-Type": "application/json"})
    error_of(response, 413, "body_too_large")


def test_unknown_model_and_route_and_method(http: httpx.Client) -> None:
    error = error_of(
        http.post("/v1/completions", json=COMPLETION | {"model": "gpt-4"}), 404, "model_not_found", "model"
    )
    assert MODEL in error["message"]
    error_of(http.get("/v1/nothing"), 404, "not_found")
    error_of(http.delete("/v1/completions"), 405, "method_not_allowed")


def test_the_openai_client_maps_the_errors(client: openai.OpenAI, idle: Network) -> None:
    with pytest.raises(openai.NotFoundError):
        client.completions.create(model="gpt-4", prompt="x")
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model=MODEL, prompt="a b " * 200)
    assert caught.value.code == "context_length_exceeded"
    stranger = openai.OpenAI(base_url=f"{idle.url}/v1", api_key="dcl_wrong", max_retries=0)
    with pytest.raises(openai.AuthenticationError):
        stranger.completions.create(model=MODEL, prompt="x")


def test_prompts_over_the_context(http: httpx.Client) -> None:
    fits = COMPLETION | {"prompt": [5] * 100, "max_tokens": CONTEXT_LENGTH - 100}
    assert http.post("/v1/completions", json=fits).status_code == 200
    error_of(
        http.post("/v1/completions", json=fits | {"max_tokens": CONTEXT_LENGTH - 99}),
        400,
        "context_length_exceeded",
        "max_tokens",
    )
    error_of(
        http.post("/v1/completions", json=COMPLETION | {"prompt": [5] * CONTEXT_LENGTH}),
        400,
        "context_length_exceeded",
        "prompt",
    )
    long_chat = CHAT | {"messages": [{"role": "user", "content": "word " * 100}], "max_tokens": None}
    error_of(http.post("/v1/chat/completions", json=long_chat), 400, "context_length_exceeded", "messages")


@pytest.mark.parametrize(
    "authorization",
    ["", "Bearer", "Bearer dcl_nobody", "Basic abc", "Bearer " + "x" * 5000, "DeCLAI ???", "DeCLAI e30="],
)
def test_strangers_are_refused(idle: Network, authorization: str) -> None:
    headers = {"Authorization": authorization} if authorization else {}
    response = httpx.post(f"{idle.url}/v1/completions", json=COMPLETION, headers=headers)
    error_of(response, 401)
    assert response.headers["www-authenticate"] == "Bearer"


def test_an_exhausted_budget(idle: Network) -> None:
    session = idle.open_session(budget=UNITS_PER_CREDIT // 10**6)
    headers = {"Authorization": f"Bearer {idle.login(session)}"}
    error = error_of(
        httpx.post(f"{idle.url}/v1/completions", json=COMPLETION | {"max_tokens": 100}, headers=headers),
        402,
        "budget_exhausted",
    )
    assert int(error["needed"]) > int(error["left"]) >= 0


def test_headers_cannot_be_injected(idle: Network, http: httpx.Client) -> None:
    for model in ("a\r\nx-evil: 1", "\u0000", "😀" * 50, "../../etc/passwd", "a\nb"):
        response = http.post("/v1/completions", json=COMPLETION | {"model": model})
        error_of(response, 404, "model_not_found")
        assert "x-evil" not in response.headers
    for path in (
        "/v1/receipts/0x%0d%0ax-evil:1",
        "/v1/models/%0d%0ax-evil:1",
        "/ipfs/%0d%0ax-evil:1",
        "/%0d%0ax-evil:1",
    ):
        response = http.get(path)
        assert response.status_code in (400, 404)
        assert "x-evil" not in response.headers


def test_full_nodes_are_said_to_be_full(idle: Network, http: httpx.Client) -> None:
    directory = idle.gateway.directory
    last = idle.nodes[-1].address
    directory.started([last] * 8)
    try:
        response = http.post("/v1/completions", json=COMPLETION)
    finally:
        directory.ended([last] * 8)
    error = error_of(response, 503, "no_capacity")
    assert error["num_nodes_full"] == 1
    assert error["layers"] == [[4, 6]]
    assert int(response.headers["retry-after"]) > 0


def test_a_lost_node_is_missed(idle: Network, http: httpx.Client) -> None:
    engine_thread = idle.nodes[1].engine_thread
    engine_thread.drain()
    deadline = time.monotonic() + 10
    while (response := http.post("/v1/completions", json=COMPLETION)).status_code == 200:
        assert time.monotonic() < deadline
    engine_thread.drain(False)
    assert error_of(response, 503, "no_capacity")["layers"] == [[2, 4]]


def test_nothing_of_this_was_charged(idle: Network, api_key: str) -> None:
    session = idle.gateway.signin.session_of(api_key)
    for response in (
        httpx.post(f"{idle.url}/v1/completions", json=COMPLETION | {"n": 9}),
        httpx.post(f"{idle.url}/v1/completions", json=COMPLETION | {"model": "x"}),
    ):
        assert response.status_code in (400, 401, 404)
    assert idle.gateway.store.session_totals(session).running == {}


@pytest.mark.parametrize("field", ["model", "prompt", "stop", "user", "tier"])
def test_half_a_character(http: httpx.Client, field: str) -> None:
    body = json.dumps(COMPLETION | {field: "\ud800"})
    response = http.post("/v1/completions", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code in (400, 404), response.text
    http.post("/v1/completions", content=json.dumps(COMPLETION | {"metadata": {"\ud800": "\ud800"}}))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(("path", "schema"), [("chat/completions", ChatRequest), ("completions", CompletionRequest)])
def test_any_value_in_any_field(idle: Network, api_key: str, path: str, schema: Any) -> None:
    names = sorted(schema.model_fields)
    with httpx.Client(base_url=idle.url, headers={"Authorization": f"Bearer {api_key}"}) as http:

        @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
        @given(st.sampled_from(names), JSON)
        def check(name: str, value: Any) -> None:
            body = (CHAT if schema is ChatRequest else COMPLETION) | {"max_tokens": 1, name: value}
            content = json.dumps(body).encode("utf-8", "surrogatepass")
            headers = {"Content-Type": "application/json"}
            response = http.post(f"/v1/{path}", content=content, headers=headers, timeout=30)
            assert response.status_code in (200, 400, 404), response.text
            if response.status_code != 200:
                error_of(response, response.status_code)

        check()
