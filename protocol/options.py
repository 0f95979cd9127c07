"""What a caller may ask of an output: how tokens are drawn, what the text must be."""

from __future__ import annotations

from typing import Annotated, Literal

import rfc8785
from pydantic import AfterValidator, Field, PlainSerializer

from declai.protocol.message import ProtocolMessage
from declai.protocol.wire import MAX_TOKENS

MAX_GRAMMAR_BYTES = 32 * 1024
# Of one request. Each is an output of its own, with a signature and a price.
MAX_CHOICES = 8

TokenId = Annotated[int, Field(ge=0, lt=2**32)]


def _check_grammar_size(text: str) -> str:
    if (size := len(text.encode())) > MAX_GRAMMAR_BYTES:
        raise ValueError(f"a grammar has at most {MAX_GRAMMAR_BYTES} bytes, not {size}")
    return text


class Grammar(ProtocolMessage):
    """What the output must be: JSON by the JSON schema `text`, or what the regular expression `text` matches whole."""

    kind: Literal["json", "regex"]
    text: Annotated[str, Field(max_length=MAX_GRAMMAR_BYTES), AfterValidator(_check_grammar_size)]


class Sampling(ProtocolMessage):
    """How the next token is drawn; 0 switches `temperature` (greedy), `top_k` and `min_p` off. `seed` is a u64.

    With a `grammar`, tokens that it does not allow next are never drawn.
    """

    temperature: Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)] = 0.0
    top_k: Annotated[int, Field(ge=0, le=MAX_TOKENS)] = 0
    top_p: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 1.0
    min_p: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.0
    repetition_penalty: Annotated[float, Field(gt=0, le=10, allow_inf_nan=False)] = 1.0
    presence_penalty: Annotated[float, Field(ge=-2, le=2, allow_inf_nan=False)] = 0.0
    frequency_penalty: Annotated[float, Field(ge=-2, le=2, allow_inf_nan=False)] = 0.0
    seed: Annotated[int, Field(ge=0, lt=2**64), PlainSerializer(str, when_used="json")] = 0
    logit_bias: Annotated[
        dict[TokenId, Annotated[float, Field(ge=-100, le=100, allow_inf_nan=False)]], Field(max_length=1024)
    ] = Field(default_factory=dict)
    grammar: Grammar | None = None

    def canonical(self) -> bytes:
        """RFC 8785 JSON: the form that goes into the last stage's commitment (the seed is a decimal string)."""
        return rfc8785.dumps(self.model_dump(mode="json", exclude_none=True))
