"""A request under way, as its reader sees it: text as it is made, then the end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

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


class Running:
    """Between whoever serves the request and whoever reads it. The reader may be slow, or leave.

    `ready_s` and `first_token_s`: seconds from admission until all stages ran and until the first token came.
    """

    def __init__(self, request: str) -> None:
        self.request = request
        self.cancelled = False
        self.started_at = time.monotonic()
        self.ready_s: float | None = None
        self.first_token_s: float | None = None
        self._queue: asyncio.Queue[Piece | End | GatewayError] = asyncio.Queue()
        self._on_cancel: Callable[[], None] | None = None

    def saw_first_token(self, ready_at: float) -> None:
        """The first token came now; `ready_at` (monotonic) is when all stages ran."""
        self.ready_s = ready_at - self.started_at
        self.first_token_s = time.monotonic() - self.started_at

    def put(self, item: Piece | End | GatewayError) -> None:
        """Bounded by the request's max_tokens."""
        self._queue.put_nowait(item)

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

    async def items(self) -> AsyncIterator[Piece | End]:
        """Pieces as they come, the End last. Raises the GatewayError that ended the request."""
        while True:
            item = await self._queue.get()
            if isinstance(item, GatewayError):
                raise item
            yield item
            if isinstance(item, End):
                return
