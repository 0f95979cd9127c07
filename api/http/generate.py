"""`POST /v1/chat/completions`, `POST /v1/completions` and `POST /v1/estimate`: parse, admit, stream."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from api.auth.signed import SCHEME, parse_header
from api.credits.admission import Admitted, Asked
from api.errors import ContextLengthExceeded, GatewayError, InvalidRequest
from api.gateway import Gateway
from api.http.body import bearer_token, gateway_of, read_json, validate
from api.http.schemas import DEFAULT_CHAT_TOKENS, DEFAULT_COMPLETION_TOKENS, ChatRequest, CompletionRequest
from api.serving.catalog import ServedModel
from api.serving.generator import End, Piece, Quote, Running
from api.serving.pipeline import Generation
from chain.pricing import format_credits

router = APIRouter()
Kind = Literal["chat", "completion"]


@dataclass(frozen=True)
class Parsed:
    """A request that makes sense: what is asked, and of which model."""

    kind: Kind
    body: dict[str, Any]
    asked: ChatRequest | CompletionRequest
    model: ServedModel
    generation: Generation


@router.post("/v1/chat/completions")
async def chat_completions(request: Request) -> Response:
    """OpenAI's chat completions."""
    return await _complete(request, "chat")


@router.post("/v1/completions")
async def completions(request: Request) -> Response:
    """OpenAI's plain completions."""
    return await _complete(request, "completion")


@router.post("/v1/estimate")
async def estimate(request: Request) -> dict[str, Any]:
    """What a chat or completion body may cost at most, on the plan that would be chosen now. Free, needs no key."""
    body = await read_json(request)
    gateway = gateway_of(request)
    parsed = await asyncio.to_thread(_parse, gateway, body, "chat" if "messages" in body else "completion")
    quote = _quote(gateway, parsed)
    return {
        "object": "estimate",
        "model": parsed.model.name,
        "num_prompt_tokens": len(parsed.generation.prompt_token_ids),
        "max_tokens": parsed.generation.max_tokens,
        "tier": parsed.asked.tier,
        "max_cost": str(quote.max_cost),
        "max_cost_credits": format_credits(quote.max_cost),
        "fee_bps": gateway.generator.fee_bps,
        "seconds": round(quote.plan.seconds, 4),
        "stages": [
            {
                "node": stage.offer.address,
                "layers": [stage.first_layer, stage.end_layer],
                "prompt_price": str(stage.offer.prompt_price),
                "output_price": str(stage.offer.output_price),
            }
            for stage in quote.plan.stages
        ],
    }


async def _complete(request: Request, kind: Kind) -> Response:
    gateway = gateway_of(request)
    authorization = request.headers.get("authorization", "")
    header = parse_header(authorization) if authorization.startswith(SCHEME) else None
    session = None if header else await asyncio.to_thread(gateway.signin.session_of, bearer_token(request))
    parsed = await asyncio.to_thread(_parse, gateway, await read_json(request), kind)
    gateway.generator.check_room()
    quote = _quote(gateway, parsed)
    asked = Asked(
        parsed.model.name, parsed.body, parsed.generation.max_tokens, parsed.asked.service_tier, quote.max_cost
    )
    if header is not None:
        admitted = await asyncio.to_thread(gateway.admission.admit_signed, header, asked)
    else:
        assert session is not None
        admitted = await asyncio.to_thread(gateway.admission.admit_keyed, session, asked)
    running = gateway.generator.start(admitted, parsed.generation, quote.plan)
    headers = {"x-declai-request": admitted.request}
    answer = Answer(parsed, admitted)
    if parsed.asked.stream:
        events = _events(answer, running)
        return StreamingResponse(
            events, media_type="text/event-stream", headers=headers | {"Cache-Control": "no-cache"}
        )
    return JSONResponse(await _whole(request, answer, running), headers=headers)


def _parse(gateway: Gateway, body: dict[str, Any], kind: Kind) -> Parsed:
    asked: ChatRequest | CompletionRequest
    if kind == "chat":
        asked = validate(ChatRequest, body)
        model = gateway.catalog.get(asked.model)
        prompt = model.tokenizer.encode_chat([message.plain() for message in asked.messages])
    else:
        asked = validate(CompletionRequest, body)
        model = gateway.catalog.get(asked.model)
        prompt = model.tokenizer.encode(asked.prompt) if isinstance(asked.prompt, str) else list(asked.prompt)
    field = "messages" if kind == "chat" else "prompt"
    if not prompt:
        raise InvalidRequest("the prompt has no tokens", param=field)
    if max(prompt) >= model.manifest.vocab_size:
        raise InvalidRequest(f"token ids of {model.name} are below {model.manifest.vocab_size}", param=field)
    room = model.manifest.context_length - len(prompt)
    wanted = asked.asked_tokens or (DEFAULT_CHAT_TOKENS if kind == "chat" else DEFAULT_COMPLETION_TOKENS)
    if room < 1 or (asked.asked_tokens is not None and wanted > room):
        raise ContextLengthExceeded(
            f"{model.name} has a context of {model.manifest.context_length} tokens; the prompt has {len(prompt)} and "
            f"{wanted} more are asked for: shorten the prompt or lower max_tokens",
            param=field,
        )
    generation = Generation(
        model=model,
        prompt_token_ids=prompt,
        max_tokens=min(wanted, room),
        sampling=asked.sampling(),
        stop=asked.stops,
        ignore_eos=asked.ignore_eos,
    )
    return Parsed(kind, body, asked, model, generation)


def _quote(gateway: Gateway, parsed: Parsed) -> Quote:
    generation = parsed.generation
    return gateway.generator.quote(
        parsed.model, len(generation.prompt_token_ids), generation.max_tokens, parsed.asked.service_tier
    )


class Answer:
    """Shapes pieces of text into the objects of the API."""

    def __init__(self, parsed: Parsed, admitted: Admitted) -> None:
        self.parsed = parsed
        self._chat = parsed.kind == "chat"
        self._head = {
            "id": ("chatcmpl-" if self._chat else "cmpl-") + admitted.request[2:34],
            "created": int(time.time()),
            "model": parsed.model.name,
        }
        self._with_ids = parsed.asked.return_token_ids
        self._num_chunks = 0

    def chunk(self, piece: Piece | None, finish_reason: str | None = None) -> dict[str, Any]:
        """One event of a stream."""
        text = piece.text if piece else ""
        choice: dict[str, Any] = {"index": 0, "finish_reason": finish_reason, "logprobs": None}
        if self._chat:
            role = {"role": "assistant"} if self._num_chunks == 0 else {}
            choice["delta"] = role | ({"content": text} if piece else {})
        else:
            choice["text"] = text
        if self._with_ids and piece:
            choice["token_ids"] = piece.token_ids
        body = self._head | {"object": self._object(chunk=True), "choices": [choice]}
        if self._with_ids and self._num_chunks == 0:
            body["prompt_token_ids"] = list(self.parsed.generation.prompt_token_ids)
        if self.parsed.asked.wants_usage:
            body["usage"] = None
        self._num_chunks += 1
        return body

    def usage_chunk(self, end: End) -> dict[str, Any]:
        """The event with the usage, which has no choices."""
        return self._head | {"object": self._object(chunk=True), "choices": [], "usage": usage(end)}

    def whole(self, pieces: list[Piece], end: End) -> dict[str, Any]:
        """The answer to a request that is not streamed."""
        text = "".join(piece.text for piece in pieces)
        choice: dict[str, Any] = {"index": 0, "finish_reason": finish_word(end), "logprobs": None}
        if self._chat:
            choice["message"] = {"role": "assistant", "content": text, "refusal": None}
        else:
            choice["text"] = text
        body = self._head | {"object": self._object(chunk=False), "choices": [choice], "usage": usage(end)}
        if self._with_ids:
            choice["token_ids"] = [token_id for piece in pieces for token_id in piece.token_ids]
            body["prompt_token_ids"] = list(self.parsed.generation.prompt_token_ids)
        return body

    def _object(self, *, chunk: bool) -> str:
        if not self._chat:
            return "text_completion"
        return "chat.completion.chunk" if chunk else "chat.completion"


def finish_word(end: End) -> str:
    """OpenAI's word for how it ended; a cancelled answer was cut like one that ran out of tokens."""
    return end.finish_reason if end.finish_reason in ("stop", "length") else "length"


def usage(end: End) -> dict[str, Any]:
    """OpenAI's counts, and what it cost in credits as an exact decimal."""
    return {
        "prompt_tokens": end.num_prompt_tokens,
        "completion_tokens": end.num_output_tokens,
        "total_tokens": end.num_prompt_tokens + end.num_output_tokens,
        "cost_credits": format_credits(end.cost),
    }


def _event(data: dict[str, Any]) -> str:
    return f"data: {json.dumps(data, ensure_ascii=False, separators=(',', ':'))}\n\n"


async def _events(answer: Answer, running: Running) -> AsyncIterator[str]:
    """Server-sent events: deltas, the finish reason, usage when asked for, `[DONE]`; or an error in mid-stream."""
    try:
        async for item in running.items():
            if isinstance(item, Piece):
                if item.text or answer.parsed.asked.return_token_ids:
                    yield _event(answer.chunk(item))
            else:
                yield _event(answer.chunk(None, finish_word(item)))
                if answer.parsed.asked.wants_usage:
                    yield _event(answer.usage_chunk(item))
                yield "data: [DONE]\n\n"
    except GatewayError as error:
        yield _event(error.body())
    finally:
        running.cancel()  # the client went away, or all is said: then it does nothing


async def _whole(request: Request, answer: Answer, running: Running) -> dict[str, Any]:
    """Wait for the end; a client who goes away meanwhile stops the stages."""
    pieces: list[Piece] = []
    watcher = asyncio.create_task(_cancel_when_gone(request, running))
    try:
        async for item in running.items():
            if isinstance(item, End):
                return answer.whole(pieces, item)
            pieces.append(item)
        raise GatewayError("the answer ended without an end")
    finally:
        watcher.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watcher


async def _cancel_when_gone(request: Request, running: Running) -> None:
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            running.cancel()
            return
