"""What the output must look like: OpenAI's `response_format` and vLLM's `structured_outputs`, as a grammar."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from declai.api.errors import InvalidRequest
from declai.protocol.options import MAX_GRAMMAR_BYTES, Grammar

ANY_OBJECT = {"type": "object"}
Source = Annotated[str, Field(min_length=1, max_length=MAX_GRAMMAR_BYTES)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class JsonSchemaFormat(_Strict):
    """`strict` changes nothing: a schema is always kept to the letter, or refused."""

    name: Annotated[str, Field(max_length=64)]
    description: Annotated[str, Field(max_length=4096)] | None = None
    json_schema: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None


class ResponseFormat(_Strict):
    """OpenAI's. `json_object` is any JSON object."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchemaFormat | None = None

    @model_validator(mode="after")
    def _check_schema(self) -> ResponseFormat:
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise ValueError("json_schema goes with type json_schema, and with no other")
        return self

    def grammar(self) -> Grammar | None:
        """Raises InvalidRequest when the schema is too large."""
        if self.type == "text":
            return None
        given = self.json_schema.json_schema if self.json_schema is not None else None
        return _grammar("json", _json(ANY_OBJECT if given is None else given, "response_format"), "response_format")


class StructuredOutputs(_Strict):
    """vLLM's: one of a JSON schema, a regular expression for the whole output, or a list of outputs."""

    json_schema: dict[str, Any] | Source | None = Field(default=None, alias="json")
    regex: Source | None = None
    choice: Annotated[list[Source], Field(min_length=1, max_length=4096)] | None = None

    @model_validator(mode="after")
    def _check_one(self) -> StructuredOutputs:
        if sum(value is not None for value in (self.json_schema, self.regex, self.choice)) != 1:
            raise ValueError("give one of json, regex, choice")
        return self

    def grammar(self) -> Grammar:
        """Raises InvalidRequest when it is too large."""
        param = "structured_outputs"
        if self.json_schema is not None:
            schema = self.json_schema
            return _grammar("json", schema if isinstance(schema, str) else _json(schema, param), param)
        pattern = self.regex if self.choice is None else "|".join(re.escape(text) for text in self.choice)
        assert pattern is not None, "one of the three is given"
        return _grammar("regex", pattern, param)


def _json(schema: dict[str, Any], param: str) -> str:
    """The schema's text in its own order, which is the order of the members that are made."""
    try:
        return json.dumps(schema, ensure_ascii=False, separators=(",", ":"))
    except RecursionError:
        raise InvalidRequest("the schema is nested too deeply", param=param) from None


def _grammar(kind: Literal["json", "regex"], text: str, param: str) -> Grammar:
    try:
        return Grammar(kind=kind, text=text)
    except ValidationError:
        raise InvalidRequest(f"a schema, pattern or list has at most {MAX_GRAMMAR_BYTES} bytes", param=param) from None
