"""A local OpenAI endpoint that signs every request with a session key: the safe mode for programs that know no wallets.

It listens on loopback alone, forwards to the gateway, passes the answer through unchanged but for the token ids it
needs itself, and acknowledges an answer once its receipts are checked.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from pydantic_core import from_json
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from declai.client.aio import AsyncClient
from declai.client.choices import bodies_of, exchange_choices
from declai.client.evidence import Evidence
from declai.errors import ApiError, DeclaiError
from declai.network import load

MAX_BODY_BYTES = 8 * 2**20


def create_proxy(network_path: Path | None, wallet: str, password_file: Path | None, session: str | None) -> Starlette:
    """The application. One client, opened when it starts."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        network = load(network_path)
        async with AsyncClient(network, wallet=wallet, password_file=password_file, session=session) as client:
            app.state.client = client
            yield

    routes = [
        Route("/v1/models", _models),
        Route("/v1/chat/completions", _forward, methods=["POST"]),
        Route("/v1/completions", _forward, methods=["POST"]),
    ]
    return Starlette(routes=routes, lifespan=lifespan)


async def _models(request: Request) -> Response:
    client: AsyncClient = request.app.state.client
    try:
        models = await client.models()
    except DeclaiError as error:
        return _error(error)
    return JSONResponse({"object": "list", "data": [{"object": "model", **model.model_dump()} for model in models]})


async def _forward(request: Request) -> Response:
    client: AsyncClient = request.app.state.client
    raw = await request.body()
    try:
        if len(raw) > MAX_BODY_BYTES:
            raise ApiError(f"a body has at most {MAX_BODY_BYTES} bytes", status=413, code="body_too_large")
        body = from_json(raw)
        if not isinstance(body, dict):
            raise ValueError("a JSON object is needed")
    except ApiError as error:
        return _error(error)
    except ValueError as error:
        return _error(ApiError(f"the body is not JSON: {error}", status=400, type="invalid_request_error"))
    wants_ids = bool(body.get("return_token_ids"))
    bodies = bodies_of(body)
    evidences = [Evidence() for _ in bodies]
    exchange = exchange_choices(client, request.url.path, bodies, evidences)
    try:
        payloads = await exchange.__aenter__()
    except DeclaiError as error:
        return _error(error)
    requests = [evidence.request or "" for evidence in evidences]
    headers = {"x-declai-request": requests[0], "x-declai-requests": ",".join(requests)}

    async def relayed() -> AsyncIterator[dict[str, Any]]:
        async for payload in payloads:
            yield payload if wants_ids else _without_ids(payload)

    if body.get("stream"):
        return StreamingResponse(_events(exchange, relayed()), media_type="text/event-stream", headers=headers)
    try:
        answer = [payload async for payload in relayed()][-1]  # to the end, where the receipts are checked
        await exchange.__aexit__(None, None, None)
    except DeclaiError as error:
        return _error(error)
    return JSONResponse(answer, headers=headers)


async def _events(exchange: Any, payloads: AsyncIterator[dict[str, Any]]) -> AsyncIterator[str]:
    """The stream, and its end only after the receipts were checked."""
    try:
        try:
            async for payload in payloads:
                yield f"data: {json.dumps(payload, separators=(',', ':'))}\n\n"
        finally:
            await exchange.__aexit__(None, None, None)
        yield "data: [DONE]\n\n"
    except DeclaiError as error:
        yield f"data: {json.dumps(_body(error))}\n\n"


def _without_ids(payload: dict[str, Any]) -> dict[str, Any]:
    choices = [{k: v for k, v in choice.items() if k != "token_ids"} for choice in payload.get("choices", ())]
    return {k: v for k, v in payload.items() if k != "prompt_token_ids"} | {"choices": choices}


def _body(error: DeclaiError) -> dict[str, Any]:
    if isinstance(error, ApiError):
        fields = {"type": error.type, "param": error.param, "code": error.code}
    else:
        fields = {"type": "payment_error", "param": None, "code": type(error).__name__}
    return {"error": {"message": str(error), **fields}}


def _error(error: DeclaiError) -> JSONResponse:
    status = error.status if isinstance(error, ApiError) and error.status else 502
    return JSONResponse(_body(error), status_code=status)
