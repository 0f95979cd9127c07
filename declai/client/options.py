"""What a caller may ask of an answer: the API's own names and values (docs/http.md says what each one does)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Required, TypedDict


class JsonSchemaOptions(TypedDict, total=False):
    """A JSON schema with a name."""

    name: Required[str]
    schema: Mapping[str, Any]
    description: str
    strict: bool


class ResponseFormatOptions(TypedDict, total=False):
    """What an answer must be; `json_schema` goes with the type of that name."""

    type: Required[Literal["text", "json_object", "json_schema"]]
    json_schema: JsonSchemaOptions


class StructuredOutputsOptions(TypedDict, total=False):
    """What an answer must be, by one of a JSON schema, a regular expression for all of it, or a list of answers."""

    json: Mapping[str, Any] | str
    regex: str
    choice: Sequence[str]


class ChatOptions(TypedDict, total=False):
    """Options of `Client.chat`, `stream` and `estimate`. One that is left out, or None, has the gateway's default."""

    max_tokens: int | None
    temperature: float | None
    top_p: float | None
    top_k: int | None
    min_p: float | None
    repetition_penalty: float | None
    presence_penalty: float | None
    frequency_penalty: float | None
    logit_bias: Mapping[str, float] | None
    seed: int | None
    stop: str | Sequence[str] | None
    ignore_eos: bool | None
    logprobs: bool | None
    top_logprobs: int | None
    response_format: ResponseFormatOptions | None
    structured_outputs: StructuredOutputsOptions | None
    numeric_profile: int | None
    exact: bool | None
