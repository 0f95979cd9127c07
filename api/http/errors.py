"""One handler for every error: the API's shape, never a traceback, never silence."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from declai.api.errors import GatewayError, InvalidRequest, NotFound
from declai.chain.errors import ChainError

logger = logging.getLogger(__name__)
MAX_SHOWN_CHARS = 80


class ChainTrouble(GatewayError):
    """The chain cannot be asked now."""

    status, code = 503, "chain_unreachable"

    @property
    def headers(self) -> dict[str, str]:
        return {"Retry-After": "5"}


class MethodNotAllowed(InvalidRequest):
    status, code = 405, "method_not_allowed"


class UnknownParameter(InvalidRequest):
    code = "unknown_parameter"


def invalid(error: RequestValidationError) -> InvalidRequest:
    """A schema's complaint as one sentence about the first wrong field."""
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        detail = first.get("ctx", {}).get("error", "")
        return InvalidRequest(f"the body is not JSON: {detail} at character {first['loc'][-1]}")
    path = _path(first["loc"])
    param = path.split(".")[0].split("[")[0] or None
    if first["type"] == "extra_forbidden":
        return UnknownParameter(f"there is no parameter {path}: check its spelling", param=path)
    if not path:
        return InvalidRequest("the body must be a JSON object, sent with Content-Type: application/json")
    message = first["msg"].removeprefix("Value error, ")  # what our own validators say
    return InvalidRequest(f"{path}: {message}{_shown(first.get('input'))}", param=param)


def _path(location: tuple[int | str, ...]) -> str:
    """`("body", "messages", 0, "content", "str")` as `messages[0].content`."""
    path = ""
    for part in location[1:]:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part.isidentifier() and part not in ("str", "int"):  # what is no identifier names a branch of a union
            path += f".{part}" if path else part
    return path[:200]


def _shown(value: Any) -> str:
    if not isinstance(value, str | int | float | bool):
        return ""
    text = repr(value[: MAX_SHOWN_CHARS + 1] if isinstance(value, str) else value)
    return f" (got {text})" if len(text) <= MAX_SHOWN_CHARS else ""


def respond(error: GatewayError, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """The answer to an error. `headers` are put beside the error's own."""
    return JSONResponse(error.body(), status_code=error.status, headers={**error.headers, **(headers or {})})


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
        return respond(_from_http(request, error))

    @app.exception_handler(Exception)
    async def on_any_error(request: Request, error: Exception) -> JSONResponse:
        logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return respond(GatewayError("the gateway failed to answer; nothing is charged"))


def _from_http(request: Request, error: HTTPException) -> GatewayError:
    path = request.url.path[:200]
    if isinstance(error.__cause__, GatewayError):  # raised while the framework read the body
        return error.__cause__
    if error.status_code == 405:
        return MethodNotAllowed(f"{request.method} does not go with {path}: see GET /openapi.json")
    if error.status_code == 404:
        return NotFound(f"there is no {path} here: see GET /openapi.json")
    return InvalidRequest("the body cannot be read: send JSON in UTF-8")
