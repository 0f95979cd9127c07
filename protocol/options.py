"""What a caller may ask of an output: how tokens are drawn, what the text must be, where it ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import rfc8785
from pydantic import AfterValidator, Field, PlainSerializer, model_validator

from declai.protocol.message import ProtocolMessage
from declai.protocol.wire import MAX_TOKENS, MAX_TOP_LOGPROBS

MAX_GRAMMAR_BYTES = 32 * 1024
# Of one request. Each is an output of its own, with a signature and a price.
MAX_CHOICES = 8

TokenId = Annotated[int, Field(ge=0, lt=2**32)]
StopString = Annotated[str, Field(min_length=1, max_length=256)]


def _check_grammar_size(text: str) -> str:
    if (size := len(text.encode())) > MAX_GRAMMAR_BYTES:
        raise ValueError(f"a grammar has at most {MAX_GRAMMAR_BYTES} bytes, not {size}")
    return text


class Grammar(ProtocolMessage):
    """What the output must be: JSON by the JSON schema `text`, or what the regular expression `text` matches whole."""

    kind: Literal["json", "regex"]
    text: Annotated[str, Field(max_length=MAX_GRAMMAR_BYTES), AfterValidator(_check_grammar_size)]


class Sampling(ProtocolMessage):
    """How the next token is drawn. The defaults of all but `temperature` change nothing; temperature 0 is greedy.

    Attributes:
        top_k: keep the k most likely tokens (0: all). Equal logits stay or go together.
        top_p: then keep the smallest set of most likely tokens whose share is at least this.
        min_p: then keep tokens at least this likely relative to the most likely one.
        repetition_penalty: over prompt and output; a positive logit is divided by it, a negative one multiplied (CTRL,
            arXiv 1909.05858).
        presence_penalty, frequency_penalty: over the output; subtracted once, and once per occurrence (OpenAI).
        seed: unsigned, 64 bits.
        logit_bias: added to the logits of these token ids, before penalties.
        grammar: tokens that it does not allow next are never drawn.
    """

    temperature: Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)] = 1.0
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

    @property
    def needs_prompt(self) -> bool:
        """Whether the draw depends on the prompt's token ids."""
        return self.repetition_penalty != 1.0

    def canonical(self) -> bytes:
        """RFC 8785 JSON: the form that goes into the last stage's commitment (the seed is a decimal string)."""
        return rfc8785.dumps(self.model_dump(mode="json", exclude_none=True))


class GenerationOptions(ProtocolMessage):
    """How an output is made: parsed and bounded at the edge, and carried unchanged to the last stage's engine.

    How long it may be is not among them: that is a size which every stage must know, and which the context bounds.

    Attributes:
        stop: strings that end the output; it ends where the first one begins.
        ignore_eos: the model's end-of-sequence tokens do not end it.
        logprobs: each token comes with the logarithm of its probability.
        top_logprobs: how many of the most likely tokens come with theirs, too.
    """

    sampling: Sampling = Sampling()
    stop: Annotated[tuple[StopString, ...], Field(max_length=16)] = ()
    ignore_eos: bool = False
    logprobs: bool = False
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] = 0

    @model_validator(mode="after")
    def _check_shape(self) -> GenerationOptions:
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs go with logprobs alone")
        if self.sampling.grammar is not None and self.ignore_eos:
            raise ValueError("an output by a grammar ends where the grammar may: ignore_eos does not go with it")
        return self


def seed_of_choice(seed: int, choice: int) -> int:
    """The seed with which choice `choice` (from 0) of one answer draws: raised by its number."""
    return (seed + choice) % 2**64


def stop_strings(stop: str | Sequence[str] | None) -> tuple[str, ...]:
    """The stop strings of a request's body, which may hold one, several or none."""
    return (stop,) if isinstance(stop, str) else tuple(stop or ())
