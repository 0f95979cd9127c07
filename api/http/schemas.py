"""What generation requests may say: OpenAI's fields and ours beside them, all bounded.

Fields that OpenAI has and that change nothing here are taken and passed over; those that would change the answer are
refused by name, and so are unknown ones: a misspelt `max_tokens` must not cost money.
"""

from __future__ import annotations

import secrets
from abc import abstractmethod
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from declai.api.errors import InvalidRequest, UnsupportedParameter
from declai.api.http.grammars import ResponseFormat, StructuredOutputs
from declai.api.serving.intake import ParsedRequest
from declai.chain.pricing import Tier
from declai.protocol.errors import InvalidPrompt
from declai.protocol.options import (
    MAX_CHOICES,
    GenerationOptions,
    Grammar,
    Sampling,
    StopString,
    TokenId,
    stop_strings,
)
from declai.protocol.prompts import Messages, PromptField, PromptSource, conversation, plain_prompt
from declai.protocol.wire import MAX_TOKENS, MAX_TOP_LOGPROBS, TokenCount

# Colder than this is greedy: dividing logits by less leaves the range of floats.
MIN_TEMPERATURE = 1e-4
# Harmless values of OpenAI's fields that no stage can honour yet; any other value is refused.
UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "tools": (None, []),
    "tool_choice": (None, "none", "auto"),
    "functions": (None, []),
    "function_call": (None, "none", "auto"),
    "best_of": (None, 1),
    "echo": (None, False),
    "suffix": (None, ""),
    "audio": (None,),
    "modalities": (None, ["text"]),
    "prediction": (None,),
    "web_search_options": (None,),
}


class Schema(BaseModel):
    """Base of what comes in: no unknown fields, no NaN."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class StreamOptions(BaseModel):
    model_config = ConfigDict(extra="ignore")

    include_usage: bool = False


class GenerationRequest(Schema):
    """What chat and plain completions share."""

    model: Annotated[str, Field(min_length=1, max_length=200)]
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    max_tokens: TokenCount | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1, le=MAX_TOKENS, description="0 and -1: off")] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Field(ge=0.01, le=10)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    logit_bias: Annotated[dict[TokenId, Annotated[float, Field(ge=-100, le=100)]], Field(max_length=1024)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**64)] | None = None
    stop: StopString | Annotated[list[StopString], Field(max_length=16)] | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    response_format: ResponseFormat | None = None

    tier: Literal["research", "production", "realtime"] = "research"
    numeric_profile: Annotated[int, Field(ge=0, le=255, description="as in the nodes' offers")] | None = None
    ignore_eos: bool = False
    return_token_ids: bool = False
    exact: Annotated[bool, Field(description="round no hidden states, however slow the links")] = False
    structured_outputs: StructuredOutputs | None = None

    user: Annotated[str, Field(max_length=512)] | None = None
    metadata: Annotated[dict[str, Any], Field(max_length=16)] | None = None
    store: bool | None = None
    service_tier: Annotated[str, Field(max_length=32)] | None = None
    safety_identifier: Annotated[str, Field(max_length=512)] | None = None
    prompt_cache_key: Annotated[str, Field(max_length=512)] | None = None
    prompt_cache_retention: Annotated[str, Field(max_length=32)] | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: Annotated[str, Field(max_length=32)] | None = None
    verbosity: Annotated[str, Field(max_length=32)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _refuse_unsupported(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        for name, harmless in UNSUPPORTED.items():
            value = data.get(name)
            # 1 == True in Python, and a client that sends `echo: 0` means false anyway.
            if value not in harmless:
                raise UnsupportedParameter(f"{name} is not supported here: leave it out", param=name)
        return {name: value for name, value in data.items() if name not in UNSUPPORTED}

    @field_validator("stream", "ignore_eos", "return_token_ids", "exact", mode="before")
    @classmethod
    def _none_is_false(cls, value: Any) -> Any:
        return False if value is None else value

    @model_validator(mode="after")
    def _check_stream_options(self) -> GenerationRequest:
        if self.stream_options is not None and not self.stream:
            raise InvalidRequest("stream_options goes with stream: true alone", param="stream_options")
        return self

    @model_validator(mode="after")
    def _check_one_grammar(self) -> GenerationRequest:
        if self.response_format is not None and self.structured_outputs is not None:
            raise InvalidRequest("response_format and structured_outputs: send one", param="structured_outputs")
        if self.ignore_eos and self._grammar() is not None:
            raise InvalidRequest("an output by a grammar ends where the grammar may", param="ignore_eos")
        return self

    @property
    def wants_usage(self) -> bool:
        """Whether the stream ends with a chunk of usage."""
        return self.stream_options is not None and self.stream_options.include_usage

    @property
    @abstractmethod
    def wants_logprobs(self) -> bool: ...

    @property
    @abstractmethod
    def num_top_logprobs(self) -> int:
        """How many of the most likely tokens are shown at each place."""

    @property
    def wanted_tokens(self) -> int | None:
        """The caller's limit on output tokens."""
        return self.max_tokens

    @abstractmethod
    def prompt_source(self) -> PromptSource: ...

    def parsed(self, signed_max_tokens: int | None = None) -> ParsedRequest:
        """The request in the words of the domain. A signature's `max_tokens` stands in for one that is not given."""
        return ParsedRequest(
            model=self.model,
            prompt=self.prompt_source(),
            max_tokens=self.wanted_tokens or signed_max_tokens,
            tier=Tier[self.tier.upper()],
            options=self._options(),
            numeric_profile=self.numeric_profile,
            exact=self.exact,
            num_choices=self.n or 1,
            grammar_param="response_format" if self.structured_outputs is None else "structured_outputs",
        )

    def _options(self) -> GenerationOptions:
        return GenerationOptions(
            sampling=self._sampling(),
            stop=stop_strings(self.stop),
            ignore_eos=self.ignore_eos,
            logprobs=self.wants_logprobs,
            top_logprobs=self.num_top_logprobs,
        )

    def _sampling(self) -> Sampling:
        """What was given; a random seed when none was."""
        given = {
            "temperature": self._temperature(),
            "top_p": self.top_p,
            "top_k": None if self.top_k is None else max(self.top_k, 0),
            "min_p": self.min_p,
            "repetition_penalty": self.repetition_penalty,
            "presence_penalty": self.presence_penalty,
            "frequency_penalty": self.frequency_penalty,
            "logit_bias": self.logit_bias,
        }
        return Sampling(
            seed=secrets.randbits(63) if self.seed is None else self.seed % 2**64,
            **{name: value for name, value in given.items() if value is not None},
            grammar=self._grammar(),
        )

    def _temperature(self) -> float | None:
        return 0.0 if self.temperature is not None and self.temperature < MIN_TEMPERATURE else self.temperature

    def _grammar(self) -> Grammar | None:
        if self.structured_outputs is not None:
            return self.structured_outputs.grammar()
        return self.response_format.grammar() if self.response_format is not None else None


class ChatRequest(GenerationRequest):
    """`POST /v1/chat/completions`."""

    messages: Messages
    max_completion_tokens: TokenCount | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None

    @property
    def wants_logprobs(self) -> bool:
        return bool(self.logprobs)

    @property
    def num_top_logprobs(self) -> int:
        return self.top_logprobs or 0

    @property
    def wanted_tokens(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    @model_validator(mode="after")
    def _check_limits(self) -> ChatRequest:
        if self.max_tokens and self.max_completion_tokens and self.max_tokens != self.max_completion_tokens:
            raise InvalidRequest("max_tokens and max_completion_tokens differ: send one", param="max_completion_tokens")
        if self.top_logprobs and not self.logprobs:
            raise InvalidRequest("top_logprobs goes with logprobs: true alone", param="top_logprobs")
        return self

    def prompt_source(self) -> PromptSource:
        return conversation(self.messages)


class CompletionRequest(GenerationRequest):
    """`POST /v1/completions`: one prompt, as text or token ids (alone, or in a list of one)."""

    prompt: PromptField
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None

    @property
    def wants_logprobs(self) -> bool:
        return self.logprobs is not None

    @property
    def num_top_logprobs(self) -> int:
        return self.logprobs or 0

    @model_validator(mode="after")
    def _check_one(self) -> CompletionRequest:
        try:
            plain_prompt(self.prompt)
        except InvalidPrompt as error:
            raise UnsupportedParameter(str(error), param="prompt") from None
        return self

    def prompt_source(self) -> PromptSource:
        return plain_prompt(self.prompt)
