"""Reading a request's body: bounded before it is parsed, JSON with typed errors, and who sends it."""

from __future__ import annotations

import json
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError

from api.errors import AuthenticationFailed, BodyTooLarge, InvalidRequest
from api.gateway import Gateway
from api.http.errors import invalid

Schema = TypeVar("Schema", bound=BaseModel)


def gateway_of(request: Request) -> Gateway:
    gateway: Gateway = request.app.state.gateway
    return gateway


async def read_json(request: Request) -> dict[str, Any]:
    """The JSON object in the body.

    Raises:
        BodyTooLarge: before more than the limit is read.
        InvalidRequest: not a JSON object.
    """
    limit = gateway_of(request).settings.max_body_bytes
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise BodyTooLarge(f"a body has at most {limit} bytes here")
    try:
        value = json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"the body is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise InvalidRequest(f"the body must be a JSON object, not {type(value).__name__}")
    return value


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def validate(schema: type[Schema], value: dict[str, Any]) -> Schema:
    """Raises InvalidRequest with the first wrong field."""
    try:
        return schema.model_validate(value)
    except ValidationError as error:
        raise invalid(error) from None


def bearer_token(request: Request) -> str:
    """The API key of a request. Raises AuthenticationFailed."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token or len(token) > 256:
        raise AuthenticationFailed(
            "send `Authorization: Bearer dcl_...` (see `declai session login`) or a signed request"
        )
    return token.strip()
