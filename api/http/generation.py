"""From a parsed request to its response, streamed or whole: what chat and plain completions do alike."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

from fastapi import Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Message, Send

from declai.api.errors import GatewayError
from declai.api.http.answers import DONE, AnswerShape, Style, event
from declai.api.http.caller import body_of, gateway_of, payer_of
from declai.api.http.errors import respond
from declai.api.http.schemas import GenerationRequest
from declai.api.serving.choices import Choices, Item
from declai.api.serving.running import End, Piece, Running
from declai.protocol.signed_requests import SignedHeader

logger = logging.getLogger(__name__)
REQUEST_HEADER = "x-declai-request"
# Of an answer with several choices: all of their requests, in the choices' order.
REQUESTS_HEADER = "x-declai-requests"
# A client that takes nothing for this long has lost interest; its tokens are made and stored all the same.
SEND_TIMEOUT_S = 60.0


async def generate(request: Request, asked: GenerationRequest, style: Style) -> Response:
    """Admit, serve, answer. Errors before the first token have a status of their own, later ones end the stream."""
    payer = await payer_of(request)
    signed_max_tokens = payer.request.max_tokens if isinstance(payer, SignedHeader) else None
    begun, choices = await gateway_of(request).intake.begin(
        asked.parsed(signed_max_tokens), await body_of(request), payer
    )
    requests = [choice.admitted.request for choice in begun]
    headers = {REQUEST_HEADER: requests[0], REQUESTS_HEADER: ",".join(requests)}
    answer = AnswerShape(style, begun, return_token_ids=asked.return_token_ids, wants_usage=asked.wants_usage)
    items = choices.items()
    try:
        async with _cancel_when_gone(request, choices):
            first = await anext(items)
            headers |= _timing(choices.running[first[0]])
            if not asked.stream:
                return JSONResponse(await _whole(answer, len(begun), first, items), headers=headers)
    except GatewayError as error:
        return respond(error, headers)
    except asyncio.CancelledError:
        choices.cancel()
        raise
    return EventStream(_events(answer, choices, first, items), headers=headers)


def _timing(running: Running) -> dict[str, str]:
    """Milliseconds from admission until all stages ran and until the first token (W3C Server-Timing)."""
    if running.ready_s is None or running.first_token_s is None:
        return {}
    return {"Server-Timing": f"ready;dur={running.ready_s * 1e3:.3f}, first;dur={running.first_token_s * 1e3:.3f}"}


async def _whole(answer: AnswerShape, num_choices: int, first: Item, items: AsyncIterator[Item]) -> dict[str, object]:
    pieces: list[list[Piece]] = [[] for _ in range(num_choices)]
    ends: dict[int, End] = {}
    async for choice, item in _chained(first, items):
        if isinstance(item, End):
            ends[choice] = item
        else:
            pieces[choice].append(item)
    return answer.whole(pieces, [ends[choice] for choice in range(num_choices)])


async def _events(
    answer: AnswerShape, choices: Choices, first: Item, items: AsyncIterator[Item]
) -> AsyncIterator[bytes]:
    """Deltas, the finish reasons, usage when asked for, `[DONE]`; or an error in mid-stream."""
    ends: list[End] = []
    try:
        async for choice, item in _chained(first, items):
            if isinstance(item, End):
                ends.append(item)
                yield event(answer.end_chunk(choice, item))
            elif (chunk := answer.chunk(choice, item)) is not None:
                yield event(chunk)
        if answer.wants_usage:
            yield event(answer.usage_chunk(ends))
        yield DONE
    except GatewayError as error:
        yield event(error.body())
    finally:
        choices.cancel()  # whoever left early wants no more; after the end this does nothing


async def _chained(first: Item, items: AsyncIterator[Item]) -> AsyncIterator[Item]:
    yield first
    async for item in items:
        yield item


class EventStream(StreamingResponse):
    """Server-sent events to a client that may be slow, but not for ever."""

    media_type = "text/event-stream"

    def __init__(self, content: AsyncIterator[bytes], headers: dict[str, str]) -> None:
        super().__init__(content, headers={**headers, "Cache-Control": "no-cache", "X-Accel-Buffering": "no"})

    async def stream_response(self, send: Send) -> None:
        async def send_in_time(message: Message) -> None:
            async with asyncio.timeout(SEND_TIMEOUT_S):
                await send(message)

        try:
            await super().stream_response(send_in_time)
        except TimeoutError:
            logger.info("a client took nothing for %g s: its stream ends here", SEND_TIMEOUT_S)


@contextlib.asynccontextmanager
async def _cancel_when_gone(request: Request, choices: Choices) -> AsyncIterator[None]:
    """Cancel the request when its client disconnects before the block ends."""

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        choices.cancel()

    watcher = asyncio.create_task(watch(), name="disconnect")
    try:
        yield
    finally:
        watcher.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watcher
