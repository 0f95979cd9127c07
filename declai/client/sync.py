"""The blocking client: the asynchronous one on an event loop of its own, in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, Unpack

from declai.client.aio import TIMEOUT_S, AsyncClient
from declai.client.options import ChatOptions
from declai.client.types import Answer, Balance, Delta, Estimate, Model, Session, Tier
from declai.network import Network

Result = TypeVar("Result")


class Client:
    """Like `AsyncClient`, method by method and argument by argument, for programs without an event loop."""

    def __init__(
        self,
        network: Network | Path | None = None,
        *,
        wallet: str = "requester",
        password_file: Path | None = None,
        api_key: str | None = None,
        session: str | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="declai-client", daemon=True)
        self._thread.start()

        async def make() -> AsyncClient:
            return AsyncClient(
                network,
                wallet=wallet,
                password_file=password_file,
                api_key=api_key,
                session=session,
                timeout_s=timeout_s,
            )

        self._client = self._run(make())

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

    def estimate(
        self,
        messages: str | Sequence[Mapping[str, Any]],
        model: str | None = None,
        *,
        tier: Tier = "research",
        **options: Unpack[ChatOptions],
    ) -> Estimate:
        """What a conversation's next answer may cost at most."""
        return self._run(self._client.estimate(messages, model, tier=tier, **options))

    def chat(
        self,
        messages: str | Sequence[Mapping[str, Any]],
        model: str | None = None,
        *,
        tier: Tier = "research",
        **options: Unpack[ChatOptions],
    ) -> Answer:
        """One whole answer; see `AsyncClient.chat`."""
        return self._run(self._client.chat(messages, model, tier=tier, **options))

    def stream(
        self,
        messages: str | Sequence[Mapping[str, Any]],
        model: str | None = None,
        *,
        tier: Tier = "research",
        **options: Unpack[ChatOptions],
    ) -> Iterator[Delta]:
        """An answer piece by piece. Closing the iterator stops the stages."""
        deltas = self._client.stream(messages, model, tier=tier, **options)
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


async def _next(deltas: AsyncIterator[Delta]) -> Delta | None:
    return await anext(deltas, None)


async def _close(deltas: Any) -> None:
    await deltas.aclose()
