"""Several choices of one answer, each a signed request of its own: a signature pays one output."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from declai.chain.pricing import parse_credits
from declai.client.aio import AsyncClient
from declai.client.evidence import Evidence
from declai.protocol.options import MAX_CHOICES, seed_of_choice
from declai.protocol.usage import ChoiceUsage, usage_of


def bodies_of(body: dict[str, Any]) -> list[dict[str, Any]]:
    """A body for each choice that is asked for.

    A wrong `n` stays as it is: the gateway says what is wrong with it.
    """
    count, seed = body.get("n"), body.get("seed")
    if type(count) is not int or not 1 < count <= MAX_CHOICES:
        return [body]
    one = {name: value for name, value in body.items() if name != "n"}
    return [one | ({"seed": seed_of_choice(seed, choice)} if type(seed) is int else {}) for choice in range(count)]


@asynccontextmanager
async def exchange_choices(
    client: AsyncClient, path: str, bodies: Sequence[dict[str, Any]], evidences: Sequence[Evidence]
) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
    """`AsyncClient.exchange` of several bodies at once: what comes back is one answer with as many choices.

    When one fails the others are cancelled; what they made is paid. What is iterated over ends when the receipts of
    all were checked.
    """
    arrived: asyncio.Queue[tuple[int, dict[str, Any] | Exception | None]] = asyncio.Queue()

    async def ask(choice: int) -> None:
        try:
            async with client.exchange(path, bodies[choice], evidences[choice]) as payloads:
                arrived.put_nowait((choice, {}))  # the headers are here
                async for payload in payloads:
                    evidences[choice].see(payload)
                    arrived.put_nowait((choice, payload))
        except Exception as error:
            arrived.put_nowait((choice, error))
        else:
            arrived.put_nowait((choice, None))

    async def items() -> AsyncIterator[tuple[int, dict[str, Any]]]:
        num_open = len(bodies)
        while num_open:
            choice, item = await arrived.get()
            if isinstance(item, Exception):
                raise item
            if item is None:
                num_open -= 1
            else:
                yield choice, item

    tasks = [asyncio.create_task(ask(choice), name="choice") for choice in range(len(bodies))]
    try:
        coming, early, num_silent = items(), list[tuple[int, dict[str, Any]]](), len(bodies)
        while num_silent:
            choice, payload = await anext(coming)
            num_silent -= not payload
            early += [(choice, payload)] if payload else []
        yield _merged(early, coming, len(bodies))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _merged(
    early: Sequence[tuple[int, dict[str, Any]]], coming: AsyncIterator[tuple[int, dict[str, Any]]], count: int
) -> AsyncIterator[dict[str, Any]]:
    """Chunks as they come, under one id; whole answers and usages once all of them are there."""
    head: dict[str, Any] = {}
    choices: list[dict[str, Any]] = []
    usages: list[dict[str, Any]] = []
    async for number, payload in _chained(early, coming):
        own = [choice | {"index": number} for choice in payload.get("choices", ())]
        # The prompt's token ids are the same for all: once is enough.
        payload = payload if not head else {k: v for k, v in payload.items() if k != "prompt_token_ids"}
        head = head or {name: payload[name] for name in ("id", "created", "model") if name in payload}
        if not payload.get("usage"):
            yield payload | head | {"choices": own}
            continue
        if "prompt_token_ids" in payload:
            head["prompt_token_ids"] = payload["prompt_token_ids"]
        choices += own
        usages.append(payload["usage"])
        if len(usages) == count:
            ordered = sorted(choices, key=lambda choice: choice["index"])
            yield payload | head | {"choices": ordered, "usage": _sum(usages)}


async def _chained(
    early: Sequence[tuple[int, dict[str, Any]]], coming: AsyncIterator[tuple[int, dict[str, Any]]]
) -> AsyncIterator[tuple[int, dict[str, Any]]]:
    for item in early:
        yield item
    async for item in coming:
        yield item


def _sum(usages: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return usage_of(
        [
            ChoiceUsage(usage["prompt_tokens"], usage["completion_tokens"], parse_credits(usage["cost_credits"]))
            for usage in usages
        ]
    )
