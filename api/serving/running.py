"""A request under way, as its reader sees it: text as it is made, then the end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from declai.api.errors import GatewayError
from declai.protocol.wire import Token


@dataclass(frozen=True)
class Piece:
    """New text, and the tokens that came since the last piece (a token may come before its text is certain)."""

    text: str
    tokens: tuple[Token, ...] = ()


@dataclass(frozen=True)
class End:
    """The end: the receipts are durable and the cost (base units) is final."""

    finish_reason: str
    num_prompt_tokens: int
    num_output_tokens: int
    cost: int


# What comes for one answer: (choice, item), in the order of arrival. Each choice puts its End or its error last.
Arrivals: TypeAlias = "asyncio.Queue[tuple[int, Piece | End | GatewayError]]"


class Running:
    """Between whoever serves the request and whoever reads it. The reader may be slow, or leave.

    All choices of an answer put what they make into the answer's one queue, which is bounded by their max_tokens.
    `ready_s` and `first_token_s`: seconds from admission until all stages ran and until the first token came.
    """

    def __init__(self, request: str, choice: int, arrivals: Arrivals) -> None:
        self.request = request
        self._choice = choice
        self._arrivals = arrivals
        self.cancelled = False
        self.started_at = time.monotonic()
        self.ready_s: float | None = None
        self.first_token_s: float | None = None
        self._on_cancel: Callable[[], None] | None = None

    def saw_first_token(self, ready_at: float) -> None:
        """The first token came now; `ready_at` (monotonic) is when all stages ran."""
        self.ready_s = ready_at - self.started_at
        self.first_token_s = time.monotonic() - self.started_at

    def put(self, item: Piece | End | GatewayError) -> None:
        """Hand on what was made; the End or the error comes last."""
        self._arrivals.put_nowait((self._choice, item))

    def on_cancel(self, action: Callable[[], None]) -> None:
        """What `cancel` does from now on; done at once when it was called already."""
        self._on_cancel = action
        if self.cancelled:
            action()

    def cancel(self) -> None:
        """The reader wants no more: stop making tokens. What was made is charged."""
        self.cancelled = True
        if self._on_cancel is not None:
            self._on_cancel()
