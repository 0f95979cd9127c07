"""The `openai` client, unchanged, against a devnet: answers, streams, stop strings, usage, errors, cancel."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal

import httpx
import openai
import pytest

from tests.support.devnet import Running
from tests.support.waiting import wait_until

QUESTION = [{"role": "user", "content": "What is the for statement?"}]


@pytest.fixture
def client(devnet: Running) -> Iterator[openai.OpenAI]:
    base_url = devnet.network.gateway.url + "/v1"
    with openai.OpenAI(base_url=base_url, api_key=devnet.network.api_key, max_retries=0, timeout=120) as client:
        yield client


def model(devnet: Running) -> str:
    assert devnet.network.model is not None
    return devnet.network.model.name


def test_models_are_listed(client: openai.OpenAI, devnet: Running) -> None:
    assert model(devnet) in [found.id for found in client.models.list()]


def test_a_chat_answers_and_says_what_it_cost(client: openai.OpenAI, devnet: Running) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model=model(devnet), messages=QUESTION, max_tokens=24, temperature=0
    )
    answer = raw.parse()
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 24
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 24
    assert Decimal(answer.usage.model_extra["cost_credits"]) > 0  # type: ignore[index]
    receipts = httpx.get(f"{devnet.network.gateway.url}/v1/receipts/{raw.headers['x-declai-request']}").json()
    assert receipts["state"] == "finished"
    assert len(receipts["stages"]) == 3


def test_choices_logprobs_and_a_schema_at_once(client: openai.OpenAI, devnet: Running) -> None:
    """On a real model: every choice keeps to the schema, with the likeliest tokens of the model's own distribution."""
    born = {"type": "integer", "minimum": 1900, "maximum": 1999}
    schema = {"type": "object", "properties": {"born": born}, "required": ["born"], "additionalProperties": False}
    answer = client.chat.completions.create(
        model=model(devnet),
        messages=QUESTION,
        max_tokens=80,
        n=3,
        seed=7,
        logprobs=True,
        top_logprobs=2,
        response_format={"type": "json_schema", "json_schema": {"name": "birth", "schema": schema}},
    )
    assert len(answer.choices) == 3
    for choice in answer.choices:
        assert choice.finish_reason == "stop"
        assert 1900 <= json.loads(choice.message.content or "")["born"] <= 1999
        assert choice.logprobs is not None
        assert choice.logprobs.content is not None
        assert [len(token.top_logprobs) for token in choice.logprobs.content] == [2] * len(choice.logprobs.content)


def test_a_stream_says_the_same_and_ends_as_openai_ends(client: openai.OpenAI, devnet: Running) -> None:
    whole = client.chat.completions.create(model=model(devnet), messages=QUESTION, max_tokens=24, temperature=0)
    chunks = list(
        client.chat.completions.create(
            model=model(devnet),
            messages=QUESTION,
            max_tokens=24,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason] == ["length"]
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 24


def test_completions_stop_at_stop_strings(client: openai.OpenAI, devnet: Running) -> None:
    whole = client.completions.create(model=model(devnet), prompt="The list", max_tokens=30, temperature=0)
    text = whole.choices[0].text
    stop = text.strip().split()[3]
    cut = client.completions.create(model=model(devnet), prompt="The list", max_tokens=30, temperature=0, stop=stop)
    assert cut.choices[0].text == text[: text.index(stop)]
    assert cut.choices[0].finish_reason == "stop"
    streamed = client.completions.create(
        model=model(devnet), prompt="The list", max_tokens=30, temperature=0, stop=stop, stream=True
    )
    assert "".join(chunk.choices[0].text for chunk in streamed) == cut.choices[0].text


def test_a_seed_repeats_an_answer(client: openai.OpenAI, devnet: Running) -> None:
    def ask(seed: int) -> str:
        answer = client.chat.completions.create(
            model=model(devnet), messages=QUESTION, max_tokens=24, temperature=1.5, seed=seed
        )
        return answer.choices[0].message.content or ""

    assert ask(1) == ask(1)
    assert len({ask(seed) for seed in range(3)}) > 1


def test_closing_the_stream_stops_the_stages_and_charges_what_was_made(client: openai.OpenAI, devnet: Running) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model=model(devnet),
        messages=QUESTION,
        max_tokens=900,
        temperature=1.9,
        stream=True,
        extra_body={"ignore_eos": True},
    )
    stream = raw.parse()
    for _ in range(4):
        next(iter(stream))
    stream.close()
    url = f"{devnet.network.gateway.url}/v1/receipts/{raw.headers['x-declai-request']}"
    wait_until(lambda: httpx.get(url).json()["state"] != "running", "the request's end", 30)
    receipts = httpx.get(url).json()
    assert receipts["state"] == "finished"
    assert 0 < receipts["num_output_tokens"] < 900
    assert {stage["receipt"]["output_tokens"] for stage in receipts["stages"]} == {receipts["num_output_tokens"]}


@pytest.mark.parametrize(
    ("change", "error", "code"),
    [
        ({"model": "no-such-model"}, openai.NotFoundError, "model_not_found"),
        ({"messages": []}, openai.BadRequestError, "invalid_request"),
        ({"temperature": 9}, openai.BadRequestError, "invalid_request"),
        ({"max_tokens": 100_000}, openai.BadRequestError, "context_length_exceeded"),
        (
            {"messages": [{"role": "user", "content": "word " * 3000}]},
            openai.BadRequestError,
            "context_length_exceeded",
        ),
        ({"n": 9}, openai.BadRequestError, "invalid_request"),
        ({"modalities": ["audio"]}, openai.BadRequestError, "unsupported_parameter"),
    ],
)
def test_what_cannot_be_served_is_a_typed_error(
    client: openai.OpenAI, devnet: Running, change: dict[str, object], error: type[openai.APIStatusError], code: str
) -> None:
    arguments: dict[str, object] = {"model": model(devnet), "messages": QUESTION, "max_tokens": 4} | change
    with pytest.raises(error) as caught:
        client.chat.completions.create(**arguments)  # type: ignore[call-overload]
    assert caught.value.code == code
    assert caught.value.body["message"]  # type: ignore[index]


def test_a_wrong_key_is_refused(devnet: Running) -> None:
    with (
        openai.OpenAI(base_url=devnet.network.gateway.url + "/v1", api_key="dcl_wrong", max_retries=0) as stranger,
        pytest.raises(openai.AuthenticationError),
    ):
        stranger.chat.completions.create(model=model(devnet), messages=QUESTION)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{not json", 400),
        (b"[]", 400),
        (b'{"model": NaN}', 400),
        (b"{}", 400),
        (b"x" * (3 * 2**20), 413),
        (b"[" * 10**5, 400),
    ],
)
def test_bodies_that_are_no_request_are_typed_errors(devnet: Running, body: bytes, status: int) -> None:
    headers = {"Authorization": f"Bearer {devnet.network.api_key}", "Content-Type": "application/json"}
    answer = httpx.post(f"{devnet.network.gateway.url}/v1/chat/completions", content=body, headers=headers)
    assert answer.status_code == status
    assert set(answer.json()["error"]) >= {"message", "type", "param", "code"}
