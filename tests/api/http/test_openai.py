"""The unchanged `openai` client against the gateway: chat and completions, streamed and whole."""

from __future__ import annotations

import httpx
import openai
import pytest

from tests.support.echo_network import MODEL, Network

TEXT = "the quick fox: Grüße, 世界! 🙂 ok"


def test_a_completion_is_the_echo_of_its_prompt(client: openai.OpenAI, idle: Network) -> None:
    answer = client.completions.create(model=MODEL, prompt=TEXT, max_tokens=100)
    assert answer.choices[0].text.strip() == TEXT
    assert answer.choices[0].finish_reason == "stop"
    assert answer.object == "text_completion"
    ids = idle.tokenizer.encode(TEXT).ids
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == len(ids)
    assert answer.usage.completion_tokens == len(ids) + 1  # the end of the sequence is made and paid, too


def test_a_chat_is_answered(client: openai.OpenAI) -> None:
    messages = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "hi"}]},
    ]
    answer = client.chat.completions.create(model=MODEL, messages=messages, max_completion_tokens=100)  # type: ignore[arg-type]
    assert answer.choices[0].message.content is not None
    assert answer.choices[0].message.content.strip() == "system: be brief\nuser: hi\nassistant:"
    assert answer.choices[0].message.role == "assistant"
    assert answer.id.startswith("chatcmpl-")


def test_streams_add_up_to_the_whole(client: openai.OpenAI) -> None:
    stream = client.completions.create(
        model=MODEL, prompt=TEXT, max_tokens=100, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices).strip() == TEXT
    assert not any("\ufffd" in chunk.choices[0].text for chunk in chunks if chunk.choices)
    assert len(chunks) > 10
    reasons = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices]
    assert reasons[-1] == "stop"
    assert set(reasons[:-1]) == {None}
    assert [bool(chunk.choices) for chunk in chunks] == [True] * (len(chunks) - 1) + [False]
    assert chunks[-1].usage is not None
    assert float(chunks[-1].usage.cost_credits) > 0  # type: ignore[attr-defined]


def test_a_streamed_chat(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "hello there"}], max_tokens=50, stream=True
    )
    chunks = list(stream)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert all(chunk.choices[0].delta.role is None for chunk in chunks[1:])
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text.strip() == "user: hello there\nassistant:"
    assert all(chunk.usage is None for chunk in chunks)


def test_max_tokens_ends_with_length(client: openai.OpenAI) -> None:
    answer = client.completions.create(model=MODEL, prompt="hello world", max_tokens=4)
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 4


@pytest.mark.parametrize(
    ("stop", "left"),
    [("fox", "the quick"), (["jumps", "ck f"], "the qui"), ("世", "the quick fox: Grüße,"), (["nowhere"], TEXT)],
)
@pytest.mark.parametrize("stream", [False, True])
def test_stop_strings_across_tokens(client: openai.OpenAI, stop: str | list[str], left: str, stream: bool) -> None:
    if stream:
        chunks = client.completions.create(model=MODEL, prompt=TEXT, max_tokens=100, stop=stop, stream=True)
        pieces = [chunk.choices[0] for chunk in chunks]
        text, reason = "".join(piece.text for piece in pieces), pieces[-1].finish_reason
    else:
        choice = client.completions.create(model=MODEL, prompt=TEXT, max_tokens=100, stop=stop).choices[0]
        text, reason = choice.text, choice.finish_reason
    assert text.strip() == left
    assert reason == "stop"


def test_token_ids_and_logprobs_on_request(client: openai.OpenAI, idle: Network) -> None:
    ids = idle.tokenizer.encode("hello").ids
    whole = client.completions.create(
        model=MODEL, prompt="hello", max_tokens=50, logprobs=0, extra_body={"return_token_ids": True}
    )
    assert whole.prompt_token_ids == ids  # type: ignore[attr-defined]
    assert whole.choices[0].token_ids == [*ids, 2]  # type: ignore[attr-defined]
    assert whole.choices[0].logprobs is not None
    assert len(whole.choices[0].logprobs.token_logprobs or []) == len(ids) + 1
    chunks = list(
        client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": "hello"}],
            max_tokens=50,
            logprobs=True,
            stream=True,
            extra_body={"return_token_ids": True},
        )
    )
    prompt = chunks[0].prompt_token_ids  # type: ignore[attr-defined]
    assert [i for chunk in chunks for i in chunk.choices[0].token_ids] == [*prompt, 2]  # type: ignore[attr-defined]
    scored = [item for chunk in chunks for item in (chunk.choices[0].logprobs.content or [])]  # type: ignore[union-attr]
    assert len(scored) == len(prompt) + 1
    assert all(item.logprob <= 0 for item in scored)


def test_the_likeliest_tokens_on_request(client: openai.OpenAI) -> None:
    messages = [{"role": "user", "content": "hello"}]
    options = {"model": MODEL, "messages": messages, "max_tokens": 50, "logprobs": True, "top_logprobs": 3}
    whole = client.chat.completions.create(**options).choices[0].logprobs  # type: ignore[call-overload]
    chunks = list(client.chat.completions.create(**options, stream=True))  # type: ignore[call-overload]
    assert [item for chunk in chunks for item in chunk.choices[0].logprobs.content] == whole.content
    for item in whole.content:
        assert [likely.logprob for likely in item.top_logprobs] == sorted(
            (likely.logprob for likely in item.top_logprobs), reverse=True
        )
        assert (item.top_logprobs[0].token, item.top_logprobs[0].logprob) == (item.token, item.logprob)
        assert len(item.top_logprobs) == 3


def test_the_likeliest_tokens_of_a_completion(client: openai.OpenAI) -> None:
    logprobs = client.completions.create(model=MODEL, prompt="hello", max_tokens=50, logprobs=5).choices[0].logprobs
    assert logprobs is not None
    assert logprobs.tokens is not None
    assert logprobs.token_logprobs is not None
    assert logprobs.top_logprobs is not None
    for text, value, likely in zip(logprobs.tokens, logprobs.token_logprobs, logprobs.top_logprobs, strict=True):
        assert likely[text] == value == max(likely.values())
        assert len(likely) <= 6


def test_prompts_as_token_ids(client: openai.OpenAI, idle: Network) -> None:
    ids = idle.tokenizer.encode("hello", add_special_tokens=False).ids
    for prompt in (ids, [ids], ["hello"]):
        answer = client.completions.create(model=MODEL, prompt=prompt, max_tokens=50)  # type: ignore[arg-type]
        assert answer.choices[0].text.strip() == "hello"


def test_ignore_eos_goes_on(client: openai.OpenAI) -> None:
    answer = client.completions.create(model=MODEL, prompt="ok", max_tokens=30, extra_body={"ignore_eos": True})
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 30


def test_fields_of_openai_that_change_nothing_are_taken(client: openai.OpenAI) -> None:
    client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "ok"}],
        max_tokens=3,
        n=1,
        user="me",
        metadata={"a": "b"},
        store=False,
        seed=-7,
        temperature=0.3,
        top_p=0.9,
        presence_penalty=0.1,
        frequency_penalty=-0.1,
        logit_bias={"5": -100},
        response_format={"type": "text"},
        parallel_tool_calls=True,
        service_tier="auto",
        extra_body={"top_k": 5, "min_p": 0.0, "repetition_penalty": 1.1, "tier": "production"},
    )


def test_models_are_listed(client: openai.OpenAI, http: httpx.Client) -> None:
    assert [model.id for model in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).context_length == 160  # type: ignore[attr-defined]
    assert http.get("/v1/models/no/such").json()["error"]["code"] == "model_not_found"


def test_many_at_once(client: openai.OpenAI) -> None:
    from concurrent.futures import ThreadPoolExecutor

    texts = [f"request number {i}" for i in range(12)]
    with ThreadPoolExecutor(6) as pool:
        answers = pool.map(lambda text: client.completions.create(model=MODEL, prompt=text, max_tokens=60), texts)
        assert [answer.choices[0].text.strip() for answer in answers] == texts
