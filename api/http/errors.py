"""One handler for every error: the API's shape, never a traceback, never silence."""

from __future__ import annotations

import logging

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from api.errors import GatewayError, InvalidRequest, NotFound
from chain.errors import ChainError

logger = logging.getLogger(__name__)


class ChainTrouble(GatewayError):
    """The chain cannot be asked now."""

    status, code = 503, "chain_unreachable"


class MethodNotAllowed(InvalidRequest):
    status, code = 405, "method_not_allowed"


def invalid(error: ValidationError | RequestValidationError) -> InvalidRequest:
    """A schema's complaint as one sentence about the first wrong field."""
    first = error.errors()[0]
    path = [str(part) for part in first["loc"] if part not in ("body", "query", "path")]
    value = repr(first.get("input"))
    shown = value if len(value) <= 80 else value[:77] + "..."
    where = ".".join(path) or "the body"
    return InvalidRequest(f"{where}: {first['msg']} (got {shown})", param=path[0] if path else None)


def respond(error: GatewayError) -> JSONResponse:
    return JSONResponse(error.body(), status_code=error.status, headers=error.headers)


def install(app: FastAPI) -> None:
    """Give the app its handlers."""

    @app.exception_handler(GatewayError)
    async def on_gateway_error(request: Request, error: GatewayError) -> JSONResponse:
        return respond(error)

    @app.exception_handler(RequestValidationError)
    async def on_validation_error(request: Request, error: RequestValidationError) -> JSONResponse:
        return respond(invalid(error))

    @app.exception_handler(ChainError)
    async def on_chain_error(request: Request, error: ChainError) -> JSONResponse:
        logger.warning("chain error while serving %s: %s", request.url.path, error)
        return respond(ChainTrouble("the chain cannot be asked now: try again in a moment"))

    @app.exception_handler(HTTPException)
    async def on_http_error(request: Request, error: HTTPException) -> JSONResponse:
        if error.status_code == 405:
            return respond(MethodNotAllowed(f"{request.method} does not go with {request.url.path}"))
        return respond(NotFound(f"there is no {request.method} {request.url.path} here: see GET /openapi.json"))

    @app.exception_handler(Exception)
    async def on_any_error(request: Request, error: Exception) -> JSONResponse:
        logger.exception("%s %s failed", request.method, request.url.path)
        return respond(GatewayError("the gateway failed to answer; nothing is charged"))
