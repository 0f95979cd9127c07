"""What the SDK returns. Amounts of money are integers in base units (10**18 a credit) and end in `_units`."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Tier = Literal["research", "production", "realtime"]


class Result(BaseModel):
    """Base of all results: immutable, and open to fields that a newer gateway adds."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Usage(Result):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cost_credits: str = Field(default="0", description="what the request cost, in credits, as an exact decimal")


class Message(Result):
    role: str
    content: str


class TopLogprob(Result):
    """A likely token's text and the natural logarithm of its probability."""

    token: str
    logprob: float


class TokenLogprob(TopLogprob):
    """An output token, with the likeliest tokens at its place when `top_logprobs` asked for them."""

    top_logprobs: tuple[TopLogprob, ...] = ()


class Delta(Result):
    """A piece of a streamed answer. The last one carries `finish_reason`, `usage` and `request`."""

    text: str
    finish_reason: str | None = None
    usage: Usage | None = None
    request: str | None = None
    logprobs: tuple[TokenLogprob, ...] = ()


class Answer(Result):
    """A whole answer. `request` is the request's hash: `declai receipt verify REQUEST`."""

    text: str
    finish_reason: str
    usage: Usage
    request: str
    model: str
    logprobs: tuple[TokenLogprob, ...] = ()


class Model(Result):
    id: str
    created: int = 0
    owned_by: str = ""
    context_length: int | None = None


class Estimate(Result):
    """What a request may cost at most on the plan that the gateway would choose now."""

    model: str
    num_prompt_tokens: int
    max_tokens: int
    max_cost_units: int = Field(alias="max_cost")
    max_cost_credits: str


class Balance(Result):
    """A wallet's money: free tokens, free balance in the ledger, and what open sessions of this machine lock."""

    address: str
    wallet_units: int
    ledger_units: int
    sessions_units: int


class Session(Result):
    """A budget on chain that requests to one gateway are paid from."""

    id: str
    gateway: str
    budget_units: int
    spent_units: int
    closed: bool
