"""`response_format` and `structured_outputs` through the real gateway and stages, against what an echo would say."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from declai.api.errors import GatewayError
from declai.api.http.grammars import ResponseFormat, StructuredOutputs
from declai.api.serving.catalog import ModelCatalog
from declai.protocol.options import MAX_GRAMMAR_BYTES, Grammar
from tests.support.echo_network import MODEL, Network
from tests.support.gateway_requests import CHAT, COMPLETION, error_of

SCHEMA = {
    "type": "object",
    "properties": {"yes": {"type": "boolean"}, "a": {"enum": ["left", "right"]}},
    "required": ["yes", "a"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("stream", [False, True])
def test_json_by_a_schema(client: openai.OpenAI, stream: bool) -> None:
    named: Any = {"type": "json_schema", "json_schema": {"name": "turn", "schema": SCHEMA, "strict": True}}
    options: dict[str, Any] = {"model": MODEL, "messages": CHAT["messages"], "max_tokens": 120, "seed": 1}
    answer = client.chat.completions.create(**options, response_format=named, stream=stream)
    if stream:
        chunks = [chunk.choices[0] for chunk in answer]
        text, reason = "".join(chunk.delta.content or "" for chunk in chunks), chunks[-1].finish_reason
    else:
        text, reason = answer.choices[0].message.content, answer.choices[0].finish_reason
    turn = json.loads(text)
    assert list(turn) == ["yes", "a"]
    assert turn["a"] in ("left", "right")
    assert reason == "stop"


def test_any_json_object(client: openai.OpenAI, idle: Network) -> None:
    likely = [i for i in range(idle.tokenizer.get_vocab_size()) if idle.tokenizer.decode([i]).strip() in ("{", "}")]
    forced = {str(i): 90 for i in likely}
    answer = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "hi"}],
        max_tokens=50,
        response_format={"type": "json_object"},
        logit_bias=forced,
    )
    assert json.loads(answer.choices[0].message.content or "") == {}


@pytest.mark.parametrize(
    ("wanted", "pattern"),
    [
        ({"regex": "[0-9]{4}-[0-9]{2}"}, "[0-9]{4}-[0-9]{2}"),
        ({"choice": ["yes", "no (really?)", "7*7"]}, r"yes|no \(really\?\)|7\*7"),
        ({"json": {"enum": [1, 22]}}, "1|22"),
        ({"json": '{"type": "boolean"}'}, "true|false"),
    ],
)
def test_vllms_structured_outputs(client: openai.OpenAI, wanted: dict[str, Any], pattern: str) -> None:
    for seed in range(3):
        answer = client.completions.create(
            model=MODEL, prompt="hello", max_tokens=60, seed=seed, extra_body={"structured_outputs": wanted}
        )
        assert re.fullmatch(pattern, answer.choices[0].text), answer.choices[0].text
        assert answer.choices[0].finish_reason == "stop"


def test_the_grammar_is_in_the_receipts_commitment(http: httpx.Client) -> None:
    """The stages' receipts hold with it, the gateway checks; a request without one costs what it did."""
    answer = http.post("/v1/completions", json=COMPLETION | {"structured_outputs": {"choice": ["a", "b"]}})
    assert answer.status_code == 200
    receipts = http.get(f"/v1/receipts/{answer.headers['x-declai-request']}").json()
    assert receipts["state"] == "finished"
    assert receipts["num_output_tokens"] == answer.json()["usage"]["completion_tokens"]


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"response_format": {"type": "xml"}}, "response_format"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"response_format": {"type": "json_object", "json_schema": {"name": "x"}}}, "response_format"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "wat"}}}},
            "response_format",
        ),
        ({"structured_outputs": {}}, "structured_outputs"),
        ({"structured_outputs": {"regex": "a", "choice": ["b"]}}, "structured_outputs"),
        ({"structured_outputs": {"choice": []}}, "structured_outputs"),
        ({"structured_outputs": {"grammar": "start: A"}}, "structured_outputs.grammar"),
        ({"structured_outputs": {"regex": "(?=a)"}}, "structured_outputs"),
        ({"structured_outputs": {"regex": "[^\\s\\S]"}}, "structured_outputs"),
        ({"structured_outputs": {"json": "{"}}, "structured_outputs"),
        ({"structured_outputs": {"json": {"uniqueItems": True}}}, "structured_outputs"),
        ({"structured_outputs": {"choice": ["x" * 20_000, "y" * 20_000]}}, "structured_outputs"),
        ({"structured_outputs": {"regex": "a"}, "response_format": {"type": "json_object"}}, "structured_outputs"),
        ({"structured_outputs": {"regex": "a"}, "ignore_eos": True}, "ignore_eos"),
    ],
)
def test_formats_that_cannot_be_kept_cost_nothing(http: httpx.Client, change: dict[str, Any], param: str) -> None:
    error_of(http.post("/v1/chat/completions", json=CHAT | change), 400, param=param)
    error_of(http.post("/v1/estimate", json=CHAT | change), 400, param=param)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"response_format": {"type": "json_schema"}}, "response_format: json_schema goes with type json_schema"),
        ({"structured_outputs": {"json": {"$ref": "#"}}}, "held to this format: no output matches it"),
        ({"structured_outputs": {"regex": "[^\\s\\S]"}}, "held to this format: no output matches it"),
        ({"structured_outputs": {"regex": "(("}}, "unclosed group"),
    ],
)
def test_errors_say_what_is_wrong_in_our_words(http: httpx.Client, change: dict[str, Any], message: str) -> None:
    said = http.post("/v1/chat/completions", json=CHAT | change).json()["error"]["message"]
    assert message in said
    assert not re.search("Value error|non-verbose|NoExtension", said)


def test_a_model_is_opened_with_its_tokens_ready_for_grammars(
    idle: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sorting them stops the event loop: not while requests run that have to do with this model."""
    model = ModelCatalog(idle.gateway.index, idle.gateway.blocks, tmp_path).get(MODEL)
    monkeypatch.delattr("declai.protocol.grammar.LLTokenizer")
    assert model.grammars.constraint(Grammar(kind="regex", text="a")).allowed.any()


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=50_000 // 8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=12,
)


@given(
    st.fixed_dictionaries({}, optional={"json": values, "regex": values, "choice": st.lists(st.text()) | values})
    | values
)
@settings(deadline=None)
def test_whatever_is_sent_becomes_a_bounded_grammar_or_an_error(value: Any) -> None:
    for parse in (
        lambda: StructuredOutputs.model_validate(value),
        lambda: ResponseFormat.model_validate({"type": "json_schema", "json_schema": {"name": "x", "schema": value}}),
    ):
        try:
            grammar = parse().grammar()
        except (ValueError, GatewayError):
            continue
        assert isinstance(grammar, Grammar)
        assert len(grammar.text.encode()) <= MAX_GRAMMAR_BYTES
