"""The blocking client: the asynchronous one on an event loop of its own, in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from declai.client.aio import AsyncClient
from declai.client.types import Answer, Balance, Delta, Estimate, Model, Session

Result = TypeVar("Result")


class Client:
    """Like `AsyncClient`, method by method, for programs without an event loop."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="declai-client", daemon=True)
        self._thread.start()
        self._client = self._run(_make(*args, **options))

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close connections and end the thread. A second call does nothing."""
        if self._loop.is_running():
            self._run(self._client.close())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()

    def _run(self, work: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def models(self) -> list[Model]:
        """The models that can be asked for."""
        return self._run(self._client.models())

    def estimate(self, messages: Sequence[Mapping[str, Any]], model: str | None = None, **options: Any) -> Estimate:
        """What a conversation's next answer may cost at most."""
        return self._run(self._client.estimate(messages, model, **options))

    def chat(self, messages: str | Sequence[Mapping[str, Any]], model: str | None = None, **options: Any) -> Answer:
        """One whole answer."""
        return self._run(self._client.chat(messages, model, **options))

    def stream(
        self, messages: str | Sequence[Mapping[str, Any]], model: str | None = None, **options: Any
    ) -> Iterator[Delta]:
        """An answer piece by piece. Closing the iterator stops the stages."""
        deltas = self._client.stream(messages, model, **options)
        try:
            while (delta := self._run(_next(deltas))) is not None:
                yield delta
        finally:
            self._run(_close(deltas))

    def receipts(self, request: str) -> dict[str, Any]:
        """A request's receipts as the gateway tells them."""
        return self._run(self._client.receipts(request))

    def network_info(self) -> dict[str, Any]:
        """What the gateway says of itself."""
        return self._run(self._client.network_info())

    def balance(self) -> Balance:
        """The wallet's money, from the chain."""
        return self._run(self._client.balance())

    def open_session(self, budget: int, duration_s: int = 30 * 86_400) -> Session:
        """Lock `budget` base units for requests to this gateway."""
        return self._run(self._client.open_session(budget, duration_s))

    def sessions(self) -> list[Session]:
        """This machine's sessions of the wallet on this network."""
        return self._run(self._client.sessions())


async def _make(*args: Any, **options: Any) -> AsyncClient:
    return AsyncClient(*args, **options)


async def _next(deltas: AsyncIterator[Delta]) -> Delta | None:
    return await anext(deltas, None)


async def _close(deltas: Any) -> None:
    await deltas.aclose()
